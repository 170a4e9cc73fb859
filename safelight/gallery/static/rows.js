// Rows of what is found, fetched in windows when they are looked at, and forgotten when far away.
import { ask } from "./safelight.js";

const WINDOW = 100; // rows a request
const KEPT = 60; // windows in memory
const AT_ONCE = 2; // requests under way

export class Rows {
  #windows = new Map(); // number -> rows, the least recently seen first
  #wanted = [];
  #running = 0;

  /** query: what is looked for. arrived: called when rows came. */
  constructor(query, arrived) {
    this.query = query;
    this.arrived = arrived;
  }

  /** The row at a place, or undefined while it is not here. */
  get(index) {
    return this.#windows.get(Math.floor(index / WINDOW))?.[index % WINDOW];
  }

  /** Fetch what lacks of the places [from, to); what was wanted before and is not now is dropped. */
  want(from, to) {
    const numbers = [];
    for (let number = Math.floor(from / WINDOW); number * WINDOW < to; number++) {
      const rows = this.#windows.get(number);
      if (rows === undefined) numbers.push(number);
      else if (rows) {
        this.#windows.delete(number);
        this.#windows.set(number, rows);
      }
    }
    this.#wanted = numbers;
    this.#next();
  }

  /** Give the rows of the places [from, to); those that are not all here are fetched. */
  async range(from, to) {
    const here = Array.from({ length: to - from }, (_, index) => this.get(from + index));
    if (here.every(Boolean)) return here;
    const rows = [];
    for (let start = from; start < to; start += 500) {
      const count = Math.min(500, to - start);
      const body = { query: this.query, start, count };
      rows.push(...(await ask("/api/window", body)).rows);
    }
    return rows;
  }

  async #next() {
    while (this.#wanted.length && this.#running < AT_ONCE) {
      const number = this.#wanted.shift();
      if (this.#windows.has(number)) continue;
      this.#windows.set(number, null); // under way
      this.#running++;
      this.#fetch(number).finally(() => {
        this.#running--;
        this.#next();
      });
    }
  }

  async #fetch(number) {
    try {
      const body = { query: this.query, start: number * WINDOW, count: WINDOW };
      this.#windows.set(number, (await ask("/api/window", body)).rows);
    } catch {
      this.#windows.delete(number);
      return;
    }
    for (const old of this.#windows.keys()) {
      if (this.#windows.size <= KEPT) break;
      this.#windows.delete(old);
    }
    this.arrived();
  }
}
