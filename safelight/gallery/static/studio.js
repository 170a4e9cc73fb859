// The studio: the form asks, the stage shows, and pictures lead on to others.
import { bind } from "./keys.js";
import { ask, send } from "./safelight.js";
import * as asked from "./studio-form.js";
import "./studio-kit.js";
import "./studio-lora.js";
import { paint } from "./studio-paint.js";
import * as stage from "./studio-stage.js";

const ways = document.getElementById("ways");
const json = { "Content-Type": "application/json" };

async function submit() {
  const answer = await send("/studio/submit", JSON.stringify(asked.read()), json);
  const told = await asked.told_(answer);
  asked.refuse(answer.ok ? null : told);
  return answer.ok;
}

asked.form.addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || document.querySelector("dialog[open]")) return;
  event.preventDefault();
  submit();
});

/** Give the id of the picture that is shown where it is sealed. */
function sealedPicture() {
  const id = stage.currentPicture();
  return stage.isUnsealed(id) ? "" : id;
}

/** Go on from the picture that is shown. */
async function goOn(way) {
  const id = sealedPicture();
  if (!id) return;
  asked.fill(await ask(`/studio/from/${id}/${way}`));
  if (way === "again" || way === "variations") await submit();
  else document.getElementById("f-prompt").focus();
}

for (const button of ways.querySelectorAll("[data-way]")) {
  button.addEventListener("click", () => goOn(button.dataset.way));
}

stage.whenShown((id) => {
  const isUnsealed = stage.isUnsealed(id);
  const isSealed = Boolean(id) && !isUnsealed;
  ways.hidden = !isSealed;
  document.getElementById("ways-unsealed").hidden = !isUnsealed;
  document.getElementById("seed-last").disabled = document.getElementById("init-shown").disabled = !isSealed;
  if (isSealed) document.getElementById("open").href = `/detail/${id}`;
  if (isUnsealed) document.getElementById("save-unsealed").href = `/events/picture/${id}`;
});
document.getElementById("keep-unsealed").addEventListener("click", () => stage.settle(stage.currentPicture(), "keep"));
document.getElementById("forget-unsealed").addEventListener("click", () => stage.settle(stage.currentPicture(), "forget"));

const incognito = document.getElementById("incognito");
incognito.addEventListener("change", () => {
  document.getElementById("incognito-badge").hidden = !incognito.checked;
  send("/studio/incognito", { on: incognito.checked ? "1" : "0" });
});
document.getElementById("seed-last").disabled = document.getElementById("init-shown").disabled = true;

const { from } = JSON.parse(document.getElementById("studio").dataset.filled);
if (from) stage.show(from, true);

document.getElementById("seed-last").addEventListener("click", async () => {
  const found = await ask(`/studio/from/${stage.currentPicture()}/same`);
  if (found.fields.seed !== undefined) asked.put("seed", found.fields.seed);
});
document.getElementById("init-shown").addEventListener("click", () => {
  asked.setBegin("record", "", stage.currentPicture());
});

/** Paint on a picture, and begin with what comes of it. */
async function paintOn(source, parent, maskSource = "") {
  const [width, height] = asked.card().sizes[0];
  const painted = await paint(source, width, height, maskSource);
  if (!painted) return;
  const laid = [];
  for (const blob of [painted.picture, painted.mask]) {
    const kept = blob ? await asked.layDown(blob) : { name: "" };
    if (!kept) return;
    laid.push(kept.name);
  }
  const untouched = parent && source.endsWith(parent) ? "record" : source.split("/").at(-1);
  asked.setBegin(laid[0] || untouched, laid[1], parent);
  document.getElementById("f-prompt").focus();
}

document.getElementById("init-paint").addEventListener("click", () => {
  paintOn(asked.beginSource(), asked.beginParent(), asked.beginMask());
});
function paintShown() {
  const id = sealedPicture();
  if (id) paintOn(`/events/picture/${id}`, id);
}
document.getElementById("paint-shown").addEventListener("click", paintShown);

bind(["Ctrl Enter"], "Make what the form asks for", null);
bind(["Ctrl ↑", "Ctrl ↓"], "In a prompt: weigh the selection", null);
bind(["k", "ArrowLeft"], "The newer picture", () => stage.showNext(-1));
bind(["j", "ArrowRight"], "The older picture", () => stage.showNext(1));
bind(["o"], "Open the picture shown", () => sealedPicture() && document.getElementById("open").click());
bind(["i"], "Incognito, or no longer", () => incognito.click());
bind(["a"], "Again, with a new seed", () => goOn("again"));
bind(["s"], "All that it had into the form, with its seed", () => goOn("same"));
bind(["r"], "Remix: begin with it", () => goOn("remix"));
bind(["v"], "Variations", () => goOn("variations"));
bind(["u"], "Upscale", () => goOn("upscale"));
bind(["p"], "Paint on it", paintShown);
bind(["/"], "Write the prompt", () => document.getElementById("f-prompt").focus());
