// Paint on a picture in the page: what is drawn anew (the mask), and colour on the picture itself.
const dialog = document.getElementById("paint");
const picture = document.getElementById("paint-picture");
const mask = document.getElementById("paint-mask");
const size = document.getElementById("brush-size");
const colour = document.getElementById("brush-colour");
const ring = document.getElementById("brush-ring");
const ringText = document.getElementById("brush-text");
const SHOWN = [30, 200, 255, 255]; // how painted areas look; pictures seldom have this colour
const MASK = `rgb(${SHOWN.slice(0, 3)})`;
const UNDOS = 12;
const MAX_SIDE = 2048; // pixels of a canvas: a larger picture is brought to it first

const onPicture = picture.getContext("2d", { willReadFrequently: true });
const onMask = mask.getContext("2d", { willReadFrequently: true });
let undos = [];
let coloured = false;
let last = null; // of the pointer, while it is down
let at = [0, 0]; // where the keyboard's ring is, in pixels of the picture
let isDown = false; // the ring paints where it goes
let finish = () => {};

/** Paint on the picture at `source`, or on a blank one of this size; gives
 * {picture: Blob or null where it was left as it is, mask: Blob or null}, or null when cancelled. */
export async function paint(source, width, height, maskSource = "") {
  const image = source ? await loaded(source) : null;
  const sides = image ? [image.naturalWidth, image.naturalHeight] : [width, height];
  const scale = Math.min(1, MAX_SIDE / Math.max(...sides));
  for (const each of [picture, mask]) [each.width, each.height] = sides.map((side) => Math.max(8, Math.round(side * scale)));
  onPicture.fillStyle = "#808080";
  onPicture.fillRect(0, 0, picture.width, picture.height);
  if (image) onPicture.drawImage(image, 0, 0, picture.width, picture.height);
  if (maskSource) await showMask(maskSource);
  undos = [];
  coloured = !image || scale < 1;
  brush(image ? "mask" : "colour");
  size.value = String(Math.round(Math.max(...sides) * scale * 0.08));
  size.max = String(Math.round(Math.max(...sides) * scale * 0.4));
  at = [mask.width / 2, mask.height / 2];
  dialog.showModal();
  mask.focus();
  return new Promise((resolve) => {
    finish = resolve;
  });
}

async function loaded(source) {
  const image = new Image();
  image.src = source;
  await image.decode();
  return image;
}

/** Show a black and white mask as painted areas. */
async function showMask(source) {
  onMask.drawImage(await loaded(source), 0, 0, mask.width, mask.height);
  const pixels = onMask.getImageData(0, 0, mask.width, mask.height);
  for (let at = 0; at < pixels.data.length; at += 4) {
    const painted = pixels.data[at] >= 128;
    pixels.data.set(painted ? SHOWN : [0, 0, 0, 0], at);
  }
  onMask.putImageData(pixels, 0, 0);
}

function brush(name) {
  if (name) dialog.querySelector(`input[name="brush"][value="${name}"]`).checked = true;
  return dialog.querySelector('input[name="brush"]:checked').value;
}

/** How the picture is fitted into its box, with margins: a pixel's size, and its corner there. */
function fitted() {
  const box = mask.getBoundingClientRect();
  const scale = Math.min(box.width / mask.width, box.height / mask.height);
  return { box, scale, left: (box.width - mask.width * scale) / 2, top: (box.height - mask.height * scale) / 2 };
}

/** Where the pointer is, in pixels of the picture. */
function place(event) {
  const { box, scale, left, top } = fitted();
  return [(event.clientX - box.left - left) / scale, (event.clientY - box.top - top) / scale];
}

function stroke(from, to) {
  const kind = brush();
  const onto = kind === "colour" ? [onPicture] : [onMask];
  for (const context of onto) {
    context.globalCompositeOperation = kind === "erase" ? "destination-out" : "source-over";
    context.strokeStyle = kind === "colour" ? colour.value : MASK;
    context.lineWidth = Number(size.value);
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    context.moveTo(...from);
    context.lineTo(to[0] + 0.01, to[1]);
    context.stroke();
    context.globalCompositeOperation = "source-over";
  }
  coloured ||= kind === "colour";
}

function remember() {
  const kept = [onPicture, onMask].map((context) => context.getImageData(0, 0, mask.width, mask.height));
  undos.push([...kept, coloured]);
  if (undos.length > UNDOS) undos.shift();
}

