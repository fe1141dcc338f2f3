// Where pictures were taken: a map of the world's land, points in heaps; a click on a heap keeps what is around it.

import { IconButton, colour, html, onTheme, useSize } from "./parts.js";
import { useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { several } from "./words.js";

const HEAP = 22; // px: points nearer than this are one heap
const KM_ROUND = 40075;
let land = null; // the outlines of the land, as rings of points in the projection; loaded once

async function loadLand() {
  if (land) return land;
  await import("./vendor/topojson-client.js");
  const topology = await (await fetch("/assets/vendor/land-110m.json")).json();
  const { features } = window.topojson.feature(topology, topology.objects.land);
  land = features.flatMap(({ geometry }) => (geometry.type === "Polygon" ? [geometry.coordinates] : geometry.coordinates))
    .flatMap((polygon) => polygon.map(unroll));
  return land;
}

/** A ring of degrees -> the projection, without jumps from one end of the world to the other: it may leave 0 to 1. */
function unroll(ring) {
  let turns = 0;
  const points = ring.map(([longitude, latitude], at) => {
    const step = at ? longitude - ring[at - 1][0] : 0;
    if (Math.abs(step) > 180) turns -= Math.sign(step);
    const [x, y] = project(latitude, longitude);
    return [x + turns, y];
  });
  if (turns) points.push([points.at(-1)[0], 2], [points[0][0], 2]); // Antarctica goes round the pole
  return points;
}

/** Degrees -> Mercator, 0 to 1 from west to east and from north to south. */
function project(latitude, longitude) {
  const bounded = Math.max(-84, Math.min(84, latitude));
  return [(longitude + 180) / 360, 0.5 - Math.log(Math.tan(Math.PI / 4 + (bounded * Math.PI) / 360)) / (2 * Math.PI)];
}

const unproject = (x, y) => [(Math.atan(Math.exp((0.5 - y) * 2 * Math.PI)) * 360) / Math.PI - 90, x * 360 - 180];

/** The view in which all points are: {x, y: its middle, scale: px of the whole world}. */
function fit(points, width, height) {
  if (!points.length) return { x: 0.5, y: 0.42, scale: width };
  const xs = points.map(([x]) => x);
  const ys = points.map(([, y]) => y);
  const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const scale = Math.min((width * 0.8) / Math.max(right - left, 1e-9), (height * 0.72) / Math.max(bottom - top, 1e-9), width * 40);
  return { x: (left + right) / 2, y: (top + bottom) / 2, scale: Math.max(scale, width * 0.9) };
}

export function Places({ points, total, near, onChange }) {
  const box = useRef();
  const canvas = useRef();
  const { width } = useSize(box);
  const height = Math.round(width * 0.62);
  const [view, setView] = useState(null);
  const [outlines, setOutlines] = useState(land);
  const [, repaint] = useState(0);
  const drag = useRef(null);
  const placed = points.map(([latitude, longitude]) => project(latitude, longitude));
  useEffect(() => { loadLand().then(setOutlines, () => {}); }, []);
  useEffect(() => onTheme(() => repaint((turn) => turn + 1)), []);
  const shown = view ?? (width ? fit(placed, width, height) : null);
  const heaps = shown ? heapUp(placed, shown, width, height) : [];
  useEffect(() => { if (shown) paint(canvas.current, { shown, width, height, outlines, heaps, near }); });

  const zoom = (factor, at = [width / 2, height / 2]) => {
    const scale = Math.max(width * 0.9, Math.min(width * 4000, shown.scale * factor));
    const shift = (place, size) => (place - size / 2) * (1 / shown.scale - 1 / scale);
    setView({ x: shown.x + shift(at[0], width), y: shown.y + shift(at[1], height), scale });
  };
  useEffect(() => { // not passive: the page must not scroll along
    const wheel = (event) => {
      if (!event.ctrlKey && !event.altKey && document.activeElement !== canvas.current) return;
      event.preventDefault();
      zoom(Math.exp(-event.deltaY / 300), [event.offsetX, event.offsetY]);
    };
    const element = canvas.current;
    element.addEventListener("wheel", wheel, { passive: false });
    return () => element.removeEventListener("wheel", wheel);
  });
  const moved = (event) => {
    if (!drag.current) return;
    const [dx, dy] = [event.clientX - drag.current.x, event.clientY - drag.current.y];
    if (Math.hypot(dx, dy) > 4) drag.current.far = true;
    if (drag.current.far) setView({ ...shown, x: drag.current.view.x - dx / shown.scale, y: drag.current.view.y - dy / shown.scale });
  };
  const up = (event) => {
    const far = drag.current?.far;
    drag.current = null;
    if (far) return;
    const heap = heaps.find((one) => Math.hypot(one.px - event.offsetX, one.py - event.offsetY) <= Math.max(12, one.radius + 4));
    if (heap) choose(heap);
  };
  const choose = (heap) => {
    const [latitude, longitude] = unproject(heap.x, heap.y);
    const kilometres = ((heap.reach + HEAP / 2) / shown.scale) * KM_ROUND * Math.cos((latitude * Math.PI) / 180);
    onChange([+latitude.toFixed(4), +longitude.toFixed(4), Math.max(0.5, +kilometres.toPrecision(2))]);
  };
  const keys = (event) => {
    const step = { ArrowLeft: [-40, 0], ArrowRight: [40, 0], ArrowUp: [0, -40], ArrowDown: [0, 40] }[event.key];
    if (step) setView({ ...shown, x: shown.x + step[0] / shown.scale, y: shown.y + step[1] / shown.scale });
    else if (event.key === "+" || event.key === "=") zoom(1.6);
    else if (event.key === "-") zoom(1 / 1.6);
    else if (event.key === "Enter" && heaps.length) choose(heaps.reduce((one, other) => (away(other) < away(one) ? other : one)));
    else return;
    event.preventDefault();
  };
  const away = (heap) => Math.hypot(heap.px - width / 2, heap.py - height / 2);
  return html`<div class="places" ref=${box}>
    <canvas ref=${canvas} style=${{ height: `${height}px` }} tabindex="0" role="application"
      aria-label=${`Where ${several(total, "picture")} were taken. Arrows move, plus and minus zoom, Enter keeps the pictures nearest to the middle.`}
      onPointerDown=${(event) => { event.currentTarget.setPointerCapture(event.pointerId); drag.current = { x: event.clientX, y: event.clientY, view: shown }; }}
      onPointerMove=${moved} onPointerUp=${up} onPointerCancel=${() => { drag.current = null; }} onKeyDown=${keys} />
    <div class="places-tools"><${IconButton} icon="plus" size=${14} label="Zoom in" onClick=${() => zoom(1.8)} /><${IconButton} icon="minus" size=${14} label="Zoom out" onClick=${() => zoom(1 / 1.8)} /></div>
  </div>`;
}

/** Points -> heaps of those that would lie on each other: {x, y, px, py, count, radius, reach: px to its farthest}. */
function heapUp(placed, view, width, height) {
  const cells = new Map();
  for (const [x, y] of placed) {
    const [px, py] = [(x - view.x) * view.scale + width / 2, (y - view.y) * view.scale + height / 2];
    if (px < -HEAP || py < -HEAP || px > width + HEAP || py > height + HEAP) continue;
    const key = `${Math.floor((x * view.scale) / HEAP)},${Math.floor((y * view.scale) / HEAP)}`;
    if (!cells.has(key)) cells.set(key, []);
    cells.get(key).push([x, y, px, py]);
  }
  const mean = (some, at) => some.reduce((sum, one) => sum + one[at], 0) / some.length;
  const found = [];
  for (const some of [...cells.values()].sort((one, other) => other.length - one.length)) { // those on a border join
    const [px, py] = [mean(some, 2), mean(some, 3)];
    const near = found.find((heap) => Math.hypot(heap.px - px, heap.py - py) < HEAP);
    if (near) near.members.push(...some);
    else found.push({ px, py, members: some });
  }
  return found.map(({ members }) => {
    const [px, py] = [mean(members, 2), mean(members, 3)];
    const reach = Math.max(...members.map((one) => Math.hypot(one[2] - px, one[3] - py)));
    const radius = members.length === 1 ? 4.5 : 7 + 2.2 * Math.log10(members.length);
    return { x: mean(members, 0), y: mean(members, 1), px, py, reach, count: members.length, radius };
  });
}

function paint(canvas, { shown, width, height, outlines, heaps, near }) {
  const ratio = devicePixelRatio || 1;
  [canvas.width, canvas.height] = [width * ratio, height * ratio];
  const brush = canvas.getContext("2d");
  brush.scale(ratio, ratio);
  const at = ([x, y]) => [(x - shown.x) * shown.scale + width / 2, (y - shown.y) * shown.scale + height / 2];
  if (outlines) {
    brush.beginPath();
    for (const round of [-1, 0, 1]) {
      for (const ring of outlines) ring.forEach(([x, y], place) => brush[place ? "lineTo" : "moveTo"](...at([x + round, y])));
    }
    brush.fillStyle = colour("map-land");
    brush.fill("evenodd");
  }
  const [accent, ground] = [colour("accent"), colour("page")];
  brush.font = "600 10px system-ui, sans-serif";
  brush.textAlign = "center";
  brush.textBaseline = "middle";
  for (const heap of heaps) {
    brush.beginPath();
    brush.arc(heap.px, heap.py, heap.radius, 0, 7);
    brush.fillStyle = accent;
    brush.fill();
    brush.strokeStyle = ground;
    brush.lineWidth = 1.5;
    brush.stroke();
    if (heap.count > 1) {
      brush.fillStyle = colour("on-accent");
      brush.fillText(heap.count > 999 ? `${Math.round(heap.count / 1000)}k` : `${heap.count}`, heap.px, heap.py + 0.5);
    }
  }
  if (near) {
    const radius = (near[2] / (KM_ROUND * Math.cos((near[0] * Math.PI) / 180))) * shown.scale;
    brush.beginPath();
    brush.arc(...at(project(near[0], near[1])), Math.max(4, radius), 0, 7);
    brush.strokeStyle = accent;
    brush.lineWidth = 2;
    brush.stroke();
  }
}
