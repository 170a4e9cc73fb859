// What can be done with pictures of the grid: labels with undo, compare, share, remix, trash.
import { notice, send } from "./safelight.js";

const DONE = {
  favourite: (count, value) => (value === "1" ? `${count} marked as favourite` : `${count} no longer favourite`),
  rating: (count, value) => (value === "0" ? `${count} without rating` : `${count} rated ${value}`),
  tag: (count, value) => `${count} tagged “${value}”`,
  trash: (count) => `${count} moved to the trash`,
};

/** Label pictures; says what was done, with a way back. changed: called after each change. */
export async function label(what, ids, value, changed) {
  if (!ids.length) return;
  const answer = await send(`/labels/${what}`, { ids: ids.join(","), value });
  if (!answer.ok) {
    notice(await answer.text());
    return;
  }
  const { done, undo } = await answer.json();
  changed();
  notice(DONE[what](done, value), undo && { label: "Undo", run: () => back(undo, changed) });
}

async function back(token, changed) {
  const answer = await send("/labels/undo", { token });
  notice(answer.ok ? "Undone." : await answer.text());
  changed();
}

export function compare(ids) {
  if (ids.length < 2 || ids.length > 4) {
    notice("Select two to four pictures to compare (x selects).");
    return;
  }
  location.href = `/compare/${ids.join(",")}`;
}
