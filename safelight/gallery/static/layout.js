// Where each picture of a long list lies: days one under the other, squares side by side.
// Everything is arithmetic on the days' counts, so that 200,000 pictures cost what their days cost.

const GAP = 6; // pixels between two pictures
const HEADING = 44; // pixels of a day's heading

export class Layout {
  /** width: pixels; size: the least side of a square; days: [[iso day, first, count]...] or []. */
  constructor(width, size, days, count) {
    const least = width < 520 ? 3 : 2;
    this.columns = Math.max(least, Math.floor((width + GAP) / (size + GAP)));
    this.side = (width - GAP * (this.columns - 1)) / this.columns;
    this.pitch = this.side + GAP;
    this.count = count;
    this.groups = [];
    const heading = days.length ? HEADING : 0;
    let top = 0;
    for (const [day, first, number] of days.length ? days : count ? [["", 0, count]] : []) {
      const rows = Math.ceil(number / this.columns);
      const height = heading + rows * this.pitch;
      this.groups.push({ day, first, count: number, top, body: top + heading, bottom: top + height });
      top += height;
    }
    this.height = top;
  }

  /** The last group that begins at or before a height, or a place in the list. */
  #at(value, key) {
    let low = 0;
    let high = this.groups.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.groups[middle][key] <= value) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  groupAt(y) {
    return this.groups[this.#at(y, "top")];
  }

  groupOf(index) {
    return this.groups[this.#at(index, "first")];
  }

  /** Where picture `index` lies: {x, y}, pixels from the top left. */
  place(index) {
    const group = this.groupOf(index);
    const within = index - group.first;
    return {
      x: (within % this.columns) * this.pitch,
      y: group.body + Math.floor(within / this.columns) * this.pitch,
    };
  }

  /** The groups that show between two heights, and the places [from, to) of their pictures. */
  visible(top, bottom) {
    if (!this.groups.length) return { groups: [], from: 0, to: 0 };
    const one = this.#at(Math.max(0, top), "top");
    const two = this.#at(Math.max(0, bottom), "top");
    const [begin, end] = [this.groups[one], this.groups[two]];
    const skipped = Math.max(0, Math.floor((top - begin.body) / this.pitch)) * this.columns;
    const shown = Math.max(0, Math.ceil((bottom - end.body) / this.pitch)) * this.columns;
    return {
      groups: this.groups.slice(one, two + 1),
      from: begin.first + Math.min(begin.count, skipped),
      to: end.first + Math.min(end.count, shown),
    };
  }

  /** The picture above (-1) or below (1) of another, in its column as far as there is one. */
  vertical(index, step) {
    const group = this.groupOf(index);
    const column = (index - group.first) % this.columns;
    const row = Math.floor((index - group.first) / this.columns) + step;
    const rows = Math.ceil(group.count / this.columns);
    if (row >= 0 && row < rows) {
      return group.first + Math.min(group.count - 1, row * this.columns + column);
    }
    const next = this.groups[this.groups.indexOf(group) + step];
    if (!next) return index;
    const last = step < 0 ? Math.ceil(next.count / this.columns) - 1 : 0;
    return next.first + Math.min(next.count - 1, last * this.columns + column);
  }
}
