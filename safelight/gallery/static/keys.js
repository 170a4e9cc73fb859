// The keyboard of a page: each key is bound once, with the words that the help shows.
const bound = [];

/** Bind keys (as KeyboardEvent.key writes them). text: for the help; empty: not in it. run: null for
 *  what is handled elsewhere and only listed. */
export function bind(keys, text, run) {
  bound.push({ keys, text, run });
}

/** Give all bindings of this page, for the help. */
export function describe() {
  return bound.filter(({ text }) => text);
}

function isTyping(target) {
  return target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName);
}

/** Enter and Space belong to a link or button that has the focus. */
function isPressing(event) {
  return (event.key === "Enter" || event.key === " ") && event.target.closest("a, button, summary");
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (isTyping(event.target) || document.querySelector("dialog[open]")) return;
  if (isPressing(event)) return;
  for (const { keys, run } of bound) {
    if (run && keys.includes(event.key)) {
      event.preventDefault();
      run(event);
      return;
    }
  }
});
