// A rectangle dragged over a picture (or moved by keys) -> a part of it as a query: x, y, width, height in shares.

import { Icon, html } from "./parts.js";
import { useEffect, useRef, useState } from "./vendor/htm-preact.js";

const STEP = 0.02;
const LEAST = 0.03;
const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

export function Crop({ onCrop, onCancel }) {
  const area = useRef();
  const frame = useRef();
  const [part, setPart] = useState([0.25, 0.25, 0.5, 0.5]);
  const [touched, setTouched] = useState(false);
  const drag = useRef(null);
  useEffect(() => frame.current?.focus({ preventScroll: true }), []);

  const at = (event) => {
    const box = area.current.getBoundingClientRect();
    return [clamp((event.clientX - box.left) / box.width, 0, 1), clamp((event.clientY - box.top) / box.height, 0, 1)];
  };
  const down = (event) => {
    if (event.button || event.target.closest("button")) return;
    event.currentTarget.setPointerCapture(event.pointerId);
    const point = at(event);
    const corner = event.target.dataset.corner;
    const [x, y, width, height] = part;
    if (corner) drag.current = { anchor: [corner.includes("w") ? x + width : x, corner.includes("n") ? y + height : y] };
    else if (event.target === frame.current && touched) drag.current = { move: [point[0] - x, point[1] - y] };
    else drag.current = { anchor: point };
  };
  const moved = (event) => {
    if (!drag.current) return;
    const [px, py] = at(event);
    setTouched(true);
    if (drag.current.move) {
      const [dx, dy] = drag.current.move;
      setPart(([, , width, height]) => [clamp(px - dx, 0, 1 - width), clamp(py - dy, 0, 1 - height), width, height]);
    } else {
      const [ax, ay] = drag.current.anchor;
      setPart([Math.min(ax, px), Math.min(ay, py), Math.max(LEAST, Math.abs(px - ax)), Math.max(LEAST, Math.abs(py - ay))].map((value) => clamp(value, 0, 1)));
    }
  };
  const up = () => { drag.current = null; };
  const whole = ([x, y, width, height]) => [x, y, Math.min(width, 1 - x), Math.min(height, 1 - y)];
  const keys = (event) => {
    const step = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] }[event.key];
    if (event.key === "Enter" && event.target === frame.current) {
      event.preventDefault();
      onCrop(whole(part));
    }
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    setTouched(true);
    setPart(([x, y, width, height]) => (event.shiftKey
      ? [x, y, clamp(width + step[0], LEAST, 1 - x), clamp(height + step[1], LEAST, 1 - y)]
      : [clamp(x + step[0], 0, 1 - width), clamp(y + step[1], 0, 1 - height), width, height]));
  };
  const [x, y, width, height] = whole(part);
  const style = { left: `${x * 100}%`, top: `${y * 100}%`, width: `${width * 100}%`, height: `${height * 100}%` };
  return html`<div class="crop" ref=${area} onPointerDown=${down} onPointerMove=${moved} onPointerUp=${up} onPointerCancel=${up} onKeyDown=${keys}>
    <div class="crop-area"><div class="crop-frame" ref=${frame} style=${style} tabindex="0" role="group" aria-label="The part to search with; arrows move it, Shift and arrows size it, Enter searches">
      ${["nw", "ne", "sw", "se"].map((corner) => html`<span class=${`corner corner-${corner}`} data-corner=${corner} />`)}
    </div></div>
    <div class="crop-actions">
      <button type="button" class="button primary" onClick=${() => onCrop([x, y, width, height])}><${Icon} name="search" size=${16} />Search with this part</button>
      <button type="button" class="button" onClick=${onCancel}>Cancel</button>
    </div>
  </div>`;
}
