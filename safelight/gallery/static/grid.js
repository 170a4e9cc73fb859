// The grid: only the pictures that show exist in the page; the keyboard moves without an end.
import { askNames, compare, label } from "./actions.js";
import { bind } from "./keys.js";
import { Layout } from "./layout.js";
import { Rows } from "./rows.js";
import { ask, notice, send } from "./safelight.js";
import { Timeline, written } from "./timeline.js";

const SIZES = [112, 176, 264]; // pixels, the least side of a picture
const AHEAD = 0.6; // screens above and below that are made ready
const SETTLE = 90; // milliseconds without scrolling until pictures are fetched
const LONG_PRESS = 450; // milliseconds
const MOST = 1000; // pictures of one selection
const MOST_SHARED = 400; // pictures whose ids fit into an address

const element = (id) => document.getElementById(id);
const [main, scroller, canvas, cells, days] = ["main", "scroller", "canvas", "cells", "days"].map(element);
const search = element("search");
const timeline = new Timeline(element("timeline"), scroller);

let found = { version: -1, count: 0, days: [], loading: null };
let rows = new Rows(search.value, draw);
let layout = new Layout(1, 1, [], 0);
let size = 1;
let active = 0;
let activeId = main.dataset.place;
let anchor = 0;
const selected = new Map(); // id -> row
let isAll = false; // everything that is found is chosen, seen or not
let allOf = ""; // the search of which it is everything
const shown = new Map(); // place -> element
let isMoving = false;

// ---- what is found ----

let looking = null; // the search under way, or the last one

function look(options) {
  looking = find(options);
  return looking;
}

async function find({ quiet = false, query = search.value } = {}) {
  let answer;
  try {
    answer = await ask("/api/search", { query }, quiet);
  } catch (error) {
    element("said").textContent = error.message;
    search.setAttribute("aria-invalid", "true");
    return;
  }
  const isOther = query !== rows.query;
  const id = isOther ? "" : activeId;
  const place = id ? (await ask("/api/place", { query, id }, quiet)).place : null;
  if (query !== search.value) return; // typed on meanwhile
  search.removeAttribute("aria-invalid");
  found = answer;
  rows = new Rows(query, draw);
  if (isOther) {
    active = anchor = 0;
    activeId = "";
    clear();
    scroller.scrollTop = 0;
  } else if (place !== null && id === activeId) {
    active = place; // else the keyboard moved on meanwhile
  }
  active = Math.max(0, Math.min(active, found.count - 1));
  say();
  arrange();
}

function say() {
  const { count, loading, damaged } = found;
  const words = [`${count.toLocaleString()} ${count === 1 ? "picture" : "pictures"}`];
  if (loading) words.push(`reading the vault: ${Math.round((100 * loading[0]) / loading[1])} %`);
  if (damaged) words.push("some records did not open: safelight vault verify");
  element("said").textContent = words.join(" · ");
  element("empty").hidden = count > 0 || loading !== null;
  element("empty-search").hidden = !search.value;
  element("empty-vault").hidden = Boolean(search.value);
}

async function watch() {
  let pause = 2000;
  if (!document.hidden) {
    try {
      const { version, loading } = await ask("/api/version");
      const isRead = found.loading && !loading;
      if (version !== found.version || isRead) await look({ quiet: true });
      if (loading) pause = found.count < 2000 ? 400 : 1500;
    } catch {
      pause = 5000;
    }
  }
  setTimeout(watch, pause);
}

// ---- what shows ----

function arrange() {
  const keep = layout.count ? layout.place(Math.min(active, layout.count - 1)).y - scroller.scrollTop : 0;
  const width = canvas.clientWidth;
  layout = new Layout(width, SIZES[size], found.days, found.count);
  canvas.style.height = `${layout.height}px`;
  for (const cell of shown.values()) cell.remove();
  shown.clear();
  if (found.count && activeId) {
    const { y } = layout.place(active);
    const isNear = keep > -layout.side && keep < scroller.clientHeight;
    scroller.scrollTop = y - (isNear ? keep : scroller.clientHeight / 3);
  }
  timeline.show(layout);
  draw();
}

