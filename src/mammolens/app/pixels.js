// Packed pixels → levels of detail → a canvas, through a contrast window. Knows nothing of the page.

const COARSEST = 512; // pixels of the longer side from which no smaller level is worth its memory

/** Fetch what no browser may keep on disk. */
async function fetched(url) {
  const answer = await fetch(url, { cache: "no-store" });
  if (!answer.ok) throw new Error(`${url}: ${answer.status}`);
  return answer;
}

/** Fetch and unpack what `viewer.packed` made: a picture {width, height, values}, values in 0..65535. */
async function unpacked(url) {
  const answer = await fetched(url);
  const inflated = answer.body.pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(inflated).arrayBuffer();
  const [width, height, count] = new Uint32Array(buffer, 0, 3);
  const levels = new Uint16Array(buffer, 12, count);
  const low = new Uint8Array(buffer, 12 + 2 * count, width * height);
  const wide = count > 256;
  const high = wide ? new Uint8Array(buffer, 12 + 2 * count + width * height, width * height) : null;
  const values = new Uint16Array(width * height);
  const mask = wide ? 0xffff : 0xff;
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0, rank = 0; x < width; x++, at++) {
      rank = (rank + low[at] + (wide ? high[at] << 8 : 0)) & mask;
      values[at] = levels[rank];
    }
  }
  return { width, height, values };
}

/** Return the picture at half its size, each pixel the mean of four. */
function halved({ width, height, values }) {
  const across = width >> 1, down = height >> 1;
  const half = new Uint16Array(across * down);
  for (let y = 0, to = 0; y < down; y++) {
    for (let x = 0, at = 2 * y * width; x < across; x++, at += 2) {
      half[to++] = (values[at] + values[at + 1] + values[at + width] + values[at + width + 1] + 2) >> 2;
    }
  }
  return { width: across, height: down, values: half };
}

/** Return a picture at its own size and at ever smaller ones. */
function pyramid(picture) {
  const levels = [picture];
  while (Math.max(levels.at(-1).width, levels.at(-1).height) > COARSEST) levels.push(halved(levels.at(-1)));
  return levels;
}

/** Return the grey level of each value in 0..65535 through a window of shares of this range; see Python's `Window`. */
function shades({ low, high, shape }, inverted) {
  const greys = new Uint8ClampedArray(65536);
  const black = low * 65535, width = Math.max((high - low) * 65535, 1);
  const curves = { linear: (share) => share, sigmoid: (share) => 1 / (1 + Math.exp(-4 * (share - 0.5))) };
  const curve = curves[shape] ?? ((share) => between(shape, share));
  for (let value = 0; value < 65536; value++) {
    const grey = 255 * curve((value - black) / width);
    greys[value] = inverted ? 255 - Math.min(255, Math.max(0, grey)) : grey;
  }
  return greys;
}

/** Return what lies at a share of the way through a list of numbers. */
function between(list, share) {
  const place = Math.min(Math.max(share, 0), 1) * (list.length - 1), at = Math.floor(place);
  return list[at] + (list[Math.min(at + 1, list.length - 1)] - list[at]) * (place - at);
}

/**
 * Draw a part of a picture: bilinear between pixels of the smallest level that is as fine as the canvas.
 *
 * @param context of the canvas, which is cleared.
 * @param levels as `pyramid` returns them, of a picture of any resolution.
 * @param greys as `shades` returns them.
 * @param place {left, top, width, height} of the whole picture on the canvas, in its pixels.
 * @param mirrored whether left and right change places.
 */
function paint(context, levels, greys, place, mirrored) {
  const { width: across, height: down } = context.canvas;
  context.clearRect(0, 0, across, down);
  const first = Math.max(0, Math.ceil(place.left)), end = Math.min(across, Math.floor(place.left + place.width));
  const top = Math.max(0, Math.ceil(place.top)), bottom = Math.min(down, Math.floor(place.top + place.height));
  if (end <= first || bottom <= top) return;
  const fine = levels.filter((level) => level.width >= 0.999 * place.width);
  const { width, height, values } = fine.at(-1) ?? levels[0];
  const columns = sampled(first, end, place.left, place.width, width);
  if (mirrored) columns.forEach((one) => Object.assign(one, { at: width - 1 - one.at, next: width - 1 - one.next }));
  const rows = sampled(top, bottom, place.top, place.height, height);
  const image = context.createImageData(end - first, bottom - top);
  const pixels = new Uint32Array(image.data.buffer);
  let to = 0;
  for (const { at: row, next: below, share: v } of rows) {
    const upper = row * width, lower = below * width;
    for (const { at, next, share: u } of columns) {
      const above = values[upper + at] * (1 - u) + values[upper + next] * u;
      const beneath = values[lower + at] * (1 - u) + values[lower + next] * u;
      pixels[to++] = 0xff000000 | (greys[Math.round(above + (beneath - above) * v)] * 0x010101);
    }
  }
  context.putImageData(image, first, top);
}

/** Return, for canvas pixels [first, end), the two pixels around each and how near it is to the second. */
function sampled(first, end, start, length, count) {
  return Array.from({ length: end - first }, (_, index) => {
    const place = ((first + index + 0.5 - start) * count) / length - 0.5;
    const inside = Math.min(Math.max(place, 0), count - 1);
    const at = Math.floor(inside + 1e-6);
    return { at, next: Math.min(at + 1, count - 1), share: Math.max(0, inside - at) };
  });
}

/** Draw heat, an image of the whole picture, over it. */
function paintHeat(context, heat, opacity, place, mirrored) {
  context.save();
  context.globalAlpha = opacity;
  context.translate(place.left + (mirrored ? place.width : 0), place.top);
  context.scale(mirrored ? -1 : 1, 1);
  context.drawImage(heat, 0, 0, place.width, place.height);
  context.restore();
}

/** Draw a bar of a round length in millimetres at the lower edge; `perMillimetre` is in canvas pixels. */
function paintScale(context, perMillimetre, ratio) {
  const { width, height } = context.canvas;
  const length = [100, 50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1].find((one) => one * perMillimetre < width / 3);
  if (!length) return;
  const bar = length * perMillimetre, left = 10 * ratio, bottom = height - 10 * ratio;
  context.font = `${12 * ratio}px sans-serif`;
  for (const [colour, thickness] of [["#000", 4], ["#fff", 2]]) {
    context.strokeStyle = colour;
    context.lineWidth = thickness * ratio;
    context.beginPath();
    context.moveTo(left, bottom - 5 * ratio);
    context.lineTo(left, bottom);
    context.lineTo(left + bar, bottom);
    context.lineTo(left + bar, bottom - 5 * ratio);
    context.stroke();
  }
  context.lineWidth = 3 * ratio;
  context.strokeStyle = "#000";
  context.fillStyle = "#fff";
  context.strokeText(`${length} mm`, left + 4 * ratio, bottom - 6 * ratio);
  context.fillText(`${length} mm`, left + 4 * ratio, bottom - 6 * ratio);
}
