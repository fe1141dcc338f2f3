// The embedding map: every picture a point, alike ones near each other. Close enough, points become pictures.
// Drag to move, wheel or two fingers to zoom, click to search near.

import { useAnswer } from "./api.js";
import { Empty, IconButton, Problem, colour, html, onTheme, useSize } from "./parts.js";
import { searchWith, thumbnail } from "./pictures.js";
import { Buckets, painter } from "./points.js";
import { useEffect, useMemo, useRef, useState } from "./vendor/htm-preact.js";
import { several } from "./words.js";

const TILE = 112; // px: the most room of a picture on the map
const MOST_TILES = 240;
const MOST_IN_VIEW = 4000; // points in the window, up to which some become pictures
const ASK_AGAIN_MS = 700;

export function MapView() {
  const { data, error, again } = useAnswer("GET", "/map");
  useEffect(() => {
    if (data?.state !== "computing") return undefined;
    const timer = setTimeout(again, ASK_AGAIN_MS);
    return () => clearTimeout(timer);
  }, [data]);
  if (error) return html`<main class="page" id="main" tabindex="-1"><${Problem} error=${error} again=${again} /></main>`;
  if (!data) return html`<main class="map-view" id="main" tabindex="-1" />`;
  if (data.state === "ready" && data.ids.length) return html`<${Chart} map=${data} />`;
  return html`<main class="page" id="main" tabindex="-1">${data.state === "computing"
    ? html`<${Empty} icon="sparkles" title="Drawing the map"><p>Every picture gets its place beside those that look like it.</p><//>`
    : html`<${Empty} icon="map-pin" title="No map yet"><p>The map needs pictures. In a shell:</p><pre><code>mmsearch index ~/Pictures</code></pre><//>`}</main>`;
}

/** The axes mean nothing, only who is near whom: so the longer side of the window gets the longer axis, 0 to 1; the
 * other one lies around the middle. */
function spread(map, width, height) {
  const ratio = Math.max(0.55, Math.min(1.8, (width || 1) / (height || 1)));
  const [across, down] = ratio > 1 ? [1, 1 / ratio] : [ratio, 1];
  const x = (value) => 0.5 + (value - 0.5) * across;
  const y = (value) => 0.5 + (value - 0.5) * down;
  return [Float32Array.from(map.x, x), Float32Array.from(map.y, y), (map.labels ?? []).map((one) => ({ ...one, x: x(one.x), y: y(one.y) }))];
}

const whole = (width, height) => ({ x: 0.5, y: 0.5, scale: Math.max(width, height) * 0.86 });

const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

function Chart({ map }) {
  const room = useRef();
  const points = useRef();
  const top = useRef();
  const card = useRef();
  const { width, height } = useSize(room);
  const [over, setOver] = useState(-1);
  const state = useRef(null); // the view, changed without drawing the page again
  const known = width > 0;
  const [xs, ys, labels] = useMemo(() => spread(map, width, height), [map, known]);
  const buckets = useMemo(() => new Buckets(xs, ys), [xs]);
  const pictures = useRef(new Map());
  const paint = useRef(() => {});

  useEffect(() => {
    if (!width) return undefined;
    for (const canvas of [points.current, top.current]) {
      const ratio = Math.min(devicePixelRatio || 1, 2);
      [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    }
    const brush = painter(points.current, xs, ys);
    state.current ??= whole(width, height);
    let waiting = 0;
    let inks = null;
    const draw = () => {
      waiting = 0;
      inks ??= readInks();
      const view = state.current;
      const crowd = xs.length / Math.max(1, (view.scale / 900) ** 2);
      brush.draw(view, clamp(9 - Math.log10(crowd + 1) * 1.5, 2.5, 8), [...inks.point, xs.length > 20_000 ? 0.55 : 0.8]);
      drawTop(top.current, { view, width, height, labels, xs, ys, buckets, inks, picture });
      room.current.dataset.painted = [brush.kind, ...[view.x, view.y, view.scale].map((one) => one.toFixed(4))].join(" ");
    };
    const later = () => { waiting ||= requestAnimationFrame(draw); };
    const picture = (at) => {
      const id = map.ids[at];
      let image = pictures.current.get(id);
      if (!image) {
        image = new Image();
        image.onload = later;
        image.src = thumbnail(id, 96);
        pictures.current.set(id, image);
        if (pictures.current.size > 2000) pictures.current.delete(pictures.current.keys().next().value);
      }
      return image.complete && image.naturalWidth ? image : null;
    };
    paint.current = later;
    draw();
    const quiet = onTheme(() => { inks = null; later(); });
    return () => {
      cancelAnimationFrame(waiting);
      quiet();
    };
  }, [xs, width, height]);

  const bound = (view) => {
    const least = Math.max(width, height) * 0.5;
    return { x: clamp(view.x, -0.1, 1.1), y: clamp(view.y, -0.1, 1.1), scale: clamp(view.scale, least, least * 400) };
  };
  const look = (view) => {
    state.current = bound(view);
    setOver(-1);
    paint.current();
  };
  const zoom = (factor, px = width / 2, py = height / 2) => {
    const view = state.current;
    const { scale } = bound({ ...view, scale: view.scale * factor });
    const shift = (place, size) => (place - size / 2) * (1 / view.scale - 1 / scale);
    look({ x: view.x + shift(px, width), y: view.y + shift(py, height), scale });
  };
  useGestures(top, { look, zoom, state });
  const at = (px, py) => {
    const view = state.current;
    return buckets.nearest(view.x + (px - width / 2) / view.scale, view.y + (py - height / 2) / view.scale, 36 / view.scale);
  };
  const search = (place) => place >= 0 && searchWith({ image: map.ids[place] }, { alone: true });
  const keys = (event) => {
    const step = { ArrowLeft: [-60, 0], ArrowRight: [60, 0], ArrowUp: [0, -60], ArrowDown: [0, 60] }[event.key];
    const view = state.current;
    if (step) look({ ...view, x: view.x + step[0] / view.scale, y: view.y + step[1] / view.scale });
    else if (event.key === "+" || event.key === "=") zoom(1.5);
    else if (event.key === "-") zoom(1 / 1.5);
    else if (event.key === "Enter") search(buckets.nearest(view.x, view.y, 2));
    else return;
    event.preventDefault();
  };
  const hovered = (event) => event.pointerType === "mouse" && !event.buttons && setOver(at(event.offsetX, event.offsetY));
  const place = over >= 0 && state.current ? cardAt(xs[over], ys[over], state.current, width, height) : null;
  return html`<main class="map-view" id="main" tabindex="-1" ref=${room}>
    <canvas ref=${points} aria-hidden="true" />
    <canvas ref=${top} class="map-top" tabindex="0" role="application" data-over=${over >= 0 ? map.ids[over] : ""}
      aria-label="Map of all pictures, alike ones near each other. Arrows move, plus and minus zoom, Enter searches near the middle."
      onKeyDown=${keys} onPointerMove=${hovered} onPointerLeave=${() => setOver(-1)}
      onClick=${(event) => event.detail && !top.current.dragged && search(at(event.offsetX, event.offsetY))} />
    ${place && html`<div class="map-card" style=${place} ref=${card}><img src=${thumbnail(map.ids[over], 188)} alt="" /><p>Click to find what is near</p></div>`}
    <p class="map-note">${several(map.ids.length, "picture")}, alike ones near each other</p>
    <div class="map-tools"><${IconButton} icon="plus" label="Zoom in" onClick=${() => zoom(1.6)} /><${IconButton} icon="minus" label="Zoom out" onClick=${() => zoom(1 / 1.6)} />
      <${IconButton} icon="maximize" label="All of it" onClick=${() => look(whole(width, height))} /></div>
  </main>`;
}

/** Drag, wheel and two fingers. `dragged` on the element says that the click which follows is none. */
function useGestures(canvas, { look, zoom, state }) {
  const latest = useRef();
  latest.current = { look, zoom };
  useEffect(() => {
    const element = canvas.current;
    const fingers = new Map();
    const down = (event) => {
      element.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, [event.offsetX, event.offsetY]);
      if (fingers.size === 1) element.dragged = false;
    };
    const move = (event) => {
      const before = fingers.get(event.pointerId);
      if (!before) return;
      const now = [event.offsetX, event.offsetY];
      const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
      const view = state.current;
      if (!element.dragged && Math.hypot(now[0] - before[0], now[1] - before[1]) < 4) return;
      element.dragged = true;
      fingers.set(event.pointerId, now);
      if (other) latest.current.zoom(Math.hypot(now[0] - other[0], now[1] - other[1]) / Math.max(1, Math.hypot(before[0] - other[0], before[1] - other[1])), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
      else latest.current.look({ ...view, x: view.x - (now[0] - before[0]) / view.scale, y: view.y - (now[1] - before[1]) / view.scale });
    };
    const up = (event) => fingers.delete(event.pointerId);
    const wheel = (event) => {
      event.preventDefault();
      latest.current.zoom(Math.exp(-event.deltaY / 250), event.offsetX, event.offsetY);
    };
    const heard = { pointerdown: down, pointermove: move, pointerup: up, pointercancel: up, wheel };
    for (const [name, handler] of Object.entries(heard)) element.addEventListener(name, handler, { passive: false });
    return () => { for (const [name, handler] of Object.entries(heard)) element.removeEventListener(name, handler); };
  }, []);
}

function cardAt(x, y, view, width, height) {
  const px = (x - view.x) * view.scale + width / 2;
  const py = (y - view.y) * view.scale + height / 2;
  return { left: `${clamp(px + 24 + 200 > width ? px - 224 : px + 24, 8, width - 208)}px`, top: `${clamp(py - 90, 8, Math.max(8, height - 190))}px` };
}

function readInks() {
  const probe = document.createElement("canvas").getContext("2d");
  probe.fillStyle = colour("accent");
  probe.fillRect(0, 0, 1, 1);
  return { point: [...probe.getImageData(0, 0, 1, 1).data.slice(0, 3)], ink: colour("ink"), page: colour("page"), edge: colour("line") };
}

/** Pictures where there is room for them, and the labels. */
function drawTop(canvas, { view, width, height, labels, xs, ys, buckets, inks, picture }) {
  const brush = canvas.getContext("2d");
  const ratio = canvas.width / width;
  brush.setTransform(ratio, 0, 0, ratio, 0, 0);
  brush.clearRect(0, 0, width, height);
  const px = (x) => (x - view.x) * view.scale + width / 2;
  const py = (y) => (y - view.y) * view.scale + height / 2;
  const [halfX, halfY] = [width / 2 / view.scale, height / 2 / view.scale];
  const inView = [];
  for (const at of buckets.inside(view.x - halfX, view.y - halfY, view.x + halfX, view.y + halfY)) {
    if (inView.push(at) > MOST_IN_VIEW) break;
  }
  const tile = clamp(Math.sqrt((width * height) / (inView.length + 1)) * 0.85, 56, TILE);
  let drawn = 0;
  if (inView.length <= MOST_IN_VIEW) { // far away, points alone
    const taken = new Map();
    for (const at of inView.sort((one, other) => lot(one) - lot(other))) {
      const [x, y] = [px(xs[at]), py(ys[at])];
      if (!takes(taken, x, y, tile)) continue;
      const image = picture(at);
      if (image) drawPicture(brush, image, x, y, tile * 0.92, inks);
      drawn += 1;
      if (drawn >= MOST_TILES) break;
    }
  }
  drawLabels(brush, labels, px, (y) => py(y) + (drawn ? tile / 2 + 4 : 0), inks);
}

/** The same order of preference wherever the map is: pictures stay while it moves. */
const lot = (at) => Math.imul(at + 1, 2654435761) >>> 0;

/** Takes the room around a place, where none nearer than 0.8 tiles was taken. taken: cell -> places in it. */
function takes(taken, x, y, tile) {
  const [column, row] = [Math.floor(x / tile), Math.floor(y / tile)];
  for (let dx = -1; dx <= 1; dx += 1) {
    for (let dy = -1; dy <= 1; dy += 1) {
      for (const other of taken.get(`${column + dx},${row + dy}`) ?? []) {
        if (Math.hypot(other[0] - x, other[1] - y) < tile * 0.8) return false;
      }
    }
  }
  const key = `${column},${row}`;
  if (taken.has(key)) taken.get(key).push([x, y]);
  else taken.set(key, [[x, y]]);
  return true;
}

function drawPicture(brush, image, x, y, side, inks) {
  const scale = side / Math.max(image.naturalWidth, image.naturalHeight);
  const [width, height] = [image.naturalWidth * scale, image.naturalHeight * scale];
  brush.save();
  brush.beginPath();
  brush.roundRect(x - width / 2, y - height / 2, width, height, 5);
  brush.fillStyle = inks.page;
  brush.shadowColor = "#0006";
  brush.shadowBlur = 8;
  brush.shadowOffsetY = 2;
  brush.fill();
  brush.shadowColor = "transparent";
  brush.clip();
  brush.drawImage(image, x - width / 2, y - height / 2, width, height);
  brush.restore();
}

function drawLabels(brush, labels, px, py, inks) {
  const boxes = [];
  brush.font = "600 13px system-ui, sans-serif";
  brush.textAlign = "center";
  brush.textBaseline = "middle";
  brush.lineJoin = "round";
  for (const label of labels) {
    const [x, y] = [px(label.x), py(label.y)];
    const half = brush.measureText(label.text).width / 2 + 10;
    const box = [x - half, y - 13, x + half, y + 13];
    if (boxes.some((other) => box[0] < other[2] && box[2] > other[0] && box[1] < other[3] && box[3] > other[1])) continue;
    boxes.push(box);
    brush.beginPath();
    brush.roundRect(box[0], box[1], box[2] - box[0], box[3] - box[1], 13);
    brush.globalAlpha = 0.92;
    brush.fillStyle = inks.page;
    brush.fill();
    brush.strokeStyle = inks.edge;
    brush.lineWidth = 1;
    brush.stroke();
    brush.globalAlpha = 1;
    brush.fillStyle = inks.ink;
    brush.fillText(label.text, x, y + 0.5);
  }
}