function draw() {
  const height = scroller.clientHeight;
  const top = scroller.scrollTop;
  const { groups, from, to } = layout.visible(top - height * AHEAD, top + height * (1 + AHEAD));
  for (const [index, cell] of shown) {
    if (index < from || index >= to) {
      cell.remove();
      shown.delete(index);
    }
  }
  for (let index = from; index < to; index++) {
    let cell = shown.get(index);
    if (!cell) {
      cell = makeCell(index);
      shown.set(index, cell);
      cells.append(cell);
    }
    fill(cell, index);
  }
  days.replaceChildren(...groups.filter((group) => group.day).map(heading));
  if (!isMoving) rows.want(from, to);
  mark();
}

function heading(group) {
  const line = document.createElement("div");
  line.className = "day";
  line.style.transform = `translateY(${group.top}px)`;
  line.textContent = written(group.day);
  const count = document.createElement("span");
  count.textContent = group.count.toLocaleString();
  line.append(count);
  return line;
}

function makeCell(index) {
  const cell = document.createElement("div");
  const { x, y } = layout.place(index);
  cell.className = "cell";
  cell.id = `cell-${index}`;
  cell.setAttribute("role", "option");
  cell.setAttribute("aria-setsize", found.count);
  cell.setAttribute("aria-posinset", index + 1);
  cell.setAttribute("aria-label", "Not read yet");
  cell.dataset.index = index;
  cell.style.transform = `translate(${x}px, ${y}px)`;
  cell.style.width = cell.style.height = `${layout.side}px`;
  return cell;
}

function fill(cell, index) {
  const row = rows.get(index);
  if (!row || cell.dataset.id === row.id || isMoving) return;
  cell.dataset.id = row.id;
  const picture = new Image();
  picture.alt = "";
  picture.decoding = "async";
  picture.draggable = false;
  picture.src = `/thumbnail/${row.id}`;
  picture.addEventListener("error", () => cell.classList.add("broken"));
  const pick = document.createElement("span");
  pick.className = "pick";
  const marks = document.createElement("span");
  marks.className = "marks";
  marks.textContent = (row.favourite ? "♥ " : "") + "★".repeat(row.rating);
  cell.replaceChildren(picture, pick, marks);
  cell.setAttribute("aria-label", spoken(row));
}

function spoken(row) {
  const parts = [row.title || "A picture without words", written(row.created.slice(0, 10))];
  if (row.rating) parts.push(`rated ${row.rating}`);
  if (row.favourite) parts.push("favourite");
  if (row.tags.length) parts.push(`tagged ${row.tags.join(", ")}`);
  return parts.join(", ");
}

function mark() {
  for (const [index, cell] of shown) {
    const isActive = index === active;
    cell.classList.toggle("active", isActive);
    cell.setAttribute("aria-selected", isAll || selected.has(cell.dataset.id));
  }
  if (shown.has(active)) cells.setAttribute("aria-activedescendant", `cell-${active}`);
  else cells.removeAttribute("aria-activedescendant");
  const bar = element("selection");
  bar.hidden = selected.size === 0 && !isAll;
  element("selection-count").textContent = isAll
    ? `All ${found.count.toLocaleString()} selected`
    : `${selected.size} selected`;
  element("do-compare").disabled = element("do-share").disabled = isAll;
  document.body.classList.toggle("selecting", !bar.hidden);
}

// ---- moving ----

function go(index, event = null) {
  if (!found.count) return;
  active = Math.max(0, Math.min(index, found.count - 1));
  activeId = rows.get(active)?.id ?? "";
  const { y } = layout.place(active);
  const isFirstRow = y <= layout.groups[0].body;
  const high = scroller.clientHeight - layout.pitch - 8;
  if (y - scroller.scrollTop < 48) scroller.scrollTop = isFirstRow ? 0 : y - 48;
  else if (y - scroller.scrollTop > high) scroller.scrollTop = y - high;
  if (event?.shiftKey) {
    const [from, to] = [Math.min(anchor, active), Math.max(anchor, active) + 1];
    inTurn(() => selectRange(from, to));
  } else anchor = active;
  cells.focus({ preventScroll: true });
  draw();
}

