// LoRAs: those that got a scale are added to the chosen model's base, as a model of its own.
import { send } from "./safelight.js";
import { card, choose, told_ } from "./studio-form.js";
import { whenTold } from "./studio-stage.js";

const inputs = [...document.querySelectorAll("[data-lora]")];
const button = document.getElementById("lora-add");
const progress = document.getElementById("lora-progress");
const stage = document.getElementById("lora-stage");

/** The scales that stand in the list, by name; null where one is no number. */
function scales() {
  const found = {};
  for (const { dataset, value } of inputs) {
    const scale = Number(value.trim().replace(",", "."));
    if (!Number.isFinite(scale)) return null;
    if (scale) found[dataset.lora] = scale;
  }
  return found;
}

/** Show which LoRAs the chosen model has. */
function show() {
  document.getElementById("lora-base").textContent = card().base;
  const merged = new Map(card().loras.map(([file, scale]) => [file.replace(/\.safetensors$/, ""), scale]));
  for (const input of inputs) input.value = merged.get(input.dataset.lora) ?? "";
  changed();
}

function changed() {
  const found = scales();
  button.disabled = !found || Object.keys(found).length === 0;
}

async function add() {
  const wrong = document.getElementById("e-lora");
  wrong.textContent = "";
  button.disabled = true;
  progress.hidden = false;
  progress.removeAttribute("value"); // on its way
  const body = JSON.stringify({ base: card().base, scales: scales() });
  const answer = await send("/studio/lora", body, { "Content-Type": "application/json" });
  const told = await told_(answer);
  progress.hidden = true;
  stage.textContent = "";
  button.disabled = false;
  if (answer.ok) choose(told);
  else wrong.textContent = told.hint ? `${told.message} (${told.hint}).` : `${told.message}.`;
}

if (button) {
  button.addEventListener("click", add);
  for (const input of inputs) input.addEventListener("input", changed);
  document.getElementById("f-model").addEventListener("change", show);
  whenTold("lora", (told) => {
    progress.value = told.done;
    stage.textContent = told.stage;
  });
  show();
}
