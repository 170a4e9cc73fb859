// The trash: choose, restore, shred, and read what shredding leaves.
import { label } from "./actions.js";
import { bind } from "./keys.js";
import { notice, send } from "./safelight.js";

const tiles = document.getElementById("tiles");
const dialog = document.getElementById("purge");
const picked = new Set();

const buttons = () => [...document.querySelectorAll(".choice")];

function say() {
  const number = picked.size;
  document.getElementById("restore").disabled = !number;
  document.getElementById("shred").disabled = !number;
  document.getElementById("chosen").textContent = number
    ? `${number} chosen`
    : "Choose pictures by pointing, or with the arrows and the space bar.";
}

function pick(button) {
  const id = button.closest("li").dataset.id;
  const on = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", String(on));
  if (on) picked.add(id);
  else picked.delete(id);
  say();
}

async function more(rest) {
  const answer = await fetch(`/trash/more?start=${rest.dataset.start}`);
  if (!answer.ok) return notice(await answer.text());
  const holder = document.createElement("ul");
  holder.innerHTML = await answer.text(); // our own template, every value escaped
  rest.replaceWith(...holder.children);
  watch();
}

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    seen.unobserve(entry.target);
    more(entry.target);
  }
}, { rootMargin: "600px" });

function watch() {
  const rest = document.querySelector(".rest");
  if (rest) seen.observe(rest);
}

function move(step) {
  const all = buttons();
  const now = all.indexOf(document.activeElement);
  all[Math.min(all.length - 1, Math.max(0, now + step))]?.focus();
}

/** How many tiles a row has, from where the second row begins. */
function across() {
  const all = buttons();
  const top = all[0]?.getBoundingClientRect().top;
  const next = all.findIndex((each) => each.getBoundingClientRect().top > top + 1);
  return next < 0 ? all.length : next;
}

const reload = () => location.reload();

function restore() {
  label("restore", [...picked], "", (undone) => {
    if (undone) return reload();
    for (const id of picked) tiles.querySelector(`[data-id="${id}"]`)?.remove();
    picked.clear();
    say();
  });
}

async function restoreAll() {
  const answer = await send("/trash/restore-all");
  if (answer.ok) reload();
  else notice(await answer.text());
}

async function askPurge(ids) {
  const answer = await send("/purge/ask", { ids: ids.join(",") });
  if (!answer.ok) return notice(await answer.text());
  dialog.innerHTML = await answer.text(); // our own template, every value escaped
  document.getElementById("purge-no").addEventListener("click", () => dialog.close());
  document.getElementById("purge-form").addEventListener("submit", purge);
  dialog.showModal();
}

async function purge(event) {
  event.preventDefault();
  const form = event.target;
  for (const button of form.querySelectorAll("button")) button.disabled = true;
  const retire = form.elements.retire?.checked ? "1" : "";
  const answer = await send("/purge", { ids: form.dataset.ids, retire });
  const text = await answer.text();
  if (!answer.ok) {
    document.getElementById("purge-wrong").textContent = text;
    for (const button of form.querySelectorAll("button")) button.disabled = false;
    return;
  }
  dialog.innerHTML = text;
  dialog.addEventListener("close", reload);
  const done = document.getElementById("purge-done");
  done.addEventListener("click", () => dialog.close());
  done.focus();
}

tiles?.addEventListener("click", (event) => {
  const button = event.target.closest(".choice");
  if (button) pick(button);
});
document.getElementById("restore")?.addEventListener("click", restore);
document.getElementById("restore-all")?.addEventListener("click", restoreAll);
document.getElementById("shred")?.addEventListener("click", () => askPurge([...picked]));
document.getElementById("shred-all")?.addEventListener("click", () => askPurge([]));
bind(["j", "ArrowRight"], "Next", () => move(1));
bind(["k", "ArrowLeft"], "Previous", () => move(-1));
bind(["ArrowDown"], "Row below", () => move(across()));
bind(["ArrowUp"], "Row above", () => move(-across()));
bind(["u"], "Restore what is chosen", restore);
bind([" "], "Choose", () => document.activeElement?.closest(".choice")?.click());
watch();
