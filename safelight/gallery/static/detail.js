// One picture: its stage, its labels, and the way to the ones before and after it.
import { label, named, suggest } from "./actions.js";
import { bind } from "./keys.js";
import { goDark, notice } from "./safelight.js";
import { Stage } from "./stage.js";

const PAN = 80; // pixels a key
const DOUBLE = 650; // milliseconds: a second Esc within them locks instead
const main = document.getElementById("main");
let stage = null;
let walking = false;

const at = () => document.getElementById("look").dataset;
const ids = () => [at().id];
const again = (undone) => undone && show(at().id);

function enter() {
  const output = document.getElementById("scale");
  stage = new Stage(document.getElementById("stage"), document.getElementById("picture"), (text) => {
    output.textContent = text;
  });
  document.getElementById("smaller").addEventListener("click", () => stage.by(0.8));
  document.getElementById("larger").addEventListener("click", () => stage.by(1.25));
  document.getElementById("fit").addEventListener("click", () => stage.toggle());
  for (const name of ["before", "after"]) {
    document.getElementById(name)?.addEventListener("click", (event) => {
      event.preventDefault();
      walk(name);
    });
  }
  document.getElementById("favourite").addEventListener("click", favourite);
  document.getElementById("stars").addEventListener("change", (event) => rate(event.target.value));
  document.getElementById("trash")?.addEventListener("click", trash);
  document.getElementById("restore")?.addEventListener("click", async () => {
    if (await label("restore", ids(), "", again)) show(at().id);
  });
  const note = document.getElementById("note");
  note.addEventListener("change", () => label("note", ids(), note.value, again));
  for (const section of document.querySelectorAll(".names")) names(section);
  // The next picture is opened before it is asked for.
  if (at().after) new Image().src = `/picture/${at().after}`;
}

function names(section) {
  const kind = section.dataset.kind;
  const field = section.querySelector("input");
  field.addEventListener("focus", () => suggest(kind, section.querySelector("datalist")).catch(() => {}), { once: true });
  section.querySelector("form").addEventListener("submit", async (event) => {
    event.preventDefault();
    if (field.value.trim() && (await label(kind, ids(), named(field.value), again))) await show(at().id, `[data-kind="${kind}"] input`);
  });
  for (const button of section.querySelectorAll(".remove")) {
    button.addEventListener("click", async () => {
      if (await label(`un${kind}`, ids(), button.dataset.value, again)) await show(at().id, `[data-kind="${kind}"] input`);
    });
  }
}

/** Put another picture, or this one anew, in the place of what is shown. */
async function show(id, focus = "") {
  const answer = await fetch(`/detail/${id}`, { headers: { "HX-Request": "true" } });
  if (answer.status === 401) return goDark();
  if (!answer.ok) return notice(await answer.text());
  const scrolled = document.querySelector(".about")?.scrollTop ?? 0;
  const same = at().id === id;
  const zoom = same && stage ? { zoom: stage.zoom, x: stage.x, y: stage.y } : null;
  main.innerHTML = await answer.text(); // our own template, every value escaped
  history.replaceState(null, "", `/detail/${id}`);
  enter();
  if (zoom) Object.assign(stage, zoom), stage.place();
  if (same) document.querySelector(".about").scrollTop = scrolled;
  if (focus) document.querySelector(focus)?.focus();
  else main.focus({ preventScroll: true });
}

async function walk(way) {
  const id = at()[way];
  if (!id) return notice(way === "after" ? "This is the last one." : "This is the first one.");
  if (walking) return;
  walking = true;
  try {
    await show(id);
  } finally {
    walking = false;
  }
}

async function favourite() {
  const button = document.getElementById("favourite");
  const on = button.getAttribute("aria-pressed") !== "true";
  if (await label("favourite", ids(), on ? "1" : "0", again)) button.setAttribute("aria-pressed", String(on));
}

async function rate(stars) {
  if (await label("rating", ids(), stars, again)) {
    for (const each of document.querySelectorAll("#stars input")) each.checked = each.value === String(stars);
  }
}

function rateByKey(event) {
  const checked = document.querySelector("#stars input:checked")?.value;
  rate(checked === event.key ? "0" : event.key);
}

async function trash() {
  if (!document.getElementById("trash")) return;
  const { after, before, id } = at();
  if (!(await label("trash", ids(), "", (undone) => undone && show(id)))) return;
  if (after || before) await show(after || before);
  else location.href = "/";
}

const follow = (id) => document.getElementById(id)?.click();
const back = () => { location.href = "/"; };

function arrow(event) {
  const moves = { ArrowLeft: [PAN, 0], ArrowRight: [-PAN, 0], ArrowUp: [0, PAN], ArrowDown: [0, -PAN] };
  if (!stage.isFitting) stage.pan(...moves[event.key]);
  else if (event.key === "ArrowLeft") walk("before");
  else if (event.key === "ArrowRight") walk("after");
}

bind(["j"], "Next picture", () => walk("after"));
bind(["k"], "Previous picture", () => walk("before"));
bind(["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"], "Previous, next; moves a zoomed picture", arrow);
bind(["+", "="], "Larger", () => stage.by(1.25));
bind(["-"], "Smaller", () => stage.by(0.8));
bind(["z"], "Fit, or one pixel to one", () => stage.toggle());
bind(["f"], "Favourite", favourite);
bind(["1", "2", "3", "4", "5"], "Rate; the same again: no rating", rateByKey);
bind(["0"], "No rating", () => rate("0"));
bind(["t"], "Tag", () => document.querySelector('[data-kind="tag"] input').focus());
bind(["l"], "Album", () => document.querySelector('[data-kind="album"] input').focus());
bind(["n"], "Note", () => document.getElementById("note").focus());
bind(["c"], "Compare with what it was made of", () => follow("compare"));
bind(["e"], "Share", () => follow("share"));
bind(["a"], "Again, with a new seed", () => follow("again"));
bind(["s"], "All that it had into the studio, with its seed", () => follow("same"));
bind(["r"], "Remix: begin with it", () => follow("remix"));
bind(["v"], "Variations", () => follow("variations"));
bind(["u"], "Upscale", () => follow("upscale"));
bind(["Delete"], "Move to the trash", trash);
bind(["g", "Enter"], "Back to the grid", back);
bind(["/"], "Search", back);

// One Esc leaves a field, or goes back once it is sure that no second one locks.
let escaping = 0;
document.addEventListener("keydown", (event) => {
  clearTimeout(escaping);
  if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
  const typing = document.activeElement?.closest("input:not([type=radio]), textarea");
  if (typing) return typing.blur();
  escaping = setTimeout(back, DOUBLE);
});
enter();
