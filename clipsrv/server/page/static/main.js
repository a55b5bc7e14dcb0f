/** The page: makes its parts and tells each what happens in the others. */
import { Album } from './album.js';
import { CallView } from './call-view.js';
import { Chosen } from './chosen.js';
import { Doors } from './doors.js';
import { Facts } from './facts.js';
import { Gallery } from './gallery.js';
import { IndexView } from './index-view.js';
import { KeyForm } from './key-form.js';
import { ModelChoice } from './model-choice.js';
import { Notices } from './notices.js';
import { ProgressLine } from './progress-line.js';
import { Search } from './search.js';
import { Refused, Server, Unreachable } from './server.js';
import { Sources } from './sources.js';
import { Stage } from './stage.js';
import { Store } from './store.js';
import { Thumbnails } from './thumbnails.js';
import { sayAll, wordsFor } from './words.js';
import { Work } from './work.js';

/** @typedef {import('./album.js').Entry} Entry */
/** @typedef {import('./calls.js').Deed} Deed */

const base = new URL('.', location.href);
const words = wordsFor(navigator.languages);
document.documentElement.lang = words.language;
sayAll(document, words);

const notices = new Notices(at('notices'));
const keyForm = new KeyForm(at('key-form'), () => {
  void connect();
  work.unlock();
});
const server = new Server(base, () => keyForm.key);
const album = new Album(await Store.open(), new Thumbnails(), (what) => notices.say('storage', words[what]));
const progress = new ProgressLine(at('progress'), at('told'), words);
const call = new CallView(at('call'), words);
const facts = new Facts(at('facts'), server, words, (health, before) => {
  notices.say('health', health === 'gone' ? words.gone : '');
  if (before !== null && health === 'healthy') void connect();
});
const models = new ModelChoice(at('models-label'), () => void work.use());
const work = new Work(server, album, models, {
  failed: (entry, reason) => {
    progress.fail(entry.name, words.errors[reason.code] ?? reason.message);
    void album.remove(entry).then(() => stage.draw());
  },
  progress: (now) => {
    progress.show(now);
    if (now.perSecond > 0) facts.speed(words.speed(now.perSecond));
  },
  held: (why, seconds) => {
    notices.say('busy', why === 'busy' ? words.busy(seconds) : '');
    if (why === 'key') askForKey();
    else if (why === 'gone') void facts.look();
  },
  lost: (count) => notices.say('originals', count > 0 ? words.withoutOriginals(count) : ''),
  model: useModel,
  changed: () => stage.draw(),
});
const search = new Search(server, found, (error) => (error ? tell(error) : notices.say('query', '')));
const sources = new Sources(at('sources'), (source) => {
  index.show(source === 'index');
  close();
  if (field.value.trim()) ask(true);
  else if (source === 'index') void index.all();
});
const index = new IndexView(at('indexed'), server, words, {
  failed: tell,
  done: (deed, answer) => {
    if (deed?.kind === 'image') field.value = '';
    notices.say('query', '');
    notices.say('text', answer?.unknown_script ? words.unknownScript : answer?.truncated ? words.cut : '');
    if (answer?.results[0]) progress.say(words.told(answer.results.length, answer.results[0].path));
    show(deed);
  },
});
/** @type {Gallery<Entry>} */
const gallery = new Gallery(at('grid'), at('more'), {
  thumbnail: (entry) => album.thumbnail(entry),
  choose: (entry) => (chosenEntry() === entry ? close() : choose(entry)),
  words,
});
const stage = new Stage(words, { gallery, album, search, away: () => sources.ofIndex, say: (text) => progress.say(text) });
const chosen = new Chosen(at('chosen'), words, {
  thumbnail: (entry) => album.thumbnail(entry),
  file: (entry) => album.file(entry),
  classify,
  remove: (entry) => {
    close();
    void album.remove(entry).then(() => stage.draw());
  },
  close,
});
new Doors((files, leftOut) => void take(files, leftOut));

const field = /** @type {HTMLInputElement} */ (at('search'));
field.addEventListener('input', () => ask(false));
at('search-form').addEventListener('submit', (event) => {
  event.preventDefault();
  ask(true);
});
document.addEventListener('keydown', (event) => {
  if (event.key !== 'Escape' || event.target === field) return;
  if (sources.ofIndex) void index.all();
  else if (chosenEntry()) close();
});
at('clear').addEventListener('click', () => stage.confirm(album.count, () => void clear()));

