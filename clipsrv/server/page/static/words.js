/** What the page says, in English and Japanese. Knows nothing of when it is said. */

/** How many files of many a sentence names. */
const NAMED = 3;

export const ENGLISH = {
  language: 'en',
  model: 'Model',
  key: 'API key',
  useKey: 'Use this key',
  forgetKey: 'Forget it',
  search: 'Search your images by words',
  searchHint: 'Describe what you are looking for',
  searchOff: 'This model reads no text: click an image to find others like it',
  addImages: 'Add images',
  addFolder: 'Add a folder',
  clear: 'Remove all',
  clearQuestion: /** @param {number} n */ (n) => `Remove ${counted(n, 'image')} and all that is known of them from this browser?`,
  clearYes: 'Remove all',
  cancel: 'Keep them',
  dropHere: 'Drop images or a folder here',
  staysHere:
    'Then type what you are looking for, or click an image to find others like it. What you drop is sent to this server ' +
    'to be turned into vectors, and kept in this browser only.',
  drop: 'Drop to add',
  private: 'What you drop is kept in this browser; the server keeps none of it.',
  contract: 'The API',
  call: 'The same as a program',
  copy: 'Copy',
  copied: 'Copied',
  close: 'Close',
  remove: 'Remove this image',
  labels: 'Labels, by commas',
  labelsHint: 'a red heart, a star, a house',
  template: 'The sentence each stands in',
  score: 'Score the labels',
  images: /** @param {number} n */ (n) => counted(n, 'image'),
  allImages: 'All images',
  indexed: /** @param {number} n */ (n) => `${counted(n, 'image')} of the index`,
  theIndex: 'The index of the server',
  here: 'Dropped here',
  which: 'Which images',
  byText: /** @param {string} text */ (text) => `By likeness to “${text}”`,
  byImage: /** @param {string} name */ (name) => `By likeness to ${name}`,
  told: /** @param {number} n @param {string} name */ (n, name) => `${counted(n, 'image')} ranked; the first is ${name}.`,
  similarity: 'similarity',
  waiting: 'not embedded yet',
  embedding: /** @param {number} done @param {number} all @param {string} speed */ (done, all, speed) =>
    `${number(done)} of ${number(all)} embedded${speed ? `, ${speed}` : ''}`,
  embedded: /** @param {number} n @param {string} speed */ (n, speed) => `${counted(n, 'image')} embedded${speed ? `, ${speed}` : ''}.`,
  speed: /** @param {number} perSecond */ (perSecond) => `${number(perSecond)} images/s`,
  dimensions: /** @param {number} n */ (n) => `${n} dimensions`,
  took: /** @param {number} ms */ (ms) => `${number(ms)} ms`,
  failed: /** @param {number} n */ (n) => `${counted(n, 'file')} could not be embedded`,
  leftOut: /** @param {readonly string[]} paths */ (paths) => {
    const more = paths.length - NAMED;
    return `${counted(paths.length, 'file')} left out, no image by name or type: ${named(paths, ', ')}${more > 0 ? ` and ${number(more)} more` : ''}.`;
  },
  alreadyHere: /** @param {number} n */ (n) => `${counted(n, 'image')} already here.`,
  health: {
    healthy: 'ready',
    starting: 'loading the model',
    draining: 'stopping',
    unhealthy: 'not working',
    gone: 'not reachable',
  },
  gone: 'The server does not answer. The page goes on as soon as it does.',
  busy: /** @param {number} seconds */ (seconds) => `The server is busy; going on in ${counted(seconds, 'second')}.`,
  needsKey: 'This server wants an API key.',
  wrongKey: 'The server does not know this API key.',
  full: 'The browser has no more room: further images are kept until this page is closed.',
  noStorage: 'This browser keeps nothing for the page: images stay until it is closed.',
  noOriginal: 'The image itself is no longer here, only its small copy: drop it again for this.',
  withoutOriginals: /** @param {number} n */ (n) =>
    `${counted(n, 'image')} have no vector of this model, and the images themselves are no longer here: drop them again.`,
  cut: 'The text is longer than the model reads; its end was left out.',
  unknownScript: 'This model cannot read these letters; what is found means little.',
  softmax: 'Scores add up to 100 % over these labels.',
  sigmoid: 'Each label is scored by itself.',
  unreadLabels: /** @param {string} labels */ (labels) => `This model cannot read: ${labels}.`,
  /** @type {Record<string, string>} Errors by their code, where the server's own sentence is not enough. */
  errors: {
    not_an_image: 'This is no image.',
    unsupported_image_format: 'The server cannot read this format.',
    truncated_image: 'The file is cut off.',
    invalid_image: 'The file is damaged.',
    empty_image: 'The file is empty.',
    too_many_failures: 'Too many wrong keys; wait a second.',
    unreadable: 'The file can no longer be read.',
    not_sent: 'It could not be sent to the server.',
  },
  ask: /** @param {string} message */ (message) => `The server refused: ${message}`,
};

