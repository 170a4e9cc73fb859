// The studio's form: what it holds, what the model says where it is empty, tokens, and refusals.
import { send } from "./safelight.js";

const root = document.getElementById("studio");
export const form = document.getElementById("form");
const cards = JSON.parse(root.dataset.cards);
export const upscalers = JSON.parse(root.dataset.upscalers);
const COUNT_AFTER = 250; // milliseconds of rest before the tokens are counted
const SHAPES = ["shape-1", "shape-wide-1", "shape-tall-1", "shape-wide-2", "shape-tall-2", "shape-wide-3", "shape-tall-3"];

// The picture to begin with: init is "record" (the parent itself) or a name on the desk.
const begin = { init: "", mask: "", parent: "" };

const field = (name) => form.elements.namedItem(name);

/** Give the model that is chosen, with all that its card says. */
export function card() {
  return cards.find((each) => each.name === field("model").value) ?? cards[0];
}

/** Take a model that was just made, and choose it. */
export function choose(made) {
  if (!cards.some((each) => each.name === made.name)) {
    cards.push(made);
    field("model").append(new Option(made.name, made.name));
  }
  field("model").value = made.name;
  field("model").dispatchEvent(new Event("change", { bubbles: true }));
  refresh();
  keep();
}

const isIncognito = () => document.getElementById("incognito").checked;

/** Give what the form asks for, as the server takes it: fields that are empty are left out. */
export function read() {
  const fields = {};
  for (const [name, value] of new FormData(form)) {
    if (value !== "" && name !== "model" && name !== "style" && !(value instanceof File)) fields[name] = value;
  }
  const styles = [...form.querySelectorAll('input[name="style"]:checked')].map((each) => each.value);
  return { model: field("model").value, fields, styles, incognito: isIncognito(), ...begin };
}

/** Fill the form: {fields, model, init, mask, parent, note}. */
export function fill(filled) {
  const fields = filled.fields ?? {};
  if (filled.model) field("model").value = filled.model;
  for (const element of form.elements) {
    if (!element.name || element.name === "model") continue;
    if (element.type === "checkbox" && element.name === "style") {
      element.checked = (filled.styles ?? []).includes(element.value);
    } else if (element.type === "checkbox" || element.type === "radio") {
      element.checked = element.value === String(fields[element.name] ?? "");
    } else {
      element.value = shortened(element.name, fields[element.name]);
    }
  }
  setBegin(filled.init ?? "", filled.mask ?? "", filled.parent ?? "");
  const isEnlarged = filled.way === "upscale" && upscalers.length > 0;
  document.getElementById("form-note").hidden = !filled.note && !isEnlarged;
  document.getElementById("form-note-text").textContent = filled.note ?? "";
  offerUpscalers(isEnlarged ? filled.from : "");
  refuse(null);
  refresh();
  openIfUsed();
}

/** Enlarge a sealed picture as it is, with an upscaler of the shelf. */
export async function enlarge(record, upscaler) {
  const body = JSON.stringify({ record, upscaler, incognito: isIncognito() });
  const answer = await send("/studio/upscale", body, { "Content-Type": "application/json" });
  refuse(answer.ok ? null : { ...(await told_(answer)), field: "" });
}

function offerUpscalers(record) {
  const buttons = (record ? upscalers : []).map((name) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "small";
    button.textContent = `Enlarge with ${name}`;
    button.addEventListener("click", () => enlarge(record, name));
    return button;
  });
  document.getElementById("enlarge").replaceChildren(...buttons);
}

/** Put one value into the form, as if it was typed. */
export function put(name, value) {
  field(name).value = value;
  refresh();
}

/** Set the picture to begin with, and what is painted anew of it. */
export function setBegin(init, mask = "", parent = "") {
  Object.assign(begin, { init, mask, parent });
  const shown = document.getElementById("begin-shown");
  const picture = document.getElementById("begin-init");
  const area = document.getElementById("begin-mask");
  shown.hidden = document.getElementById("begin-settings").hidden = !init;
  document.getElementById("init-none").hidden = !init;
  if (init) picture.src = beginSource();
  else picture.removeAttribute("src");
  area.hidden = !mask;
  if (mask) area.src = `/studio/picture/${mask}`;
  else area.removeAttribute("src");
  // Without a size of its own the result has the picture's proportion and the model's area.
  document.getElementById("sizes").disabled = Boolean(init) && !field("width").value;
  keep();
}

/** Give the address of the picture to begin with, or nothing. */
export function beginSource() {
  if (!begin.init) return "";
  return begin.init === "record" ? `/events/picture/${begin.parent}` : `/studio/picture/${begin.init}`;
}

