// A picture on its stage: zoom and pan by wheel, pointer, pinch and keys.
const MOST = 40; // times the fitting size
const STEP = 1.25;

export class Stage {
  /** stage: the box; image: in it; said(text): how large it is now, in words. */
  constructor(stage, image, said) {
    this.stage = stage;
    this.image = image;
    this.said = said;
    this.pointers = new Map();
    this.fit();
    stage.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    stage.addEventListener("pointerdown", (event) => this.down(event));
    stage.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) {
      stage.addEventListener(name, (event) => this.pointers.delete(event.pointerId));
    }
    stage.addEventListener("dblclick", (event) => {
      if (!event.target.closest("a, button")) this.toggle(event);
    });
    image.addEventListener("load", () => this.place());
  }

  /** How many times the fitting size one pixel to one is. */
  get natural() {
    const { naturalWidth, naturalHeight } = this.image;
    if (!naturalWidth) return 1;
    const box = this.image.getBoundingClientRect();
    const shown = Math.min(box.width / this.zoom / naturalWidth, box.height / this.zoom / naturalHeight);
    return 1 / (shown * devicePixelRatio);
  }

  get isFitting() {
    return this.zoom === 1 && this.x === 0 && this.y === 0;
  }

  fit() {
    this.zoom = 1;
    this.x = 0;
    this.y = 0;
    this.place();
  }

  toggle(event = null) {
    if (this.isFitting) this.to(this.natural > 1.05 || this.natural < 0.95 ? this.natural : 2, event);
    else this.fit();
  }

  by(factor, event = null) {
    this.to(this.zoom * factor, event);
  }

  /** Zoom so that what lies under the pointer stays there. */
  to(zoom, event = null) {
    const next = Math.min(MOST, Math.max(0.1, zoom));
    const box = this.stage.getBoundingClientRect();
    const px = (event?.clientX ?? box.left + box.width / 2) - box.left - box.width / 2;
    const py = (event?.clientY ?? box.top + box.height / 2) - box.top - box.height / 2;
    const ratio = next / this.zoom;
    this.x = px - (px - this.x) * ratio;
    this.y = py - (py - this.y) * ratio;
    this.zoom = next;
    this.place();
  }

  pan(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.place();
  }

  place() {
    // Never wholly out of sight.
    const limitX = (this.stage.clientWidth * (1 + this.zoom)) / 2 - 60;
    const limitY = (this.stage.clientHeight * (1 + this.zoom)) / 2 - 60;
    this.x = Math.max(-limitX, Math.min(limitX, this.x));
    this.y = Math.max(-limitY, Math.min(limitY, this.y));
    this.image.style.transform = `translate(${this.x}px, ${this.y}px) scale(${this.zoom})`;
    this.image.classList.toggle("crisp", !this.isFitting && this.zoom > this.natural * 4);
    this.stage.classList.toggle("zoomed", !this.isFitting);
    this.said(this.isFitting ? "Fit" : `${Math.round((this.zoom / this.natural) * 100)} %`);
  }

  wheel(event) {
    if (event.target.closest(".stage-top")) return;
    event.preventDefault();
    this.by(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), event);
  }

  down(event) {
    if (event.target.closest("a, button")) return;
    this.pointers.set(event.pointerId, event);
    this.stage.setPointerCapture(event.pointerId);
  }

  move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    if (this.pointers.size === 2) {
      const other = [...this.pointers.values()].find((each) => each.pointerId !== event.pointerId);
      const was = Math.hypot(before.clientX - other.clientX, before.clientY - other.clientY);
      const is = Math.hypot(event.clientX - other.clientX, event.clientY - other.clientY);
      if (was > 0) this.by(is / was, event);
    } else if (!this.isFitting || event.pointerType === "mouse") {
      this.pan(event.clientX - before.clientX, event.clientY - before.clientY);
    }
    this.pointers.set(event.pointerId, event);
  }
}
