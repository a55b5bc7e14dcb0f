/** The page: makes its parts and tells each what happens in the others. */
import { Album } from './album.js';
import { CallView } from './call-view.js';
import { Chosen } from './chosen.js';
import { Doors } from './doors.js';
import { Facts } from './facts.js';
import { Gallery } from './gallery.js';
import { IndexView } from './index-view.js';
import { Intake } from './intake.js';
import { KeyForm } from './key-form.js';
import { ModelChoice } from './model-choice.js';
import { Notices } from './notices.js';
import { ProgressLine } from './progress-line.js';
import { ranked } from './ranking.js';
import { Search } from './search.js';
import { Refused, Server, Unreachable } from './server.js';
import { Sources } from './sources.js';
import { Stage } from './stage.js';
import { Store } from './store.js';
import { Thumbnails } from './thumbnails.js';
import { sayAll, wordsFor } from './words.js';

/** @typedef {import('./album.js').Entry} Entry */
/** @typedef {import('./calls.js').Deed} Deed */

/** Milliseconds in which changes of the grid are gathered. */
const GATHERED = 100;

const base = new URL('.', location.href);
const words = wordsFor(navigator.languages);
document.documentElement.lang = words.language;
sayAll(document, words);

const notices = new Notices(at('notices'));
const keyForm = new KeyForm(at('key-form'), () => {
  void connect();
  intake.unlock();
});
const server = new Server(base, () => keyForm.key);
const album = new Album(await Store.open(), new Thumbnails(), (what) => notices.say('storage', words[what]));
const progress = new ProgressLine(at('progress'), at('told'), words);
const call = new CallView(at('call'), words);
const facts = new Facts(at('facts'), server, words, (health, before) => {
  notices.say('health', health === 'gone' ? words.gone : '');
  if (before !== null && health === 'healthy') void connect();
});
const models = new ModelChoice(at('models-label'), (model) => void use(model));
const intake = new Intake(server, (entry) => album.file(entry), {
  embedded,
  failed: (entry, reason) => {
    progress.fail(entry.name, words.errors[reason.code] ?? reason.message);
    void album.remove(entry).then(() => draw());
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
});
const search = new Search(server, found, (error) => (error ? tell(error) : notices.say('query', '')));
const stage = new Stage(words);
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
const chosen = new Chosen(at('chosen'), words, {
  thumbnail: (entry) => album.thumbnail(entry),
  file: (entry) => album.file(entry),
  classify,
  remove: (entry) => {
    close();
    void album.remove(entry).then(() => draw());
  },
  close,
});
new Doors(take);

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
let anew = false;
let drawing = 0;
await album.load();
draw();
void facts.look();
void connect();

/** Learns the models there are, and takes up work with the one that was chosen. */
async function connect() {
  try {
    models.offer(await server.models());
  } catch (error) {
    if (error instanceof Refused && error.status === 401) askForKey();
    else if (error instanceof Refused) tell(error);
    else if (!(error instanceof Unreachable)) throw error;
    return; // what is gone, facts watches for
  }
  keyForm.accepted();
  notices.say('key', '');
  await use(models.chosen);
  sources.offer(await index.open(), album.count > 0 ? 'here' : 'index');
}

/** @param {string} model */
async function use(model) {
  const { embedding_id: id = '', text = true } = models.facts;
  facts.model(models.all, model);
  chosen.text(text);
  field.disabled = !text;
  field.placeholder = text ? words.searchHint : words.searchOff;
  if (id !== album.embeddingId) {
    intake.cancel();
    await album.use(id);
    if (search.query?.kind === 'text') search.words(search.query.text, model, true);
  }
  show(done);
  embedMissing();
  draw();
}

/** Sends the images that have no vector of this model. */
function embedMissing() {
  const missing = album.entries.filter((entry) => entry.vector === null);
  const lost = missing.filter((entry) => !entry.file && !entry.original);
  notices.say('originals', lost.length > 0 ? words.withoutOriginals(lost.length) : '');
  intake.cancel();
  intake.add(models.chosen, missing.filter((entry) => entry.file || entry.original));
}

/**
 * @param {string} id
 * @param {[Entry, Float32Array][]} pairs
 */
async function embedded(id, pairs) {
  const other = id !== album.embeddingId;
  if (other) await album.use(id);
  await album.embedded(id, pairs);
  if (other) await reconsider();
  draw();
}

/** The model is not what was told of it: it has just been loaded, or its folder is another. */
async function reconsider() {
  models.offer(await server.models());
  facts.model(models.all, models.chosen);
  embedMissing();
}

/** @param {readonly {file: File, path: string}[]} files @param {number} leftOut files that are no images */
function take(files, leftOut) {
  progress.begin();
  if (sources.ofIndex) sources.look('here');
  const added = album.add(files);
  const known = files.length - added.length;
  notices.say('left-out', [leftOut && words.leftOut(leftOut), known && words.alreadyHere(known)].filter(Boolean).join(' '));
  if (added.length > 0) show({ kind: 'images', names: added.map(({ name }) => name) });
  if (models.known) intake.add(models.chosen, added);
  draw();
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
  intake.cancel();
  progress.begin();
  field.value = '';
  close();
  show(null);
  notices.say('originals', '');
  await album.clear();
  draw();
}

/** The query, or its vector, is another. */
function found() {
  anew = true;
  const { query } = search;
  if (query?.kind === 'text' && query.found) {
    const { cut, unknownScript, milliseconds, id } = query.found;
    notices.say('text', unknownScript ? words.unknownScript : cut ? words.cut : '');
    facts.speed(words.took(milliseconds));
    show({ kind: 'text', text: query.text });
    if (id !== album.embeddingId) void album.use(id).then(reconsider).then(draw);
  } else {
    notices.say('text', '');
  }
  draw();
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

/** Puts the grid in order, once for all that changes in the same moment. */
function draw() {
  drawing ||= setTimeout(() => {
    drawing = 0;
    const { query, vector } = search;
    const rows = vector ? ranked(album.entries, vector) : album.entries.map((entry) => ({ entry, score: null }));
    gallery.show(rows, chosenEntry()?.id ?? null, anew);
    if (anew && vector && rows[0]) progress.say(words.told(rows.length, (rows[query?.kind === 'image' ? 1 : 0] ?? rows[0]).entry.name));
    anew = false;
    stage.show(album.count, query, sources.ofIndex);
  }, GATHERED);
}

/** @param {string} id */
function at(id) {
  return /** @type {HTMLElement} */ (document.getElementById(id));
}