export function beginMask() {
  return begin.mask ? `/studio/picture/${begin.mask}` : "";
}

export function beginParent() {
  return begin.parent;
}

/** Lay a picture down to draw from; gives {name, width, height}, or null where it is refused. */
export async function layDown(blob) {
  const answer = await send("/studio/picture", blob, { "Content-Type": "application/octet-stream" });
  const told = await told_(answer);
  if (answer.ok) return told;
  refuse({ field: "init", ...told });
  return null;
}

/** Say why the form was refused, beside the field that it is about; null: it was not. */
export function refuse(why) {
  for (const each of form.querySelectorAll(".ask-error")) each.textContent = "";
  for (const each of form.querySelectorAll("[aria-invalid]")) each.removeAttribute("aria-invalid");
  document.getElementById("form-error").textContent = "";
  if (!why) return;
  const text = why.hint ? `${why.message}. ${why.hint[0].toUpperCase()}${why.hint.slice(1)}.` : `${why.message}.`;
  const place = why.field && document.getElementById(`e-${why.field}`);
  if (!place) {
    document.getElementById("form-error").textContent = text;
    return;
  }
  place.textContent = text;
  place.closest("details")?.setAttribute("open", "");
  const input = field(why.field);
  if (input?.setAttribute) {
    input.setAttribute("aria-invalid", "true");
    input.focus({ preventScroll: true });
  }
  place.scrollIntoView({ block: "center" });
}

/** Read an answer that may be JSON, or a sentence. */
export async function told_(answer) {
  const text = await answer.text();
  try {
    return JSON.parse(text);
  } catch {
    return { message: text.replace(/\.$/, "") || "that did not work" };
  }
}

function shortened(name, value) {
  if (value === undefined || value === null) return "";
  return typeof value === "number" && !Number.isInteger(value) ? String(Number(value.toFixed(4))) : String(value);
}

function openIfUsed() {
  const more = document.getElementById("more");
  const usual = { hires_scale: "1", variation_strength: "0", guidance_start: "0", guidance_end: "1", clip_skip: "1", batch_size: "1" };
  more.open = Object.entries(usual).some(([name, value]) => ![value, ""].includes(field(name).value)) || Boolean(field("upscaler")?.value);
}

/** Show what the chosen model says where the form is empty. */
function refresh() {
  const chosen = card();
  if (!chosen) return;
  const slower = form.querySelector('input[name="preset"]:checked')?.value;
  const usual = { steps: chosen.steps, guidance_scale: chosen.guidance };
  for (const name of ["steps", "guidance_scale"]) {
    field(name).placeholder = slower && name === "steps" ? "auto" : usual[name];
  }
  for (const name of ["sampler", "schedule"]) {
    field(name).querySelector("[data-usual]").textContent = slower && name === "sampler" ? "auto" : chosen[name];
  }
  const [width, height] = chosen.sizes[0];
  field("width").placeholder = begin.init ? "as the picture" : width;
  field("height").placeholder = begin.init ? "as the picture" : height;
  const parts = [];
  if (chosen.loras.length) parts.push(`LoRA: ${chosen.loras.map(([name, scale]) => `${name} × ${scale}`).join(", ")}`);
  if (chosen.paints_only) parts.push("Paints into a picture, under a mask");
  document.getElementById("model-note").textContent = parts.join(" · ");
  for (const slider of form.querySelectorAll("input[type=range][data-for]")) {
    const input = document.getElementById(slider.dataset.for);
    slider.value = input.value || input.placeholder || slider.min;
  }
  showSizes(chosen);
}

function showSizes(chosen) {
  const place = document.getElementById("size-chips");
  const now = `${field("width").value || field("width").placeholder}x${field("height").value || field("height").placeholder}`;
  place.replaceChildren(
    ...chosen.sizes.slice(0, SHAPES.length).map(([width, height], index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.title = button.ariaLabel = `${width} × ${height}`;
      button.setAttribute("aria-pressed", String(now === `${width}x${height}`));
      const shape = document.createElement("span");
      shape.className = `shape ${SHAPES[index]}`;
      button.append(shape);
      button.addEventListener("click", () => {
        field("width").value = index ? width : "";
        field("height").value = index ? height : "";
        refresh();
        keep();
      });
      return button;
    }),
  );
}

