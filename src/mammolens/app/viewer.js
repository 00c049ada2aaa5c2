// The viewer: panes that zoom, pan and window together, their controls and keys. Panes are in pane.js, pixels in
// pixels.js: Python joins them.

const NEAREST = 16; // canvas pixels of one of the picture, at most
const STEP = 1.25; // of zooming by key or button
const STILL = 4; // pixels that a click may wander
const KEYS = {
  "+": "zoomIn", "=": "zoomIn", "-": "zoomOut", f: "fit", 1: "actual", i: "invert", h: "heat", w: "drag", v: "together",
  n: "next", p: "previous", "?": "help", Enter: "choose", " ": "choose",
};
const HELP = `Drag moves, or sets contrast (w changes which). Shift and drag, or the right button, always sets contrast: right
  for more contrast, up for brighter. The wheel, two fingers, + and − zoom; a double click or f shows the whole picture,
  1 one of its pixels as one of the screen. Arrows move, with Shift they set contrast. i inverts, h shows heat, v one view
  or all; n and p go to the next and the previous picture, a click or Enter chooses one. Millimetres hold at the
  detector.`;

const CONTROLS = `
  <div class="controls" role="group" aria-label="How pictures are shown">
    <button data-do="fit" title="Whole picture (f)">Fit</button>
    <button data-do="actual" title="One pixel of the picture on one of the screen (1)">1:1</button>
    <button data-do="zoomOut" class="wide" aria-label="Zoom out" title="Zoom out (-)">−</button>
    <button data-do="zoomIn" class="wide" aria-label="Zoom in" title="Zoom in (+)">+</button>
    <button data-do="drag" aria-pressed="false" title="Drag sets contrast, not place (w)">Drag: contrast</button>
    <label>Contrast <select aria-label="Contrast window"></select></label>
    <output aria-label="Window, % of the picture's range" aria-live="off"></output>
    <button data-do="invert" aria-pressed="false" title="Invert grey levels (i)">Invert</button>
    <button data-do="heat" aria-pressed="true" title="Where the network looked (h)">Heatmap</button>
    <label class="heat">Opacity
      <input type="range" min="5" max="100" step="5" value="50" aria-label="Heatmap opacity, %"></label>
    <button data-do="together" aria-pressed="true" title="All views, or one (v)">Side by side</button>
    <button data-do="help" aria-expanded="false" aria-label="Help: mouse and keys" title="Help (?)">?</button>
  </div>
  <p class="help" hidden>${HELP}</p>
  <div class="views"></div>`;

class Viewer {
  constructor(root) {
    this.root = root;
    root.innerHTML = CONTROLS;
    this.panes = [];
    this.view = null; // centre {u, v} and scale shared by all panes; null is fit
    this.windowing = { preset: "file", shift: 0, stretch: 1 };
    Object.assign(this, { inverted: false, heat: true, opacity: 0.5, contrastDrag: false, together: true });
    this.find = (selector) => root.querySelector(selector);
    this.listen();
    this.sizes = new ResizeObserver(() => this.draw());
  }

  /** Take what Python says: see `viewer.shown`. Zoom, contrast and pixels at hand outlive it. */
  take({ data, setTriggerValue }) {
    this.tell = setTriggerValue;
    const key = (one) => `${one.number} ${one.overview}`;
    const before = new Map(this.panes.map((pane) => [key(pane), pane]));
    const known = data.panes.every((one) => before.has(key(one))) && this.panes.length === data.panes.length;
    if (data.number !== this.data?.number) this.chosen = data.number;
    this.data = data;
    this.asked = null;
    this.panes = data.panes.map((one) => Object.assign(before.get(key(one)) ?? new Pane(), one));
    if (!known) this.hang();
    for (const pane of this.panes) {
      pane.load(() => this.draw());
      pane.label(pane.number === this.chosen);
    }
    this.find(".heat").hidden = this.find("[data-do=heat]").hidden = !this.panes.some((pane) => pane.heat);
    this.find("[data-do=together]").hidden = this.panes.length < 2;
    this.find("select").replaceChildren(...data.presets.map(([value, name]) => new Option(name, value)));
    if (!data.presets.some(([value]) => value === this.windowing.preset)) this.windowing.preset = "file";
    this.draw();
  }

