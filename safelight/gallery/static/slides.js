// The slide show over what the search finds: windows of ids, one picture at a time.
import { bind } from "./keys.js";
import { notice, send } from "./safelight.js";

const WINDOW = 100; // ids fetched at once
const show = document.getElementById("slides");
const stage = document.getElementById("slides-stage");
const count = Number(show.dataset.count);
let place = Math.min(Number(show.dataset.start), count - 1);
let playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
let timer = 0;
let turn = 0;
let part = { start: -1, rows: [] };

async function row(index) {
  if (index < part.start || index >= part.start + part.rows.length || part.start < 0) {
    const start = Math.max(0, index - 10);
    const answer = await send("/api/window", { query: show.dataset.query, start, count: WINDOW });
    if (!answer.ok) throw new Error(await answer.text());
    part = { start, rows: (await answer.json()).rows };
  }
  return part.rows[index - part.start];
}

async function picture(index) {
  const about = await row((index + count) % count);
  if (!about) return null;
  const image = new Image();
  image.src = `/picture/${about.id}`;
  image.alt = about.title || "Picture without a prompt";
  await image.decode();
  return image;
}

async function go(index) {
  const mine = ++turn;
  clearTimeout(timer);
  place = (index + count) % count;
  try {
    const image = await picture(place);
    if (mine !== turn || !image) return;
    stage.replaceChildren(image);
    document.getElementById("slides-place").textContent = `${place + 1} of ${count}`;
    picture(place + 1).catch(() => {});
  } catch {
    if (mine === turn) notice("This picture could not be opened.");
  }
  wait();
}

function wait() {
  clearTimeout(timer);
  const seconds = Number(document.getElementById("slides-seconds").value);
  if (playing && count > 1) timer = setTimeout(() => go(place + 1), seconds * 1000);
}

function play(on = !playing) {
  playing = on;
  const button = document.getElementById("slides-play");
  button.textContent = on ? "Pause" : "Play";
  button.setAttribute("aria-pressed", String(on));
  wait();
}

function full() {
  if (document.fullscreenElement) document.exitFullscreen();
  else show.requestFullscreen();
}

if (count) {
  document.getElementById("slides-before").addEventListener("click", () => go(place - 1));
  document.getElementById("slides-after").addEventListener("click", () => go(place + 1));
  document.getElementById("slides-play").addEventListener("click", () => play());
  document.getElementById("slides-full").addEventListener("click", full);
  document.getElementById("slides-seconds").addEventListener("change", wait);
  bind([" "], "Play or pause", () => play());
  bind(["j", "ArrowRight"], "Next", () => go(place + 1));
  bind(["k", "ArrowLeft"], "Previous", () => go(place - 1));
  bind(["w"], "Full screen", full);
  play(playing);
  go(place);
}
bind(["g"], "Back to the grid", () => { location.href = "/"; });