let counting = 0;
const counter = { path: "/studio/tokens", headers: { "Content-Type": "application/json" } };
/** Count the tokens after a while of rest; the server keeps the form, so that coming back finds it. */
export function keep() {
  clearTimeout(counting);
  counting = setTimeout(async () => {
    counting = 0;
    const answer = await send(counter.path, JSON.stringify(read()), counter.headers);
    if (!answer.ok || !form.isConnected) return; // the page may have gone dark meanwhile
    const counted = await answer.json();
    meter("prompt-tokens", counted.prompt);
    meter("negative-tokens", counted.negative_prompt);
  }, COUNT_AFTER);
}

// Leaving within that while must not lose what was typed last.
addEventListener("pagehide", () => {
  if (!counting) return;
  const csrf = document.querySelector('meta[name="safelight-csrf"]').content;
  const headers = { ...counter.headers, "X-Safelight-CSRF": csrf };
  fetch(counter.path, { method: "POST", keepalive: true, headers, body: JSON.stringify(read()) });
});

function meter(id, { tokens, room, chunks }) {
  const place = document.getElementById(id);
  place.textContent = tokens ? `${tokens} of ${room * chunks} tokens${chunks > 1 ? `, ${chunks} chunks` : ""}` : "";
  place.toggleAttribute("data-over", chunks > 1);
}

/** Weigh what is selected in a prompt, or the word under the cursor: (word:1.1). */
function weigh(area, by) {
  let { selectionStart: start, selectionEnd: end } = area;
  const text = area.value;
  if (start === end) {
    while (start > 0 && /[^\s,()]/.test(text[start - 1])) start -= 1;
    while (end < text.length && /[^\s,()]/.test(text[end])) end += 1;
  }
  const inner = text.slice(start, end);
  if (!inner.trim()) return;
  const around = /^\((.*):(\d+(?:\.\d+)?)\)$/s.exec(inner);
  const behind = /^:(\d+(?:\.\d+)?)\)/.exec(text.slice(end));
  let words = inner;
  let weight = 1;
  if (around) [, words, weight] = around;
  else if (behind && text[start - 1] === "(") {
    weight = behind[1];
    start -= 1;
    end += behind[0].length;
  }
  weight = Math.max(0, Math.round((Number(weight) + by) * 100) / 100);
  const written = weight === 1 ? words : `(${words}:${weight})`;
  area.setRangeText(written, start, end, "select");
  area.dispatchEvent(new Event("input", { bubbles: true }));
}

for (const name of ["prompt", "negative_prompt"]) {
  field(name).addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey) || !["ArrowUp", "ArrowDown"].includes(event.key)) return;
    event.preventDefault();
    weigh(event.target, event.key === "ArrowUp" ? 0.1 : -0.1);
  });
}

form.addEventListener("input", (event) => {
  const slider = event.target.closest("input[type=range][data-for]");
  if (slider) document.getElementById(slider.dataset.for).value = slider.value;
  refresh();
  keep();
});

for (const button of form.querySelectorAll(".stepper button")) {
  button.addEventListener("click", () => {
    const input = document.getElementById(button.dataset.for);
    input.value = Math.max(1, (Number(input.value) || 1) + Number(button.dataset.by));
    keep();
  });
}

document.getElementById("swap").addEventListener("click", () => {
  const [width, height] = card().sizes[0];
  const now = [field("width").value || width, field("height").value || height];
  [field("height").value, field("width").value] = now;
  refresh();
  keep();
});

document.getElementById("seed-random").addEventListener("click", () => put("seed", ""));

async function beginWith(file) {
  const laid = file && (await layDown(file));
  if (laid) setBegin(laid.name);
  refresh();
}

document.getElementById("init-file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  event.target.value = "";
  beginWith(file);
});

// A picture may also be dropped on the page, or pasted.
const pictureOf = (transfer) => [...(transfer?.files ?? [])].find((file) => file.type.startsWith("image/"));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  beginWith(pictureOf(event.dataTransfer));
});
addEventListener("paste", (event) => {
  const file = pictureOf(event.clipboardData);
  if (!file) return;
  event.preventDefault();
  beginWith(file);
});

document.getElementById("init-none").addEventListener("click", () => {
  setBegin("");
  refresh();
});

function isTouched(element) {
  if (!element.name) return false;
  if (element.type === "checkbox" || element.type === "radio") return element.checked !== element.defaultChecked;
  if (element.options) return [...element.options].some((each) => each.defaultSelected && !each.selected);
  return element.value !== element.defaultValue;
}

// A hand may have been faster than this script: what it typed stays.
const touched = [...form.elements].filter(isTouched).map((each) => [each, each.value, each.checked]);
const filled = JSON.parse(root.dataset.filled);
fill(filled.model ? filled : { ...filled, model: root.dataset.usual });
for (const [element, value, checked] of touched) Object.assign(element, { value, checked });
if (touched.length) refresh(), keep();
