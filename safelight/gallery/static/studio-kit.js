// What is kept at hand: presets of settings, styles, word lists; all of it sealed in the vault.
import { notice, send } from "./safelight.js";
import * as asked from "./studio-form.js";

const json = { "Content-Type": "application/json" };
const presets = document.getElementById("kit-preset");
const name = document.getElementById("kit-name");
const TEXTS = ["prompt", "negative_prompt"];

/** Say how it went, and show the page with what is kept now. */
async function ended(answer, words) {
  if (!answer.ok) {
    notice((await asked.told_(answer)).message);
    return;
  }
  asked.keep();
  notice(words);
  setTimeout(() => location.assign("/studio"), 700); // after the form was kept
}

async function keep(sort) {
  const { fields } = asked.read();
  const settings = Object.fromEntries(Object.entries(fields).filter(([key]) => !TEXTS.includes(key)));
  const texts = Object.fromEntries(TEXTS.map((key) => [key, fields[key] ?? ""]));
  const body = { name: name.value, ...(sort === "preset" ? { fields: settings } : texts) };
  await ended(await send(`/studio/kit/${sort}`, JSON.stringify(body), json), `“${name.value}” is kept.`);
}

for (const button of document.querySelectorAll("[data-keep]")) {
  button.addEventListener("click", () => keep(button.dataset.keep));
}

document.getElementById("kit-use").addEventListener("click", () => {
  const fields = presets.selectedOptions[0]?.dataset.fields;
  if (!fields) return;
  const now = asked.read();
  const texts = Object.fromEntries(TEXTS.map((key) => [key, now.fields[key] ?? ""]));
  asked.fill({ ...now, fields: { ...JSON.parse(fields), ...texts } });
});

async function remove(id) {
  if (id) await ended(await send(`/studio/kit/remove/${id}`), "Removed.");
}
document.getElementById("kit-remove").addEventListener("click", () => remove(presets.value));
for (const button of document.querySelectorAll("[data-remove]")) {
  button.addEventListener("click", () => remove(button.dataset.remove));
}

document.getElementById("styles-file").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  event.target.value = "";
  if (file) await ended(await send("/studio/kit/styles", file, { "Content-Type": "text/csv" }), "The styles are kept.");
});

document.getElementById("list-file").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  event.target.value = "";
  if (!file) return;
  const list = file.name.replace(/\.txt$/i, "");
  const body = JSON.stringify({ name: list, lines: await file.text() });
  await ended(await send("/studio/kit/wordlist", body, json), `The word list __${list}__ is kept.`);
});