function screen() {
  return Math.max(1, Math.floor(scroller.clientHeight / layout.pitch));
}

function down(step, event) {
  let index = active;
  for (let count = Math.abs(step); count > 0; count--) index = layout.vertical(index, Math.sign(step));
  go(index, event);
}

/** The row that the keyboard stands on, fetched if it is not here yet: a fast hand is not ignored. */
async function activeRow() {
  for (let seen = null; seen !== looking; ) await (seen = looking).catch(() => {});
  return rows.get(active) ?? (found.count ? (await rows.range(active, active + 1))[0] : undefined);
}

async function open(id) {
  if (!id) return;
  await send("/api/here", { id });
  location.href = `/detail/${id}`;
}

// ---- choosing ----

let turn = Promise.resolve();
let standing = null; // the row that the keyboard stood on when the key was pressed whose turn it is

/** Do what is asked of the selection in the order of asking, whichever answer comes first. */
function inTurn(run) {
  turn = turn.then(run).catch((error) => notice(error.message));
}

function toggle(index, row = rows.get(index)) {
  if (!row) return;
  isAll = false;
  if (selected.has(row.id)) selected.delete(row.id);
  else if (selected.size < MOST) selected.set(row.id, row);
  anchor = index;
  mark();
}

async function selectRange(from, to) {
  const { query } = rows;
  const range = await rows.range(from, Math.min(to, from + MOST));
  if (query !== rows.query) return; // another search was made meanwhile
  selected.clear();
  isAll = false;
  for (const row of range) selected.set(row.id, row);
  if (to - from > MOST) notice(`A selection holds ${MOST} pictures; the first ${MOST} are selected.`);
  mark();
}

function clear() {
  selected.clear();
  isAll = false;
  mark();
}

function selectAll() {
  if (!found.count) return;
  selected.clear();
  isAll = true;
  allOf = rows.query;
  mark();
}

function chosen() {
  if (selected.size) return [...selected.values()];
  const row = standing ?? rows.get(active);
  return row ? [row] : [];
}

/** Another tab may search too: all of what is found goes with its search, and the number shown. */
const ids = () => (isAll ? { query: allOf, count: String(found.count) } : chosen().map((row) => row.id));
const changed = () => look({ quiet: true });

function favour() {
  const all = !isAll && chosen().every((row) => row.favourite);
  label("favourite", ids(), all ? "0" : "1", changed);
}

function trash() {
  label("trash", ids(), "", () => {
    clear();
    changed();
  });
}

const tag = () => ids().length !== 0 && askNames("tag", ids(), changed);
const album = () => ids().length !== 0 && askNames("album", ids(), changed);

function share() {
  const some = isAll ? [] : ids();
  if (isAll || some.length > MOST_SHARED) notice(`Share at most ${MOST_SHARED} pictures at once.`);
  else if (some.length) location.href = `/share/${some.join(",")}`;
}

async function blur() {
  const on = document.body.classList.toggle("blurred");
  element("blur").setAttribute("aria-pressed", on);
  await send("/api/blur", { on: on ? "1" : "0" });
}

function resize(step) {
  size = Math.max(0, Math.min(SIZES.length - 1, size + step));
  activeId = rows.get(active)?.id ?? "";
  arrange();
}

// ---- events ----

let settling = 0;
let drawing = 0;
scroller.addEventListener("scroll", () => {
  isMoving = true;
  clearTimeout(settling);
  settling = setTimeout(() => {
    isMoving = false;
    draw();
  }, SETTLE);
  if (drawing) return;
  drawing = requestAnimationFrame(() => {
    drawing = 0;
    draw();
    timeline.moved();
  });
}, { passive: true });

new ResizeObserver(() => {
  if (Math.abs(canvas.clientWidth - layout.columns * layout.pitch) > layout.columns) arrange();
}).observe(scroller);

