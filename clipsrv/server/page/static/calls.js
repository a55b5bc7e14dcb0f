/** What was just done, as a program would ask for it: in curl, Python and TypeScript. Text only; knows nothing of the page. */

/**
 * @typedef {{kind: 'text', text: string, index?: true} | {kind: 'image', name: string, index?: true} | {kind: 'images', names: string[]}
 *   | {kind: 'labels', name: string, labels: string[], template: string}} Deed
 * (`index`: the server's index was searched)
 * @typedef {{base: URL, key: boolean, model: string | null}} Place the server; whether it wants a key; a model that is not its first
 */

export const LANGUAGES = /** @type {const} */ (['curl', 'python', 'typescript']);
/** @typedef {typeof LANGUAGES[number]} Language */

/** Names of images shown of many. */
const SHOWN = 3;

const ENDPOINTS = { text: 'embed/text', image: 'embed', images: 'embed/batch', labels: 'classify' };

/** @param {Deed} deed */
function ofIndex(deed) {
  return 'index' in deed && deed.index === true;
}

/**
 * @param {Deed} deed
 * @param {Place} place
 * @returns {Record<Language, string>}
 */
export function callsOf(deed, place) {
  const shown = deed.kind === 'images' ? { ...deed, names: deed.names.slice(0, SHOWN) } : deed;
  return { curl: curl(shown, place), python: python(shown, place), typescript: typescript(shown, place) };
}

/**
 * @param {Deed} deed
 * @param {Place} place
 */
function address(deed, { base, model }) {
  const url = new URL(ofIndex(deed) ? 'search?limit=10' : ENDPOINTS[deed.kind], base);
  if (deed.kind === 'images') url.searchParams.set('on_error', 'null');
  if (model !== null && deed.kind !== 'text' && !ofIndex(deed)) url.searchParams.set('model', model);
  return url.href;
}

/**
 * @param {{kind: 'text', text: string, index?: true}} deed
 * @param {Place} place
 */
function asked({ text, index }, { model }) {
  return model === null || index ? { text } : { text, model };
}

/**
 * @param {Deed} deed
 * @param {Place} place
 */
function curl(deed, place) {
  const parts = [`curl ${shell(address(deed, place))}`];
  if (place.key) parts.push('-H "Authorization: Bearer $API_KEY"');
  if (deed.kind === 'text') parts.push("-H 'Content-Type: application/json'", `--data-raw ${shell(JSON.stringify(asked(deed, place)))}`);
  if (deed.kind === 'images') for (const name of deed.names) parts.push(`-F ${shell(`images=@${curlName(name)}`)}`);
  if (deed.kind === 'image' || deed.kind === 'labels') parts.push(`-F ${shell(`image=@${curlName(deed.name)}`)}`);
  if (deed.kind === 'labels') {
    for (const label of deed.labels) parts.push(`--form-string ${shell(`labels=${label}`)}`);
    parts.push(`--form-string ${shell(`template=${deed.template}`)}`);
  }
  return parts.join(' \\\n  ');
}

/** @param {string} name a file's, as curl's -F reads it: it takes ; and , for its own unless they are in quotes */
function curlName(name) {
  return /[;,"\\ ]/.test(name) ? `"${name.replace(/["\\]/g, '\\$&')}"` : name;
}

/** @param {string} text as one word of a POSIX shell */
function shell(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/**
 * JSON is a literal of Python too.
 * @param {Deed} deed
 * @param {Place} place
 */
function python(deed, place) {
  const url = JSON.stringify(address(deed, place));
  const headers = place.key ? ', headers=headers' : '';
  const lines = place.key
    ? ['import os', '', 'import requests', '', 'headers = {"Authorization": f"Bearer {os.environ[\'API_KEY\']}"}']
    : ['import requests', ''];
  switch (deed.kind) {
    case 'text':
      lines.push(`answer = requests.post(${url}, json=${JSON.stringify(asked(deed, place))}${headers}, timeout=60)`);
      break;
    case 'image':
      lines.push(`with open(${JSON.stringify(deed.name)}, "rb") as image:`);
      lines.push(`    answer = requests.post(${url}, files={"image": image}${headers}, timeout=60)`);
      break;
    case 'images':
      lines.push(`names = ${JSON.stringify(deed.names)}`, 'files = [("images", open(name, "rb")) for name in names]');
      lines.push(`answer = requests.post(${url}, files=files${headers}, timeout=60)`);
      break;
    case 'labels': {
      const data = JSON.stringify({ labels: deed.labels, template: deed.template });
      lines.push(`with open(${JSON.stringify(deed.name)}, "rb") as image:`);
      lines.push(`    answer = requests.post(${url}, files={"image": image}, data=${data}${headers}, timeout=60)`);
    }
  }
  return [...lines, 'answer.raise_for_status()', `print(answer.json()["${field(deed)}"])`].join('\n');
}

/**
 * For Node 20 and newer.
 * @param {Deed} deed
 * @param {Place} place
 */
function typescript(deed, place) {
  const lines = [];
  const options = ["method: 'POST'"];
  const headers = place.key ? ['Authorization: `Bearer ${process.env.API_KEY}`'] : [];
  if (deed.kind === 'text') {
    headers.push("'Content-Type': 'application/json'");
    options.push(`body: JSON.stringify(${JSON.stringify(asked(deed, place))})`);
  } else {
    lines.push("import { openAsBlob } from 'node:fs';", '', 'const form = new FormData();');
    const name = deed.kind === 'images' ? 'images' : 'image';
    for (const file of (deed.kind === 'images' ? deed.names : [deed.name]).map((one) => JSON.stringify(one))) {
      lines.push(`form.append('${name}', await openAsBlob(${file}), ${file});`);
    }
    if (deed.kind === 'labels') {
      lines.push(`for (const label of ${JSON.stringify(deed.labels)}) form.append('labels', label);`);
      lines.push(`form.append('template', ${JSON.stringify(deed.template)});`);
    }
    options.push('body: form');
  }
  if (headers.length > 0) options.push(`headers: { ${headers.join(', ')} }`);
  lines.push(`const response = await fetch(${JSON.stringify(address(deed, place))}, { ${options.join(', ')} });`);
  lines.push('if (!response.ok) throw new Error(await response.text());');
  lines.push(`const { ${field(deed)} } = await response.json();`, `console.log(${field(deed)});`);
  return lines.join('\n');
}

/** @param {Deed} deed @returns {string} where the answer has what was asked for */
function field(deed) {
  return ofIndex(deed) ? 'results' : { text: 'embedding', image: 'embedding', images: 'embeddings', labels: 'labels' }[deed.kind];
}
