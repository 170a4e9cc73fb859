// The strip beside the grid: months along its height, and the day under the pointer.

const BETWEEN = 22; // pixels between two labels at least

const month = new Intl.DateTimeFormat(undefined, { month: "short" });
const whole = new Intl.DateTimeFormat(undefined, { dateStyle: "long" });

/** A day as people write it; iso: YYYY-MM-DD, local. */
export function written(iso) {
  return whole.format(new Date(`${iso}T12:00`));
}

export class Timeline {
  /** strip, scroller: elements. The strip moves what the scroller shows. */
  constructor(strip, scroller) {
    this.strip = strip;
    this.scroller = scroller;
    this.layout = null;
    this.labels = strip.querySelector(".labels");
    this.mark = strip.querySelector(".mark");
    this.tip = strip.querySelector(".tip");
    strip.addEventListener("pointerdown", (event) => {
      strip.setPointerCapture(event.pointerId);
      this.#go(event);
    });
    strip.addEventListener("pointermove", (event) => {
      this.#point(event);
      if (event.buttons) this.#go(event);
    });
    strip.addEventListener("pointerleave", () => (this.tip.hidden = true));
  }

  /** Draw the labels for a layout. */
  show(layout) {
    this.layout = layout;
    const height = this.strip.clientHeight;
    this.strip.hidden = layout.height <= this.scroller.clientHeight || !layout.groups[0]?.day;
    this.labels.replaceChildren();
    let last = -BETWEEN;
    let year = "";
    let before = "";
    for (const group of layout.groups) {
      const y = (group.top / layout.height) * height;
      if (!group.day || group.day.slice(0, 7) === before) continue;
      before = group.day.slice(0, 7);
      if (y - last < BETWEEN || y > height - 12) continue;
      const label = document.createElement("span");
      const isNewYear = group.day.slice(0, 4) !== year;
      year = group.day.slice(0, 4);
      label.textContent = isNewYear ? year : month.format(new Date(`${group.day}T12:00`));
      label.className = isNewYear ? "year" : "";
      label.style.top = `${y}px`;
      this.labels.append(label);
      last = y;
    }
    this.moved();
  }

  /** Put the mark where the scroller is. */
  moved() {
    const { scrollTop, scrollHeight } = this.scroller;
    this.mark.style.top = `${(scrollTop / Math.max(1, scrollHeight)) * 100}%`;
  }

  #share(event) {
    const box = this.strip.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientY - box.top) / box.height));
  }

  #go(event) {
    this.scroller.scrollTop = this.#share(event) * this.layout.height;
  }

  #point(event) {
    const group = this.layout?.groupAt(this.#share(event) * this.layout.height);
    this.tip.hidden = !group?.day;
    if (!group?.day) return;
    this.tip.textContent = written(group.day);
    this.tip.style.top = `${this.#share(event) * 100}%`;
  }
}
