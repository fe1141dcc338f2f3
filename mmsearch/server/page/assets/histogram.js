// When pictures were taken: a bar a month (a year, where there are many); click one, or drag over several.

import { html, useSize } from "./parts.js";
import { useRef, useState } from "./vendor/htm-preact.js";
import { count, monthName } from "./words.js";

const MOST_MONTHS = 60;
const HEIGHT = 56;

const number = (month) => Number(month.slice(0, 4)) * 12 + Number(month.slice(5, 7)) - 1;
const written = (months) => `${String(Math.floor(months / 12)).padStart(4, "0")}-${String((months % 12) + 1).padStart(2, "0")}`;

/** [{month, count}] -> bars without gaps: [{from, until (left out), count, name}], in months. */
function bars(dates) {
  const counts = new Map(dates.map((one) => [number(one.month), one.count]));
  const all = [...counts.keys()];
  let [first, last] = [Math.min(...all), Math.max(...all)];
  const step = last - first >= MOST_MONTHS ? 12 : 1;
  if (step === 12) [first, last] = [first - (first % 12), last - (last % 12)];
  const made = [];
  for (let from = first; from <= last; from += step) {
    let sum = 0;
    for (let month = from; month < from + step; month += 1) sum += counts.get(month) ?? 0;
    made.push({ from, until: from + step, count: sum, name: step === 12 ? written(from).slice(0, 4) : monthName(written(from)) });
  }
  return made;
}

export function Histogram({ dates, after, before, onChange }) {
  const box = useRef();
  const { width } = useSize(box);
  const [drag, setDrag] = useState(null);
  if (!dates.length) return html`<div ref=${box} />`;
  const shown = bars(dates);
  const highest = Math.max(...shown.map((bar) => bar.count));
  const step = (width || 1) / shown.length;
  const chosen = drag ? [Math.min(...drag), Math.max(...drag)] : null;
  const from = after ? number(after) : -Infinity;
  const until = before ? number(before) + (before.slice(8, 10) > "01" ? 1 : 0) : Infinity;
  const inside = (bar, at) => (chosen ? at >= chosen[0] && at <= chosen[1] : bar.until > from && bar.from < until);
  const take = (first, last) => {
    const [start, end] = [`${written(shown[first].from)}-01`, `${written(shown[last].until)}-01`];
    const same = after?.startsWith(start) && before?.startsWith(end);
    onChange(same ? { after: null, before: null } : { after: start, before: end });
  };
  const at = (event) => Math.max(0, Math.min(shown.length - 1, Math.floor((event.clientX - box.current.getBoundingClientRect().left) / step)));
  return html`<div class="histogram" ref=${box}
      onPointerDown=${(event) => { if (event.button === 0) { event.currentTarget.setPointerCapture(event.pointerId); setDrag([at(event), at(event)]); } }}
      onPointerMove=${(event) => drag && setDrag([drag[0], at(event)])}
      onPointerUp=${() => { if (chosen) take(...chosen); setDrag(null); }} onPointerCancel=${() => setDrag(null)}>
    <svg width=${width} height=${HEIGHT} role="img" aria-label=${`Pictures by date, ${shown[0].name} to ${shown.at(-1).name}; the fields below choose as well`}>
      ${shown.map((bar, place) => {
        const tall = bar.count ? Math.max(3, (bar.count / highest) * (HEIGHT - 4)) : 1;
        return html`<g key=${bar.from} class=${inside(bar, place) ? "in" : "out"}>
          <title>${bar.name}: ${count(bar.count)}</title>
          <rect class="hit" x=${place * step} width=${step} height=${HEIGHT} />
          <rect class="column" x=${place * step + Math.min(1, step / 6)} width=${Math.max(1, step - Math.min(2, step / 3))} y=${HEIGHT - tall} height=${tall} rx=${Math.min(2, step / 4)} /></g>`;
      })}
    </svg>
    <div class="histogram-ends"><span>${shown[0].name}</span>${shown.length > 1 && html`<span>${shown.at(-1).name}</span>`}</div>
  </div>`;
}
