// Runs before anything shows: what a hand does before the page's scripts are there is kept, and done
// once they are. A form never goes out by itself: its fields would stand in an address, and so in
// the browser's history (the content security policy refuses that a second time).
{
  const kept = []; // {target, submitter, type}, in the order of the hand
  let isReady = false;

  const isOurs = ({ type, target }) => {
    if (type !== "click") return true;
    const button = target.closest?.("button");
    // Links and fields know what to do; of a form's button comes a submit.
    return button && !(button.form && button.type === "submit");
  };

  const keep = (event) => {
    if (isReady || !isOurs(event)) return;
    const { type, submitter = null } = event;
    const target = type === "click" ? event.target.closest("button") : event.target;
    event.stopImmediatePropagation();
    if (type === "click" || type === "submit") {
      event.preventDefault();
      document.documentElement.classList.add("waiting");
    }
    const isKept = kept.some((each) => each.type === type && each.target === target);
    if (!isKept) kept.push({ type, target, submitter }); // twice in a hurry is meant once
  };

  const again = ({ type, target, submitter }) => {
    if (!target.isConnected) return;
    if (type === "click") target.click();
    else if (type === "submit") target.requestSubmit(submitter);
    else target.dispatchEvent(new Event(type, { bubbles: true }));
  };

  for (const type of ["click", "submit", "change", "input"]) addEventListener(type, keep, true);
  document.addEventListener("DOMContentLoaded", () => {
    setTimeout(() => { // after everything else that waited for the same
      isReady = true;
      document.documentElement.classList.remove("waiting");
      for (const each of kept.splice(0)) again(each);
    });
  });
}