  /** Lay out panes in their rows; pictures of another exam start whole. */
  hang() {
    const focused = this.root.getRootNode().activeElement?.classList.contains("picture");
    this.view = null;
    this.sizes.disconnect();
    const rows = this.data.rows.map((row) => {
      const line = document.createElement("div");
      line.className = row.length > 1 ? "row" : "row single";
      line.append(...row.map((at) => (at === null ? document.createElement("div") : this.panes[at].element)));
      return line;
    });
    this.find(".views").replaceChildren(...rows);
    for (const pane of this.panes) this.sizes.observe(pane.canvas);
    if (focused) this.active.picture.focus();
  }

  get active() {
    return this.panes.find((pane) => pane.number === this.chosen) ?? this.panes[0];
  }

  get visible() {
    return this.together ? this.panes : [this.active];
  }

  /** Give all panes one unit: millimetres where all have them, else heights of the picture. */
  measure() {
    const spaced = this.panes.every((pane) => pane.spacing);
    for (const pane of this.panes) pane.unit = spaced ? pane.spacing : 1 / pane.height;
    this.fitting = Math.min(...this.visible.map((pane) => pane.fitting()));
  }

  draw() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = null;
      this.controls();
      for (const pane of this.panes) pane.element.hidden = !this.visible.includes(pane);
      for (const pane of this.panes) pane.resize();
      this.measure();
      const smallest = Math.min(this.fitting, 1 / this.active.unit) * 1.001;
      this.find("[data-do=fit]").setAttribute("aria-disabled", this.view === null);
      this.find("[data-do=zoomOut]").setAttribute("aria-disabled", (this.view?.scale ?? this.fitting) <= smallest);
      for (const pane of this.visible) pane.draw(this);
      this.refine();
    });
  }

  /** Ask for the whole of a picture that is shown finer than what is at hand: one at a time, the chosen one first. */
  refine() {
    if (this.asked !== null) return;
    const coarse = [this.active, ...this.visible].find((pane) => pane.tooCoarse && pane.full === null);
    if (!coarse) return;
    this.asked = coarse.number;
    this.tell("wanted", coarse.number);
  }

  /** Show which controls are on. */
  controls() {
    const press = (name, on) => this.find(`[data-do=${name}]`).setAttribute("aria-pressed", on);
    press("invert", this.inverted);
    press("heat", this.heat);
    press("drag", this.contrastDrag);
    press("together", this.together);
    this.find("select").value = this.windowing.preset;
    const { low, high } = this.active.window(this.windowing);
    this.find("output").value = `${Math.round(100 * low)}–${Math.round(100 * high)} %`;
    this.root.classList.toggle("alone", !this.together);
    this.root.classList.toggle("zoomed", this.view !== null || this.contrastDrag);
    this.root.classList.toggle("contrast", this.contrastDrag);
  }

  listen() {
    const { root } = this;
    root.addEventListener("click", (event) => {
      const pane = event.detail === 0 && this.panes.find((one) => one.picture === event.target); // a screen reader's
      if (pane) this.choose(pane.number);
      else this.do(event.target.closest("[data-do]")?.dataset.do);
    });
    root.addEventListener("keydown", (event) => this.key(event));
    this.find("select").addEventListener("change", ({ target }) =>
      this.set({ preset: target.value, shift: 0, stretch: 1 }));
    this.find("input").addEventListener("input", (event) => {
      this.opacity = event.target.value / 100;
      this.heat = true;
      this.draw();
    });
    const views = this.find(".views");
    const pointers = new Map();
    const on = (kind, act) =>
      views.addEventListener(kind, (event) => {
        const pane = this.panes.find((one) => one.picture === event.target);
        if (pane) act(event, pane);
      }, { passive: false });
    on("pointerdown", (event, pane) => {
      pane.picture.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
      this.wandered = pointers.size > 1 || event.button === 2;
    });
    on("pointermove", (event, pane) => pointers.has(event.pointerId) && this.drag(event, pane, pointers));
    on("pointerup", (event, pane) => {
      pointers.delete(event.pointerId);
      if (!this.wandered && !pointers.size) this.choose(pane.number);
    });
    on("pointercancel", (event) => pointers.delete(event.pointerId));
    on("contextmenu", (event) => event.preventDefault());
    on("dblclick", () => this.do("fit"));
    on("wheel", (event, pane) => {
      if (this.view === null && event.deltaY > 0) return; // the page may scroll
      event.preventDefault();
      const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
      this.zoom(Math.exp((-event.deltaY * lines) / 400), pane, pane.place(event.clientX, event.clientY));
    });
  }

  /** Move, zoom or window by what pointers did; `pointers` has where they were. */
  drag(event, pane, pointers) {
    const before = pointers.get(event.pointerId), now = { x: event.clientX, y: event.clientY };
    const dx = now.x - before.x, dy = now.y - before.y;
    if (!this.wandered && Math.hypot(dx, dy) < STILL) return;
    this.wandered = true;
    pointers.set(event.pointerId, now);
    const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
    if (other) {
      const ratio = Math.hypot(now.x - other.x, now.y - other.y) / Math.hypot(before.x - other.x, before.y - other.y);
      this.move(dx / 2, dy / 2, pane);
      this.zoom(ratio, pane, pane.place((now.x + other.x) / 2, (now.y + other.y) / 2));
    } else if (this.contrastDrag || event.shiftKey || event.buttons === 2) this.contrast(dx, dy);
    else this.move(dx, dy, pane);
  }

  /** Change contrast and brightness by as many pixels of dragging. */
  contrast(dx, dy) {
    const { shift, stretch } = this.windowing;
    const wider = stretch * Math.exp(-dx / 200);
    this.set({ shift: shift + (dy / 300) * stretch, stretch: Math.min(8, Math.max(0.01, wider)) });
  }

  set(change) {
    Object.assign(this.windowing, change);
    this.draw();
  }

  /** Zoom by a factor; the point {x, y} of a pane's canvas, else its middle, stays where it is. */
  zoom(factor, pane = this.active, point = pane.middle()) {
    const view = this.view ?? pane.whole(this.fitting);
    const farthest = Math.min(this.fitting, 1 / pane.unit); // small pictures are larger than 1:1 when they fit
    const scale = Math.min(Math.max(view.scale * factor, farthest), NEAREST / pane.unit);
    const { u, v } = pane.world(view, point), middle = pane.middle();
    this.view = {
      scale,
      u: u - (pane.sign * (point.x - middle.x)) / scale,
      v: v - (point.y - middle.y) / scale,
    };
    if (Math.abs(scale / this.fitting - 1) < 0.001) this.view = null;
    this.draw();
  }

  /** Move by screen pixels of a pane: views whose chest walls face each other move as mirror images. */
  move(dx, dy, pane = this.active) {
    if (!this.view) return;
    const { ratio } = pane, { scale, u, v } = this.view;
    const within = (value, low, high) => Math.min(Math.max(value, low), high);
    const half = (pane.height * pane.unit) / 2;
    this.view.u = within(u - (pane.sign * dx * ratio) / scale, 0, pane.width * pane.unit);
    this.view.v = within(v - (dy * ratio) / scale, -half, half);
    this.draw();
  }

  /** Go to the next picture of all on the page, or to the previous one. */
  step(by) {
    const { numbers } = this.data;
    this.choose(numbers.at((numbers.indexOf(this.chosen) + by) % numbers.length));
  }

  choose(number) {
    this.chosen = number;
    for (const pane of this.panes) pane.label(pane.number === this.chosen);
    if (this.chosen !== this.data.number) this.tell("chosen", this.chosen);
    this.draw();
  }

  do(what) {
    const { active } = this;
    const deeds = {
      fit: () => (this.view = null),
      actual: () => {
        const { u, v } = this.view ?? active.whole(this.fitting);
        this.view = { u, v, scale: 1 / active.unit };
      },
      zoomIn: () => this.zoom(STEP),
      zoomOut: () => this.zoom(1 / STEP),
      invert: () => (this.inverted = !this.inverted),
      heat: () => (this.heat = !this.heat),
      drag: () => (this.contrastDrag = !this.contrastDrag),
      together: () => (this.together = !this.together),
      next: () => this.step(1),
      previous: () => this.step(-1),
      help: () => {
        const help = this.find(".help");
        help.hidden = !help.hidden;
        this.find("[data-do=help]").setAttribute("aria-expanded", !help.hidden);
      },
    };
    deeds[what]?.();
    if (what) this.draw();
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const pane = this.panes.find((one) => one.picture === event.target);
    const deed = event.target.tagName === "SELECT" ? null : KEYS[event.key];
    const arrow = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    let done = true;
    if (pane && arrow && event.shiftKey) this.contrast(-20 * arrow[0], -20 * arrow[1]);
    else if (pane && arrow) this.move(60 * arrow[0], 60 * arrow[1], pane);
    else if (pane && deed === "choose") this.choose(pane.number);
    else if (deed && deed !== "choose") this.do(deed);
    else done = false;
    event.stopPropagation(); // the page's own keys are for elsewhere
    if (done) event.preventDefault();
  }
}

const viewers = new WeakMap();

export default function (component) {
  const root = component.parentElement.querySelector(".viewer");
  if (!viewers.has(root)) viewers.set(root, new Viewer(root));
  viewers.get(root).take(component);
}