function undo() {
  const before = undos.pop();
  if (!before) return;
  onPicture.putImageData(before[0], 0, 0);
  onMask.putImageData(before[1], 0, 0);
  coloured = before[2];
}

// ---- by the keyboard: arrows move a ring, Space paints with it ----

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const FAR = 4; // times as far with Shift
const GROW = 1.25; // times as large with ]

function showRing() {
  const { scale, left, top } = fitted();
  const wide = Number(size.value) * scale;
  ring.hidden = false;
  ring.classList.toggle("down", isDown);
  Object.assign(ring.style, {
    width: `${wide}px`, height: `${wide}px`,
    left: `${left + at[0] * scale - wide / 2}px`, top: `${top + at[1] * scale - wide / 2}px`,
  });
  const share = (value, whole) => Math.round((100 * value) / whole);
  ringText.textContent = `${isDown ? "Painting" : "Not painting"}, ${share(at[0], mask.width)} % from the left,`
    + ` ${share(at[1], mask.height)} % from the top`;
}

function lift() {
  isDown = false;
  ring.hidden = true;
  ringText.textContent = "";
}

function move([x, y], isFar) {
  const step = Math.max(1, Number(size.value) / 4) * (isFar ? FAR : 1);
  const next = [at[0] + x * step, at[1] + y * step].map((value, axis) => (
    Math.max(0, Math.min(value, axis ? mask.height : mask.width))
  ));
  if (isDown) stroke(at, next);
  at = next;
}

mask.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { key } = event;
  if (key in ARROWS) move(ARROWS[key], event.shiftKey);
  else if (key === "[" || key === "]") size.value = String(Number(size.value) * (key === "]" ? GROW : 1 / GROW));
  else if (key === " " && !event.repeat) {
    isDown = !isDown;
    if (isDown) remember(), stroke(at, at);
  } else if (key !== " ") return;
  event.preventDefault();
  showRing();
});
mask.addEventListener("blur", lift);

// ---- by the pointer ----

mask.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  lift();
  mask.setPointerCapture(event.pointerId);
  remember();
  last = place(event);
  stroke(last, last);
});
mask.addEventListener("pointermove", (event) => {
  if (!last) return;
  for (const each of event.getCoalescedEvents?.() ?? [event]) {
    const now = place(each);
    stroke(last, now);
    last = now;
  }
});
for (const name of ["pointerup", "pointercancel"]) {
  mask.addEventListener(name, () => {
    last = null;
  });
}

dialog.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key === "z") {
    event.preventDefault();
    undo();
  }
});
document.getElementById("paint-undo").addEventListener("click", undo);
document.getElementById("paint-clear").addEventListener("click", () => {
  remember();
  onMask.clearRect(0, 0, mask.width, mask.height);
});
document.getElementById("paint-invert").addEventListener("click", () => {
  remember();
  const pixels = onMask.getImageData(0, 0, mask.width, mask.height);
  for (let at = 0; at < pixels.data.length; at += 4) {
    pixels.data.set(pixels.data[at + 3] >= 128 ? [0, 0, 0, 0] : SHOWN, at);
  }
  onMask.putImageData(pixels, 0, 0);
});

/** Give the mask as a black and white picture, or null where nothing is painted. */
async function maskBlob() {
  const pixels = onMask.getImageData(0, 0, mask.width, mask.height);
  let painted = false;
  for (let at = 0; at < pixels.data.length; at += 4) {
    const value = pixels.data[at + 3] >= 128 ? 255 : 0;
    painted ||= value > 0;
    pixels.data.set([value, value, value, 255], at);
  }
  if (!painted) return null;
  const plain = document.createElement("canvas");
  [plain.width, plain.height] = [mask.width, mask.height];
  plain.getContext("2d").putImageData(pixels, 0, 0);
  return png(plain);
}

function png(canvas) {
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

function end(result) {
  undos = [];
  dialog.close();
  for (const each of [picture, mask]) each.width = each.height = 1;
  finish(result);
  finish = () => {};
}

document.getElementById("paint-done").addEventListener("click", async () => {
  end({ picture: coloured ? await png(picture) : null, mask: await maskBlob() });
});
document.getElementById("paint-cancel").addEventListener("click", () => end(null));
dialog.addEventListener("cancel", (event) => {
  event.preventDefault();
  end(null);
});
