// The share dialog: each choice shows at once what would leave; the download is a plain address.
import { notice, send } from "./safelight.js";

const form = document.getElementById("share");
const leaving = document.getElementById("leaving");
const steps = document.querySelectorAll("#walk [data-step]"); // back, on; none for a single picture
const count = Number(form.dataset.count);
const SETTLE = 250; // milliseconds without typing until the file is made anew
let place = 0;
let asked = 0; // questions so far
let shown = ""; // what the last question was about
let settling = 0;

function fields() {
  return { ...Object.fromEntries(new FormData(form)), place };
}

async function show() {
  const now = new URLSearchParams(fields()).toString();
  if (now === shown) return; // leaving a field says "change" once more
  shown = now;
  const mine = ++asked;
  leaving.setAttribute("aria-busy", "true");
  const answer = await send("/share/preview", fields());
  const text = await answer.text();
  if (mine !== asked) return; // chosen on meanwhile
  if (!answer.ok) shown = ""; // the same may be asked again
  leaving.removeAttribute("aria-busy");
  document.getElementById("download").disabled = !answer.ok;
  if (answer.ok) {
    leaving.innerHTML = text; // our own server's template, every value escaped there
  } else {
    const said = document.createElement("p");
    said.className = "wrong";
    said.textContent = text;
    leaving.replaceChildren(said);
  }
}

function words() {
  const profile = new FormData(form).get("profile");
  document.getElementById("words").hidden = !["a1111", "full"].includes(profile);
}

form.addEventListener("change", () => {
  words();
  show();
});
form.addEventListener("input", (event) => {
  if (event.target.id !== "redactions") return;
  clearTimeout(settling);
  settling = setTimeout(show, SETTLE);
});
for (const button of steps) {
  button.addEventListener("click", () => {
    place = Math.max(0, Math.min(place + Number(button.dataset.step), count - 1));
    document.getElementById("walk-place").textContent = `${place + 1} of ${count}`;
    for (const [each, end] of [[steps[0], 0], [steps[1], count - 1]]) each.disabled = place === end;
    show();
  });
}
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const answer = await send("/share/ticket", fields());
  if (!answer.ok) {
    notice(await answer.text());
    return;
  }
  location.href = (await answer.json()).address;
  notice("The download has begun. The vault does not protect that copy.");
});

words();
show();