/** @type {Deed | null} */
let done = null;
await album.load();
stage.draw();
void facts.look();
void connect();

/** Takes up work with the server, or says what is in the way. */
async function connect() {
  try {
    await work.connect();
  } catch (error) {
    if (error instanceof Refused && error.status === 401) askForKey();
    else if (error instanceof Refused) tell(error);
    else if (!(error instanceof Unreachable)) throw error;
    return; // what is gone, facts watches for
  }
  keyForm.accepted();
  notices.say('key', '');
  sources.offer(await index.open(), album.count > 0 ? 'here' : 'index');
}

/** Shows which model is in use, and asks it what is asked. */
function useModel() {
  const { text: reads = true } = models.facts;
  facts.model(models.all, models.chosen);
  chosen.text(reads);
  field.disabled = !reads;
  field.placeholder = reads ? words.searchHint : words.searchOff;
  if (!sources.ofIndex && field.value.trim()) search.words(field.value.trim(), models.chosen, true);
  show(done);
}

/** @param {readonly {file: File, path: string}[]} files @param {readonly string[]} leftOut paths of files that are no images */
async function take(files, leftOut) {
  progress.begin();
  if (sources.ofIndex) sources.look('here');
  const added = await album.add(files);
  const known = files.length - added.length;
  notices.say('left-out', [leftOut.length && words.leftOut(leftOut), known && words.alreadyHere(known)].filter(Boolean).join(' '));
  if (added.length > 0) show({ kind: 'images', names: added.map(({ name }) => name) });
  work.add(added);
  stage.draw();
}

/** @param {boolean} atOnce */
function ask(atOnce) {
  void chosen.show(null);
  if (sources.ofIndex) index.ask(field.value.trim(), atOnce);
  else search.words(field.value.trim(), models.chosen, atOnce);
}

/** @param {Entry} entry */
function choose(entry) {
  field.value = '';
  search.image(entry);
  void chosen.show(entry);
  scrollTo({ top: 0 });
  show({ kind: 'image', name: entry.name });
}

function close() {
  void chosen.show(null);
  search.none();
}

async function clear() {
  work.cancel();
  progress.begin();
  field.value = '';
  close();
  show(null);
  notices.say('originals', '');
  await album.clear();
  stage.draw();
}

/** The query, or its vector, is another. */
function found() {
  const { query } = search;
  if (query?.kind === 'text' && query.found) {
    const { cut, unknownScript, milliseconds, id } = query.found;
    notices.say('text', unknownScript ? words.unknownScript : cut ? words.cut : '');
    facts.speed(words.took(milliseconds));
    show({ kind: 'text', text: query.text });
    void work.adopt(id);
  } else {
    notices.say('text', '');
  }
  stage.draw(true);
}

/**
 * @param {Entry} entry
 * @param {string[]} labels
 * @param {string} template
 */
async function classify(entry, labels, template) {
  const file = await album.file(entry);
  notices.say('query', file ? '' : words.noOriginal);
  if (!file) return null;
  try {
    const answer = await server.classify(file, labels, template, models.chosen);
    show({ kind: 'labels', name: entry.name, labels, template });
    return answer;
  } catch (error) {
    if (!(error instanceof Refused || error instanceof Unreachable)) throw error;
    tell(error);
    return null;
  }
}

/** @param {Refused | Unreachable} error */
function tell(error) {
  if (error instanceof Unreachable) void facts.look();
  else if (error.status === 401) askForKey();
  else notices.say('query', error.retryAfter ? words.busy(error.retryAfter) : words.ask(words.errors[error.code] ?? error.message));
}

function askForKey() {
  notices.say('key', keyForm.key ? words.wrongKey : words.needsKey);
  keyForm.ask();
}

/** @param {Deed | null} deed what was done last; the same once more where how to ask for it has changed */
function show(deed) {
  done = deed;
  if (deed) call.show(deed, { base, key: keyForm.key !== '', model: models.isFirst ? null : models.chosen });
  else call.hide();
}

/** @returns {Entry | null} */
function chosenEntry() {
  return search.query?.kind === 'image' ? search.query.entry : null;
}

/** @param {string} id */
function at(id) {
  return /** @type {HTMLElement} */ (document.getElementById(id));
}
