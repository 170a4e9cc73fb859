// Labels and trash from any page: one call a change, a notice with its undo, and dialogs for names.
//   change(path, fields)         POST, says what happened, offers to take it back; gives success
//   label(ids, what, value)      tag, untag, album, unalbum, rate, favourite, note
//   toTrash(ids), restore(ids)
//   askNames(kind, ids)          a dialog that asks for tags ("tag") or albums ("album") of pictures
// ids: a list, or "all" for what the search finds. After a change `document` hears
// "safelight:changed" with { ids, undone }.
import { ask, notice, send } from "./safelight.js";

function chosen(ids) {
  return ids === "all" ? { all: "1" } : { ids: ids.join(",") };
}

function changed(ids, undone = false) {
  document.dispatchEvent(new CustomEvent("safelight:changed", { detail: { ids, undone } }));
}

async function takeBack(token, ids) {
  const answer = await send("/undo", { undo: token });
  notice(answer.ok ? "Undone." : await answer.text());
  if (answer.ok) changed(ids, true);
}

export async function change(path, fields, ids) {
  let answer;
  try {
    answer = await send(path, fields);
  } catch {
    notice("The gallery does not answer.");
    return false;
  }
  if (!answer.ok) {
    notice(await answer.text());
    return false;
  }
  const { text, undo } = await answer.json();
  notice(text, undo ? { label: "Undo", run: () => takeBack(undo, ids) } : null);
  changed(ids);
  return true;
}

export function label(ids, what, value = "") {
  return change("/label", { ...chosen(ids), do: what, value: String(value) }, ids);
}

export function toTrash(ids) {
  return change("/trash", chosen(ids), ids);
}

export function restore(ids) {
  return change("/trash/restore", chosen(ids), ids);
}

/** Offer the names that there are while one is typed. */
export async function suggest(kind, list) {
  const names = await ask(`/api/names/${kind}s`);
  list.replaceChildren(
    ...names.map(([name]) => {
      const option = document.createElement("option");
      option.value = name;
      return option;
    }),
  );
}

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

export function askNames(kind, ids) {
  const many = ids === "all" ? "all that is found" : ids.length === 1 ? "1 picture" : `${ids.length} pictures`;
  const list = element("datalist", { id: "asked-names" });
  const field = element("input", { name: "value", autocomplete: "off", spellcheck: false, maxLength: 400 });
  field.setAttribute("list", "asked-names");
  field.setAttribute("aria-label", kind === "tag" ? "Tags, with commas between" : "Albums, with commas between");
  const title = element("h2", { textContent: `${kind === "tag" ? "Tag" : "Put into albums:"} ${many}` });
  const add = element("button", { className: "main", textContent: kind === "tag" ? "Tag" : "Put in", value: kind });
  const remove = element("button", { textContent: kind === "tag" ? "Remove tag" : "Take out", value: `un${kind}` });
  const cancel = element("button", { type: "button", className: "quiet", textContent: "Cancel" });
  const form = element("form", { className: "ask-names" }, title, field, list, element("div", { className: "actions" }, cancel, remove, add));
  const dialog = element("dialog", {}, form);
  // Enter takes the first submit button of a form: it must be the one that adds.
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    form.requestSubmit(add);
  });
  cancel.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (await label(ids, event.submitter?.value ?? kind, field.value)) dialog.close();
  });
  document.body.append(dialog);
  dialog.showModal();
  field.focus();
  suggest(kind, list).catch(() => {});
}
