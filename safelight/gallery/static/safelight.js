// What every open page has: the lock, the keyboard, notices, and requests that carry our header.
import { bind, describe } from "./keys.js";

const csrf = document.querySelector('meta[name="safelight-csrf"]').content;
const channel = new BroadcastChannel("safelight");
const ASK_EVERY = 10_000; // milliseconds between two questions whether it is still unlocked
const DOUBLE = 600; // milliseconds within which the second Esc locks

/** Send a change; body: FormData fields as an object, or a Blob or buffer as it is. */
export async function send(path, body = {}, headers = {}) {
  const raw = body instanceof Blob || body instanceof ArrayBuffer || ArrayBuffer.isView(body);
  const answer = await fetch(path, {
    method: "POST",
    headers: { "X-Safelight-CSRF": csrf, ...headers },
    body: raw || typeof body === "string" ? body : new URLSearchParams(body),
  });
  if (answer.status === 401) goDark();
  return answer;
}

/** Ask for JSON, with form fields if there are any. quiet: nobody is there because of this. */
export async function ask(path, fields = null, quiet = false) {
  const headers = { Accept: "application/json" };
  if (quiet || !fields) headers["X-Safelight-Quiet"] = "1";
  const answer = fields ? await send(path, fields, headers) : await fetch(path, { headers });
  if (answer.status === 401) goDark();
  if (!answer.ok) throw new Error(await answer.text());
  return answer.json();
}

/** Say something to the person, seen and read aloud. action: {label, run}, a button beside it. */
export function notice(text, action = null) {
  const place = document.getElementById("notices");
  const box = document.createElement("div");
  box.className = "notice";
  box.append(text);
  if (action) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = action.label;
    button.addEventListener("click", () => {
      box.remove();
      action.run();
    });
    box.append(button);
  }
  place.replaceChildren(box);
  setTimeout(() => box.remove(), action ? 12_000 : 6_000);
}

/** Take everything off the screen at once, and show the unlock page. */
export function goDark() {
  document.documentElement.classList.add("dark");
  location.reload();
}

export async function lock() {
  document.documentElement.classList.add("dark");
  channel.postMessage("locked");
  await send("/lock");
  location.reload();
}

channel.onmessage = (message) => {
  if (message.data === "locked") goDark();
};

async function watch() {
  try {
    const answer = await fetch("/api/state", { headers: { "X-Safelight-Quiet": "1" } });
    if (answer.status === 401) goDark();
  } catch {
    // The server was stopped: what it showed is not left standing.
    clearInterval(watching);
    document.body.replaceChildren("The gallery was closed. You can close this page.");
  }
}
const watching = setInterval(watch, ASK_EVERY);

// Coming back by the history must not show what was locked meanwhile.
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});

document.getElementById("lock-button").addEventListener("click", lock);

const help = document.getElementById("help");
const SIGNS = {
  " ": "Space", ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓",
  Escape: "Esc", PageUp: "PgUp", PageDown: "PgDn",
};
function showHelp() {
  const list = document.getElementById("help-keys");
  list.replaceChildren();
  for (const { keys, text } of describe()) {
    const term = document.createElement("dt");
    for (const key of keys) {
      const cap = document.createElement("kbd");
      cap.textContent = SIGNS[key] ?? key;
      term.append(cap, " ");
    }
    const meaning = document.createElement("dd");
    meaning.textContent = text;
    const line = document.createElement("div");
    line.append(term, meaning);
    list.append(line);
  }
  help.showModal();
}
document.getElementById("help-button").addEventListener("click", showHelp);

let escaped = -Infinity;
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.repeat) return;
  const now = performance.now();
  if (now - escaped < DOUBLE) lock();
  escaped = now;
});

bind(["?"], "Show the keys of this page", showHelp);
bind(["Esc Esc"], "Lock at once", null);
bind(["L"], "Lock", lock);

document.addEventListener("htmx:response:error", async (event) => {
  const raw = event.detail?.ctx?.response?.raw;
  if (raw?.status === 401) goDark();
  else if (raw && raw.status !== 422) notice(event.detail.ctx.text || "That did not work.");
});
