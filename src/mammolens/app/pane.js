// One picture of the viewer: what Python says of it, its pixels, its canvas, and where it lies on it.

class Pane {
  constructor() {
    this.element = document.createElement("figure");
    this.element.innerHTML = `<figcaption><b></b> <span></span><small></small></figcaption>
      <div class="picture" role="button" tabindex="0"><canvas></canvas></div>`;
    [this.picture, this.canvas] = [".picture", "canvas"].map((one) => this.element.querySelector(one));
    this.asked = new Set();
    this.waiting = 0;
  }

  label(chosen) {
    ["b", "span", "small"].forEach((one, at) => (this.element.querySelector(one).textContent = this.caption[at]));
    this.element.classList.toggle("chosen", chosen);
    this.picture.setAttribute("aria-label", this.told);
    this.picture.setAttribute("aria-pressed", chosen);
    this.element.dataset.view = this.caption[0];
    this.picture.style.aspectRatio = `${this.width} / ${this.height}`;
  }

  /** Fetch what is not yet at hand, the overview before the whole. */
  async load(done) {
    const once = async (url, read, take) => {
      if (!url || this.asked.has(url)) return;
      this.asked.add(url);
      this.waiting++;
      try {
        take(await read(url));
      } catch (error) {
        console.error(error);
      }
      this.waiting--;
      done();
    };
    await once(this.overview, unpacked, (picture) => (this.levels ??= pyramid(picture)));
    await once(this.heat, imageAt, (image) => (this.heatImage = image));
    await once(this.full, unpacked, (picture) => (this.levels = pyramid(picture)));
  }

  /** 1 where u, the way from the chest wall, grows to the right of the screen. */
  get sign() {
    return this.wall === "right" ? -1 : 1;
  }

  resize() {
    this.ratio = devicePixelRatio || 1;
    const width = Math.round(this.picture.clientWidth * this.ratio);
    const height = Math.round(this.picture.clientHeight * this.ratio);
    if (this.canvas.width !== width) this.canvas.width = width;
    if (this.canvas.height !== height) this.canvas.height = height;
  }

  middle() {
    return { x: this.canvas.width / 2, y: this.canvas.height / 2 };
  }

  /** Return the place on the canvas of a point of the screen. */
  place(x, y) {
    const box = this.canvas.getBoundingClientRect();
    return { x: (x - box.left) * this.ratio, y: (y - box.top) * this.ratio };
  }

  /** Return canvas pixels a unit at which the picture fits. */
  fitting() {
    return Math.min(this.canvas.width / this.width, this.canvas.height / this.height) / this.unit;
  }

  /** Return the view of the whole picture: its chest wall, where known, at the side of the pane. */
  whole(scale) {
    const u = this.wall ? this.canvas.width / 2 / scale : (this.width * this.unit) / 2;
    return { scale, u, v: 0 };
  }

  /** Return which place, in units from the chest wall and from the middle of its height, lies at a canvas point. */
  world(view, point) {
    const middle = this.middle();
    const across = this.sign * (point.x - middle.x), down = point.y - middle.y;
    return { u: view.u + across / view.scale, v: view.v + down / view.scale };
  }

  /** Return where on the canvas the whole picture lies. */
  lies(view) {
    const middle = this.middle();
    const width = this.width * this.unit * view.scale, height = this.height * this.unit * view.scale;
    const wall = middle.x - this.sign * view.u * view.scale;
    const [left, top] = [this.sign > 0 ? wall : wall - width, middle.y - view.v * view.scale - height / 2];
    return { left: Math.round(left), top: Math.round(top), width, height };
  }

  /** Return {low, high, shape} of the contrast window: shares of the range of values, and what lies between. */
  window({ preset, shift, stretch }) {
    const [low, high, shape] = this.windows[preset] ?? this.windows.file;
    const middle = (low + high) / 2 + shift * (high - low), half = ((high - low) * stretch) / 2;
    return { low: middle - half, high: middle + half, shape };
  }

  draw(viewer) {
    const context = this.canvas.getContext("2d");
    const view = viewer.view ?? this.whole(viewer.fitting);
    const place = this.lies(view);
    this.tooCoarse = Boolean(this.levels) && this.levels[0].width < Math.min(place.width, this.width) / 1.05;
    const { left, top, width } = place;
    Object.assign(this.picture.dataset, { left, top, width, resolution: this.levels?.[0].width ?? 0 }); // for tests
    this.element.classList.toggle("loading", this.waiting > 0 || (this.tooCoarse && this.full === null));
    if (!this.levels) return;
    paint(context, this.levels, shades(this.window(viewer.windowing), viewer.inverted), place, this.mirrored);
    if (viewer.heat && this.heatImage) paintHeat(context, this.heatImage, viewer.opacity, place, this.mirrored);
    if (this.spacing) paintScale(context, place.width / this.width / this.spacing, this.ratio);
  }
}

async function imageAt(url) {
  return createImageBitmap(await (await fetched(url)).blob());
}
