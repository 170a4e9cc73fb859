// The studio's stage: the live preview, what was made lately, and the queue, told by the server.
import { ask, goDark, notice, send } from "./safelight.js";

const stage = document.getElementById("stage");
const shown = document.getElementById("shown");
const hint = document.getElementById("stage-hint");
const strip = document.getElementById("strip");
const run = document.getElementById("run");
const runText = document.getElementById("run-text");
const progress = document.getElementById("progress");
const stop = document.getElementById("stop");
const queue = document.getElementById("queue");
const MOST = 60; // pictures in the strip
const LEADING = 4000; // milliseconds for which a finished picture stands before a preview covers it

let current = ""; // the record that is shown, or nothing while a preview is
let chosen = -Infinity; // when somebody chose a picture of the strip, by the page's clock
let running = "";
let onShow = () => {};
const unsealed = new Set(); // ids of incognito pictures

/** Call back whenever another picture is shown: its id, or nothing. */
export function whenShown(call) {
  onShow = call;
}

/** Give the id of the picture that is shown, or nothing. */
export function currentPicture() {
  return current;
}

/** Say whether a picture is an incognito one: nothing but memory has it. */
export function isUnsealed(id) {
  return unsealed.has(id);
}

/** Seal an incognito picture after all (verb: keep), or forget it (forget). */
export async function settle(id, verb) {
  const answer = await send(`/studio/unsealed/${id}/${verb}`);
  if (!answer.ok) return notice(await answer.text());
  const { id: sealed } = await answer.json();
  unsealed.delete(id);
  const old = strip.querySelector(`[data-id="${id}"]`)?.closest("li");
  if (sealed) {
    old?.replaceWith(made(sealed));
    show(sealed, true);
    notice("Sealed in your vault.");
  } else {
    const next = old?.nextElementSibling ?? old?.previousElementSibling;
    old?.remove();
    if (next) show(next.firstElementChild.dataset.id, true);
    else clear();
  }
}

function clear() {
  current = "";
  shown.hidden = true;
  shown.removeAttribute("src");
  stage.setAttribute("data-empty", "");
  hint.hidden = false;
  onShow("");
}

/** Show a picture that was made. */
export function show(id, byHand = false) {
  current = id;
  if (byHand) chosen = performance.now();
  stage.removeAttribute("data-empty");
  stage.removeAttribute("data-preview");
  hint.hidden = true;
  shown.hidden = false;
  shown.src = `/events/picture/${id}`;
  shown.alt = "The picture that was made";
  for (const button of strip.querySelectorAll("button")) {
    button.setAttribute("aria-current", String(button.dataset.id === id));
  }
  onShow(id);
}

/** Show the picture beside the shown one. by: 1 for the older one, -1 for the newer. */
export function showNext(by) {
  const all = [...strip.querySelectorAll("button")];
  const place = all.findIndex((each) => each.dataset.id === current);
  const next = all[place + by] ?? (place < 0 ? all[0] : null);
  if (!next) return;
  show(next.dataset.id, true);
  next.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function made(id) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.id = id;
  const image = document.createElement("img");
  image.src = `/events/thumbnail/${id}`;
  image.alt = unsealed.has(id) ? "Incognito picture" : `Picture ${id.slice(0, 8)}`;
  button.toggleAttribute("data-unsealed", unsealed.has(id));
  button.append(image);
  button.addEventListener("click", () => show(id, true));
  button.addEventListener("dblclick", () => unsealed.has(id) || document.getElementById("open").click());
  item.append(button);
  return item;
}

/** Put a picture to the front of the strip. */
function add(id) {
  if (strip.querySelector(`[data-id="${id}"]`)) return;
  strip.prepend(made(id));
  while (strip.children.length > MOST) strip.lastElementChild.remove();
}

