/** Makes small copies of images, one or two at a time, beside the page. */

/** Pixels of the longer side: sharp on a screen of two pixels to one. */
const SIDE = 320;
/** Each is held whole while it is made small. */
const AT_ONCE = 2;

/** @type {{number: number, file: Blob}[]} */
const waiting = [];
let making = 0;

addEventListener('message', ({ data }) => {
  waiting.push(data);
  if (making < AT_ONCE) void work();
});

async function work() {
  making++;
  for (let next = waiting.shift(); next; next = waiting.shift()) {
    postMessage({ number: next.number, made: await small(next.file).catch(() => null) });
  }
  making--;
}

/** @param {Blob} file */
async function small(file) {
  const whole = await createImageBitmap(file);
  const scale = Math.min(1, SIDE / Math.max(whole.width, whole.height));
  const canvas = new OffscreenCanvas(Math.max(1, Math.round(whole.width * scale)), Math.max(1, Math.round(whole.height * scale)));
  const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext('2d'));
  context.imageSmoothingQuality = 'high';
  context.drawImage(whole, 0, 0, canvas.width, canvas.height);
  whole.close();
  return canvas.convertToBlob({ type: 'image/webp', quality: 0.8 });
}
