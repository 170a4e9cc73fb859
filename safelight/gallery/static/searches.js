// Searches that are kept by a name: chosen beside the grid, and kept from there.
import { bind } from "./keys.js";
import { ask, notice, send } from "./safelight.js";

const search = document.getElementById("search");
const list = document.getElementById("searches");
const button = document.getElementById("keep-search");

async function show() {
  const kept = await ask("/api/searches");
  const options = kept.map(({ name, query }) => new Option(name, query));
  list.replaceChildren(list.options[0], ...options);
  list.hidden = kept.length === 0;
  mark();
}

/** The list says which kept search it is that is looked for, if it is one. */
function mark() {
  button.hidden = !search.value.trim();
  const place = [...list.options].findIndex((option, index) => index && option.value === search.value);
  list.selectedIndex = Math.max(0, place);
}

function make(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function keep() {
  if (!search.value.trim()) return;
  const title = make("h2", { id: "keep-title", textContent: "Keep this search" });
  const words = make("p", { className: "muted words", textContent: search.value });
  const field = make("input", { autocomplete: "off", spellcheck: false, maxLength: 64, required: true });
  field.setAttribute("aria-label", "Name");
  field.placeholder = "Name";
  const wrong = make("p", { className: "wrong" });
  wrong.setAttribute("role", "alert");
  const cancel = make("button", { type: "button", className: "quiet", textContent: "Cancel" });
  const save = make("button", { className: "main", textContent: "Keep" });
  const buttons = make("div", { className: "actions" }, cancel, save);
  const form = make("form", { className: "ask-names" }, title, words, field, wrong, buttons);
  const dialog = make("dialog", {}, form);
  dialog.setAttribute("aria-labelledby", title.id);
  cancel.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const answer = await send("/searches", { query: search.value, name: field.value });
    if (!answer.ok) {
      wrong.textContent = await answer.text();
      return;
    }
    notice((await answer.json()).text);
    dialog.close();
    show();
  });
  document.body.append(dialog);
  dialog.showModal();
  field.focus();
}

list.addEventListener("change", () => {
  search.value = list.value;
  search.form.requestSubmit();
  mark();
});
search.addEventListener("input", mark);
button.addEventListener("click", keep);
bind(["s"], "Keep this search", keep);
show().catch(() => {});