function stepped(told) {
  running = told.job;
  run.hidden = false;
  stop.disabled = false;
  const hands = told.in_hand; // pictures that are drawn at once, whose steps are counted together
  const part = told.steps ? hands * told.step / told.steps : 0;
  const share = Math.min(1, (told.behind + part) / told.count);
  progress.firstElementChild.style.transform = `scaleX(${share})`;
  progress.setAttribute("aria-valuenow", String(Math.round(share * 100)));
  const words = [];
  const first = Math.min(told.behind + 1, told.count);
  const last = Math.min(told.behind + hands, told.count);
  if (last > first) words.push(`pictures ${first} to ${last} of ${told.count}`);
  else if (told.count > 1) words.push(`picture ${first} of ${told.count}`);
  if (told.steps) words.push(`step ${Math.floor(told.step / hands)} of ${Math.round(told.steps / hands)}`);
  else words.push("loading the model");
  if (told.left) words.push(`${told.left} left`);
  runText.textContent = words.join(" · ");
  const left = document.getElementById("queue-left");
  if (left && told.left) left.textContent = `about ${told.left} left`;
  const row = queue.querySelector(`.job[data-job="${told.job}"] .job-count`);
  if (row) row.textContent = `${told.done}/${told.count}`;
  if (!told.preview || performance.now() - chosen < LEADING) return;
  current = "";
  stage.removeAttribute("data-empty");
  stage.setAttribute("data-preview", "");
  hint.hidden = true;
  shown.hidden = false;
  shown.alt = "Preview of the picture that is being made";
  shown.src = `/events/preview/${told.preview}`;
  onShow("");
}

function rested() {
  running = "";
  run.hidden = true;
  stop.disabled = true;
  runText.textContent = "";
  const newest = strip.querySelector("button");
  if (stage.hasAttribute("data-preview") && newest) show(newest.dataset.id); // its job was cancelled
}

async function standing() {
  const stands = await ask("/events/standing");
  for (const id of stands.unsealed) unsealed.add(id);
  for (const id of stands.made) add(id);
  if (stands.running) stepped(stands.running);
  else {
    rested();
    if (!current && stands.made.length) show(stands.made.at(-1));
  }
}

let asking = null;
/** Fetch the queue; several changes at once are one question. */
function showQueue() {
  asking ??= setTimeout(async () => {
    asking = null;
    const focused = document.activeElement?.closest?.("#queue button, #queue input");
    const key = focused && [focused.closest(".job")?.dataset.job, focused.dataset.verb, focused.dataset.queue];
    const answer = await fetch("/events/queue");
    if (answer.status === 401) goDark();
    if (!answer.ok) return;
    queue.innerHTML = await answer.text();
    if (key) refocus(...key);
    const job = queue.querySelector('.job[data-state="running"]');
    if (!job) rested();
    else if (!running || running !== job.dataset.job) await standing();
  }, 60);
}

function refocus(job, verb, whole) {
  if (!job && !whole) {
    queue.querySelector("[data-stay]")?.focus();
    return;
  }
  const place = whole
    ? queue.querySelector(`[data-queue="${whole}"]`)
    : queue.querySelector(`.job[data-job="${job}"] [data-verb="${verb}"]`);
  (place ?? queue.querySelector("button"))?.focus();
}

queue.addEventListener("click", async (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const job = button.closest(".job")?.dataset.job;
  const answer = await send(job ? `/studio/job/${job}/${button.dataset.verb}` : `/studio/queue/${button.dataset.queue}`);
  if (!answer.ok) notice(await answer.text());
});

queue.addEventListener("change", (event) => {
  if (event.target.matches("[data-stay]")) send(`/studio/queue/${event.target.checked ? "stay" : "leave"}`);
});

stop.addEventListener("click", () => running && send(`/studio/job/${running}/cancel`));

const source = new EventSource("/events");

/** Call back with what the server tells under a name. */
export function whenTold(name, act) {
  source.addEventListener(name, (event) => act(JSON.parse(event.data)));
}

function listen() {
  const told = whenTold;
  told("step", stepped);
  told("queue", showQueue);
  told("sealed", (picture) => {
    if (picture.unsealed) unsealed.add(picture.id);
    add(picture.id);
    if (performance.now() - chosen > LEADING) show(picture.id);
    if (picture.flagged) notice("The model's safety checker flagged the picture, so it is black.");
  });
  told("failed", ({ reason }) => notice(`A job failed: ${reason}`));
  told("closed", () => {
    source.close();
    goDark();
  });
  source.addEventListener("open", () => {
    standing();
    showQueue();
  });
  addEventListener("pagehide", () => source.close());
}

listen();
