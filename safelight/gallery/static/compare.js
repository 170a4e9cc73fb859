// Compare: a slider between two pictures, both beside each other, or the map of their differences.
import { bind } from "./keys.js";

const NAMES = { 1: "slide", 2: "beside", 3: "apart" };
const split = document.getElementById("split");

function place() {
  const part = Number(split.value);
  document.getElementById("over").style.clipPath = `inset(0 0 0 ${part}%)`;
  document.getElementById("seam").style.left = `${part}%`;
}

function choose(way) {
  for (const box of document.querySelectorAll(".way")) box.hidden = box.dataset.way !== way;
  for (const button of document.querySelectorAll(".ways button")) {
    button.setAttribute("aria-pressed", String(button.dataset.way === way));
  }
  const map = document.getElementById("apart");
  if (way === "apart" && !map.src) map.src = map.dataset.src;
}

function slideBy(step) {
  split.value = String(Number(split.value) + step);
  place();
}

/** The slider's box is as large as the first picture is shown: both lie over each other exactly. */
function shape() {
  const image = document.querySelector("#slide img");
  if (!image.naturalWidth) return;
  const box = document.getElementById("slide");
  box.style.aspectRatio = `${image.naturalWidth} / ${image.naturalHeight}`;
  const most = Math.max(240, innerHeight * 0.72) * (image.naturalWidth / image.naturalHeight);
  box.style.maxWidth = `${most}px`;
}

if (split) {
  split.addEventListener("input", place);
  const first = document.querySelector("#slide img");
  if (first.complete) shape();
  first.addEventListener("load", shape);
  addEventListener("resize", shape);
  place();
  for (const button of document.querySelectorAll(".ways button")) {
    button.addEventListener("click", () => choose(button.dataset.way));
  }
  bind(["1", "2", "3"], "Slider, side by side, difference", (event) => choose(NAMES[event.key]));
  bind(["ArrowLeft", "ArrowRight"], "Move the slider", (event) => slideBy(event.key === "ArrowLeft" ? -5 : 5));
}
bind(["g", "Enter"], "Back to the grid", () => { location.href = "/"; });
