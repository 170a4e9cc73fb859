// The import page: files are sent one by one as they are, and each answer says what became of it.
import { send } from "./safelight.js";

const element = (id) => document.getElementById(id);
const drop = element("drop");
const list = element("taken");
const MOST_BYTES = Number(drop.dataset.most);
const LISTED = 300; // lines that stay in the page
const KINDS = /\.(png|jpe?g|webp)$/i;
const PROGRAMLESS = "no words of a program known here";

const waiting = [];
const counts = { taken: 0, duplicate: 0, refused: 0 };
let total = 0;
let isGoing = false;
let isStopped = false;

/** Give all files of what was dropped, those in folders too. */
async function* dropped(items) {
  const entries = [...items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  while (entries.length) {
    const entry = entries.shift();
    if (entry.isFile) {
      yield await new Promise((resolve, reject) => entry.file(resolve, reject));
    } else {
      const reader = entry.createReader();
      for (;;) {
        const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
        if (!some.length) break;
        entries.push(...some);
      }
    }
  }
}

function add(files) {
  for (const file of files) {
    if (KINDS.test(file.name) && !file.name.startsWith(".")) waiting.push(file);
  }
  total = counts.taken + counts.duplicate + counts.refused + waiting.length;
  if (!isGoing) go();
}

async function go() {
  isGoing = true;
  isStopped = false;
  element("going").hidden = false;
  element("stop").hidden = false;
  say();
  while (waiting.length && !isStopped) {
    const file = waiting.shift();
    const outcome = await take(file);
    counts[outcome.outcome] += 1;
    show(file, outcome);
    say();
  }
  waiting.length = 0;
  isGoing = false;
  element("stop").hidden = true;
  say();
  element("after").hidden = counts.taken + counts.duplicate === 0;
}

async function take(file) {
  if (file.size > MOST_BYTES) return { outcome: "refused", reason: "it is too large" };
  try {
    const answer = await send("/import/file", file, {
      "Content-Type": "application/octet-stream",
      "X-Safelight-Name": encodeURIComponent(file.webkitRelativePath || file.name),
      "X-Safelight-Modified": String(file.lastModified),
    });
    return answer.ok ? await answer.json() : { outcome: "refused", reason: await answer.text() };
  } catch {
    return { outcome: "refused", reason: "it could not be read" };
  }
}

function say() {
  const { taken, duplicate, refused } = counts;
  const done = taken + duplicate + refused;
  const words = [`${done.toLocaleString()} of ${total.toLocaleString()} files`, `${taken} sealed`];
  if (duplicate) words.push(`${duplicate} were here already`);
  if (refused) words.push(`${refused} left out`);
  if (!isGoing) words[0] = isStopped ? `Stopped after ${done} files` : `Done: ${done} files`;
  element("said").textContent = words.join(" · ");
  element("done").max = Math.max(1, total);
  element("done").value = done;
}

function show(file, { outcome, id, program, reason }) {
  const line = document.createElement("li");
  const name = document.createElement("span");
  name.className = "taken-name";
  name.textContent = file.webkitRelativePath || file.name;
  const words = document.createElement("span");
  words.className = outcome === "refused" ? "wrong" : "muted";
  if (outcome === "taken") words.textContent = program || PROGRAMLESS;
  else words.textContent = outcome === "duplicate" ? "is in the vault already" : reason;
  if (id) {
    const link = document.createElement("a");
    link.href = `/detail/${id}`;
    const picture = new Image(48, 48);
    picture.src = `/thumbnail/${id}`;
    picture.alt = "";
    link.append(picture, name);
    line.append(link, words);
  } else {
    line.append(name, words);
  }
  list.prepend(line);
  if (list.childElementCount > LISTED) list.lastElementChild.remove();
}

for (const id of ["files", "folder"]) {
  element(id).addEventListener("change", (event) => {
    add(event.target.files);
    event.target.value = "";
  });
}
element("stop").addEventListener("click", () => {
  isStopped = true;
});
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) drop.classList.remove("over");
});
document.addEventListener("drop", async (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  const files = [];
  for await (const file of dropped(event.dataTransfer.items)) files.push(file);
  add(files);
});
addEventListener("beforeunload", (event) => {
  if (isGoing) event.preventDefault();
});
