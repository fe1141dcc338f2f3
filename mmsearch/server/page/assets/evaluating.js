// How well the encoder finds the collection's own pictures: by their captions, or by the names of their folders.

import { Icon, html } from "./parts.js";
import { Run, useRuns } from "./running.js";
import { count } from "./words.js";

const DIRECTIONS = { t2i: "Text finds picture", i2t: "Picture finds caption", labels: "Labels" };

export function EvaluationTab({ status }) {
  const { runs, start, busy } = useRuns("evaluate");
  const encoder = status.spaces.find((space) => space.current)?.encoder;
  return html`
    <section class="block"><h2>How well does it find?</h2>
      <p class="soft">Every caption of the collection is asked as a query, and we look where its own picture comes. Where there are too few captions, the names of folders are asked. Stored vectors are used, so it takes seconds.</p>
      <button type="button" class="button primary" disabled=${busy || !encoder} onClick=${() => start()}><${Icon} name="chart-no-axes-column" size=${16} />Evaluate ${encoder ?? ""}</button></section>
    <div aria-live="polite">${runs.slice(0, 5).map((run) => html`<${Run} key=${run.id} run=${run}><${Report} report=${run.report} /><//>`)}</div>`;
}

function Report({ report }) {
  if (!report) return null;
  const directions = [...new Set(report.measures.map((one) => one.direction))];
  return html`<p class="soft">${report.space}: ${count(report.images)} pictures, ${count(report.captions)} captions${report.about ? `; ${report.about}` : ""}</p>
    ${directions.map((direction) => html`<div class="table-room"><table class="table"><thead><tr><th scope="col">${DIRECTIONS[direction] ?? direction}</th><th scope="col" class="number">Value</th><th scope="col">95% interval</th></tr></thead><tbody>
      ${report.measures.filter((one) => one.direction === direction).map((one) => html`<tr><td>${one.measure}</td><td class="number">${written(one)}</td><td><${Interval} one=${one} /></td></tr>`)}</tbody></table></div>`)}
    ${report.labels?.length > 0 && html`<div class="table-room"><table class="table"><thead><tr><th scope="col">Label</th><th scope="col" class="number">Pictures</th><th scope="col" class="number">AP</th></tr></thead><tbody>
      ${report.labels.map((one) => html`<tr><td>${one.label}</td><td class="number">${count(one.images)}</td><td class="number">${one.AP.toFixed(1)}</td></tr>`)}</tbody></table></div>`}`;
}

const isRank = (one) => /rank/i.test(one.measure);
const written = (one) => (isRank(one) ? `${one.value}` : `${one.value.toFixed(1)}%`);

function Interval({ one }) {
  if (isRank(one)) return html`<span class="soft">${one.low == null ? "" : `${one.low} to ${one.high}`}</span>`;
  const [low, high] = [one.low ?? one.value, one.high ?? one.value];
  return html`<span class="interval"><svg viewBox="0 0 100 14" preserveAspectRatio="none" role="img" aria-label=${one.low == null ? `${one.value.toFixed(1)}%` : `${low.toFixed(1)} to ${high.toFixed(1)}%`}>
    <rect class="room" x="0" y="5" width="100" height="4" /><rect x=${low} y="4" width=${Math.max(0.8, high - low)} height="6" /></svg>
    ${one.low != null && html`<span class="soft">${low.toFixed(1)} to ${high.toFixed(1)}</span>`}</span>`;
}
