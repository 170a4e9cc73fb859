// What can be done with pictures from any page: labels and trash with undo, names asked for, compare.
import { ask, notice, send } from "./safelight.js";

/** Names as people write them, with commas between, as they are sent: a line each. */
export function named(text) {
  return text.split(",").join("\n");
}

/** Change pictures: tag, untag, album, unalbum, rating, favourite, note, trash, restore.
 *  Says what was done, with a way back; gives success. ids: a list, or { query, count } for all
 *  that a search found. changed(undone): called after the change, and after it was taken back. */
export async function label(what, ids, value = "", changed = () => {}) {
  if (ids.length === 0) return false;
  const chosen = Array.isArray(ids) ? { ids: ids.join(",") } : { all: "1", ...ids };
  const answer = await send(`/labels/${what}`, { ...chosen, value: String(value) });
  if (!answer.ok) {
    notice(await answer.text());
    return false;
  }
  const { text, undo } = await answer.json();
  changed(false);
  notice(text, undo && { label: "Undo", run: () => back(undo, changed) });
  return true;
}

async function back(token, changed) {
  const answer = await send("/labels/undo", { token });
  notice(answer.ok ? "Undone." : await answer.text());
  changed(true);
}

export function compare(ids) {
  if (ids.length < 2 || ids.length > 4) {
    notice("Select two to four pictures to compare (x selects).");
    return;
  }
  location.href = `/compare/${ids.join(",")}`;
}

/** Offer the tags or albums that there are while one is typed. kind: tag or album. */
export async function suggest(kind, list) {
  const names = await ask(`/api/names/${kind}s`);
  list.replaceChildren(...names.map(([name]) => Object.assign(document.createElement("option"), { value: name })));
}

function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

/** Ask for tags ("tag") or albums ("album") of pictures, to add or to remove. */
export function askNames(kind, ids, changed = () => {}) {
  const isTag = kind === "tag";
  const many = !Array.isArray(ids) ? "all that is found" : `${ids.length} picture${ids.length === 1 ? "" : "s"}`;
  const list = element("datalist", { id: "asked-names" });
  const field = element("input", { autocomplete: "off", spellcheck: false, maxLength: 400 });
  field.setAttribute("list", list.id);
  field.setAttribute("aria-label", isTag ? "Tags, with commas between" : "Albums, with commas between");
  field.placeholder = isTag ? "Tags, with commas between" : "Albums, with commas between";
  const title = element("h2", { id: "asked-title", textContent: isTag ? `Tag ${many}` : `Albums of ${many}` });
  const add = element("button", { className: "main", textContent: isTag ? "Tag" : "Put in", value: kind });
  const remove = element("button", { textContent: isTag ? "Remove tag" : "Take out", value: `un${kind}` });
  const cancel = element("button", { type: "button", className: "quiet", textContent: "Cancel" });
  const buttons = element("div", { className: "actions" }, cancel, remove, add);
  const form = element("form", { className: "ask-names" }, title, field, list, buttons);
  const dialog = element("dialog", {}, form);
  dialog.setAttribute("aria-labelledby", title.id);
  const before = document.activeElement;
  // Enter takes a form's first submit button: here it must be the one that adds.
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    form.requestSubmit(add);
  });
  cancel.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    dialog.remove();
    before?.focus({ preventScroll: true });
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (await label(event.submitter.value, ids, named(field.value), changed)) dialog.close();
  });
  document.body.append(dialog);
  dialog.showModal();
  field.focus();
  suggest(kind, list).catch(() => {});
}