/** @type {typeof ENGLISH} */
export const JAPANESE = {
  language: 'ja',
  model: 'モデル',
  key: 'APIキー',
  useKey: 'このキーを使う',
  forgetKey: 'キーを消す',
  search: '言葉で画像を検索',
  searchHint: '探したいものを言葉で入力',
  searchOff: 'このモデルはテキストを読みません。画像をクリックすると似た画像を探せます',
  addImages: '画像を追加',
  addFolder: 'フォルダーを追加',
  clear: 'すべて削除',
  clearQuestion: (n) => `${number(n)}枚の画像とそのデータをこのブラウザーからすべて削除しますか？`,
  clearYes: 'すべて削除',
  cancel: 'キャンセル',
  dropHere: '画像やフォルダーをここにドロップ',
  staysHere:
    '言葉を入力するか画像をクリックすると、似ている順に並びます。ドロップした画像はベクトルにするためこのサーバーへ送られ、' +
    '保存先はこのブラウザーだけです。',
  drop: 'ドロップして追加',
  private: 'ドロップした画像の保存先はこのブラウザーだけです。サーバーには残りません。',
  contract: 'API',
  call: '同じことをプログラムから',
  copy: 'コピー',
  copied: 'コピーしました',
  close: '閉じる',
  remove: 'この画像を削除',
  labels: 'ラベル（カンマ区切り）',
  labelsHint: 'a red heart, a star, a house',
  template: 'ラベルを入れる文',
  score: 'スコアを計算',
  images: (n) => `画像${number(n)}枚`,
  allImages: 'すべての画像',
  indexed: (n) => `インデックスの画像${number(n)}枚`,
  theIndex: 'サーバーのインデックス',
  here: 'ドロップした画像',
  which: '対象の画像',
  byText: (text) => `「${text}」に似ている順`,
  byImage: (name) => `${name} に似ている順`,
  told: (n, name) => `${number(n)}枚を並べ替えました。先頭は ${name} です。`,
  similarity: '類似度',
  waiting: 'ベクトル未計算',
  embedding: (done, all, speed) => `${number(all)}枚中${number(done)}枚をベクトルにしました${speed ? `（${speed}）` : ''}`,
  embedded: (n, speed) => `${number(n)}枚をベクトルにしました${speed ? `（${speed}）` : ''}。`,
  speed: (perSecond) => `毎秒${number(perSecond)}枚`,
  dimensions: (n) => `${n}次元`,
  took: (ms) => `${number(ms)} ミリ秒`,
  failed: (n) => `${number(n)}件のファイルをベクトルにできませんでした`,
  leftOut: (paths) => {
    const more = paths.length - NAMED;
    return `画像ではない${number(paths.length)}件のファイルを除きました：${named(paths, '、')}${more > 0 ? `、ほか${number(more)}件` : ''}。`;
  },
  alreadyHere: (n) => `${number(n)}枚はすでにあります。`,
  health: {
    healthy: '準備完了',
    starting: 'モデルを読み込み中',
    draining: '停止中',
    unhealthy: '動作していません',
    gone: '接続できません',
  },
  gone: 'サーバーが応答しません。応答があり次第、続きを行います。',
  busy: (seconds) => `サーバーが混み合っています。${number(seconds)}秒後に続けます。`,
  needsKey: 'このサーバーにはAPIキーが必要です。',
  wrongKey: 'このAPIキーはサーバーに登録されていません。',
  full: 'ブラウザーの保存領域がいっぱいです。これ以降の画像はページを閉じるまで保持されます。',
  noStorage: 'このブラウザーには保存できません。画像はページを閉じるまで保持されます。',
  noOriginal: '元の画像はもうありません（縮小版だけです）。もう一度ドロップしてください。',
  withoutOriginals: (n) => `${number(n)}枚にはこのモデルのベクトルがなく、元の画像ももうありません。もう一度ドロップしてください。`,
  cut: 'テキストがモデルの上限より長いため、末尾は使われませんでした。',
  unknownScript: 'このモデルはこの文字を読めないため、結果にはあまり意味がありません。',
  softmax: 'スコアの合計はこれらのラベルで100 %になります。',
  sigmoid: 'スコアはラベルごとに独立しています。',
  unreadLabels: (labels) => `このモデルが読めないラベル：${labels}`,
  errors: {
    not_an_image: '画像ではありません。',
    unsupported_image_format: 'サーバーが対応していない形式です。',
    truncated_image: 'ファイルが途中で切れています。',
    invalid_image: 'ファイルが壊れています。',
    empty_image: 'ファイルが空です。',
    too_many_failures: '誤ったキーが多すぎます。1秒待ってください。',
    image_too_large: '画像が大きすぎます。',
    image_too_complex: '画像の構造が複雑すぎます。',
    aspect_ratio_too_large: '画像が細長すぎます。',
    unauthorized: '正しいAPIキーが必要です。',
    unreadable: 'ファイルを読み取れなくなりました。',
    not_sent: 'サーバーに送信できませんでした。',
  },
  ask: (message) => `サーバーに拒否されました：${message}`,
};

/** @typedef {typeof ENGLISH} Words */

/**
 * The words of the first language in the browser's list that there is.
 * @param {readonly string[]} languages
 * @returns {Words}
 */
export function wordsFor(languages) {
  const known = languages.map((language) => language.slice(0, 2).toLowerCase()).find((language) => language === 'ja' || language === 'en');
  return known === 'ja' ? JAPANESE : ENGLISH;
}

/**
 * Puts the words where the page's HTML names them.
 * @param {ParentNode} root
 * @param {Words} words
 */
export function sayAll(root, words) {
  /** @type {Record<string, unknown>} */
  const said = words;
  for (const element of root.querySelectorAll('[data-say], [data-say-label]')) {
    const { say, sayLabel } = /** @type {HTMLElement} */ (element).dataset;
    if (say !== undefined) element.textContent = String(said[say]);
    if (sayLabel !== undefined) element.setAttribute('aria-label', String(said[sayLabel]));
  }
}

/** @param {readonly string[]} paths @param {string} comma */
function named(paths, comma) {
  return paths.slice(0, NAMED).join(comma);
}

/** @param {number} value */
function number(value) {
  return value.toLocaleString('en', { maximumFractionDigits: value < 10 ? 1 : 0 });
}

/** @param {number} n @param {string} what */
function counted(n, what) {
  return `${number(n)} ${what}${n === 1 ? '' : 's'}`;
}