let pressing = 0;
let wasLong = false;
cells.addEventListener("pointerdown", (event) => {
  const index = placeOf(event);
  wasLong = false;
  clearTimeout(pressing);
  if (index === null || event.pointerType !== "touch") return;
  pressing = setTimeout(() => {
    wasLong = true;
    const row = rows.get(index);
    inTurn(() => toggle(index, row));
  }, LONG_PRESS);
});
for (const kind of ["pointerup", "pointercancel", "pointermove"]) {
  cells.addEventListener(kind, (event) => {
    if (kind !== "pointermove" || Math.abs(event.movementY) > 2) clearTimeout(pressing);
  });
}
cells.addEventListener("click", (event) => {
  const index = placeOf(event);
  if (index === null || wasLong) return;
  const isPicking = event.ctrlKey || event.metaKey || selected.size > 0;
  if (event.shiftKey) go(index, event);
  else if (isPicking || event.target.classList.contains("pick")) {
    active = index;
    const row = rows.get(index);
    inTurn(() => toggle(index, row));
    draw();
  } else {
    go(index);
    open(event.target.closest(".cell").dataset.id); // what it shows, also while rows come anew
  }
});

function placeOf(event) {
  const cell = event.target.closest(".cell");
  return cell ? Number(cell.dataset.index) : null;
}

let typing = 0;
search.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(look, 180);
});
search.form.addEventListener("submit", (event) => {
  event.preventDefault();
  clearTimeout(typing);
  look();
  cells.focus();
});
search.addEventListener("keydown", (event) => {
  if (event.key === "Escape" || event.key === "ArrowDown") {
    event.preventDefault();
    cells.focus();
  }
});

const buttons = { favour, tag, album, compare: () => isAll || compare(ids()), share, trash, clear };
for (const [name, run] of Object.entries(buttons)) {
  element(`do-${name}`).addEventListener("click", () => inTurn(() => void run()));
}
element("blur").addEventListener("click", blur);
element("larger").addEventListener("click", () => resize(1));
element("smaller").addEventListener("click", () => resize(-1));

bind(["/"], "Search", () => search.select());
bind(["j", "ArrowRight"], "Next (with Shift: select on the way)", (event) => go(active + 1, event));
bind(["k", "ArrowLeft"], "Before", (event) => go(active - 1, event));
bind(["J"], "", (event) => go(active + 1, event));
bind(["K"], "", (event) => go(active - 1, event));
bind(["ArrowDown", "ArrowUp"], "Row below, row above", (event) => down(event.key === "ArrowDown" ? 1 : -1, event));
bind(["PageDown", "PageUp"], "A screen on, a screen back", (event) => {
  down(event.key === "PageDown" ? screen() : -screen(), event);
});
bind(["Home", "End"], "First, last picture", (event) => go(event.key === "Home" ? 0 : found.count - 1, event));
bind(["Enter"], "Open", async () => open((await activeRow())?.id));
bind(["x", " "], "Select, or no longer", () => {
  const [index, row] = [active, rows.get(active)];
  inTurn(async () => {
    if (row) return toggle(index, row);
    const late = await activeRow();
    toggle(active, late);
  });
});
const choose = (keys, text, run) => bind(keys, text, (event) => {
  const row = rows.get(active);
  inTurn(() => {
    standing = row;
    run(event);
    standing = null;
  });
});
choose(["Escape"], "Select nothing", clear);
choose(["f"], "Favourite, or no longer", favour);
choose(["1", "2", "3", "4", "5", "0"], "Rate, or not", (event) => label("rating", ids(), event.key, changed));
choose(["A"], "Select everything that is found", selectAll);
choose(["t"], "Tag", tag);
choose(["l"], "Put into an album", album);
choose(["c"], "Compare two to four", () => isAll || compare(ids()));
choose(["e"], "Share: what leaves, and how", share);
choose(["Delete"], "Move to the trash", trash);
bind(["b"], "Blur until pointed at", blur);
bind(["+", "-"], "Larger, smaller", (event) => resize(event.key === "+" ? 1 : -1));

if (innerWidth < 520) size = 0;
await look();
if (activeId || !search.value) cells.focus({ preventScroll: true });
watch();
