// The terms of a query as chips; each opens a sheet to weigh it, turn it round or change its words.

import { textTerm } from "./address.js";
import { Icon, Popover, html } from "./parts.js";
import { pictureOf } from "./pictures.js";

const WEIGHTS = [0.25, 0.5, 1, 2, 4];

export const nameOf = (term) => term.text ?? (term.image !== undefined ? `picture #${term.image}` : term.picture ?? "your picture");

const hostOf = (address) => (URL.canParse(address) ? new URL(address).hostname : address);

export function Picture({ term, pixels }) {
  const source = pictureOf(term, pixels);
  if (!source) return html`<span class="thumb thumb-none"><${Icon} name="image" size=${16} /></span>`;
  const [x, y, width, height] = term.part ?? [0, 0, 1, 1];
  const inset = `inset(${y * 100}% ${(1 - x - width) * 100}% ${(1 - y - height) * 100}% ${x * 100}%)`;
  return html`<img class="thumb" src=${source} alt="" width=${pixels} height=${pixels}
    style=${term.part ? { objectViewBox: inset } : {}} />`;
}

export function TermChip({ term, onChange, onRemove }) {
  const wanted = (term.weight ?? 1) > 0;
  const weight = Math.abs(term.weight ?? 1);
  const words = term.text !== undefined;
  const name = nameOf(term);
  const label = `${wanted ? "" : "without "}${name}${weight === 1 ? "" : `, weight ${weight}`}`;
  const inside = html`
    ${!wanted && html`<${Icon} name="minus" size=${14} />`}
    ${!words && html`<${Picture} term=${term} pixels=${28} />`}
    ${weight !== 1 && html`<span class="chip-weight">${weight}×</span>`}
    ${words ? html`<span class="chip-text">${name}</span>` : html`<span class="chip-text">${term.part ? "part of " : ""}${term.picture ? hostOf(term.picture) : "picture"}</span>`}`;
  return html`<span class=${`chip${wanted ? "" : " chip-minus"}${words ? "" : " chip-picture"}`}>
    <${Popover} className="chip-body" label=${`Change the term: ${label}`} button=${inside} width=${300}>
      ${(close) => html`<${TermSheet} term=${term} wanted=${wanted} weight=${weight} onChange=${onChange}
        onRemove=${() => { close(); onRemove(); }} close=${close} />`}
    <//>
    <button type="button" class="chip-remove" aria-label=${`Remove the term: ${label}`} onClick=${onRemove}><${Icon} name="x" size=${14} /></button>
  </span>`;
}

function TermSheet({ term, wanted, weight, onChange, onRemove, close }) {
  const sign = wanted ? 1 : -1;
  const put = (changes) => onChange({ ...term, ...changes });
  const rewrite = (event) => {
    event.preventDefault();
    const text = new FormData(event.target).get("text").trim();
    close();
    if (!text) onRemove();
    else if (text !== term.text) onChange({ ...textTerm(`=${text}`), weight: term.weight ?? 1 });
  };
  return html`
    ${term.text !== undefined
      ? html`<form onSubmit=${rewrite}><label class="field">Words<input name="text" value=${term.text} autocomplete="off" /></label></form>`
      : html`<div class="term-picture"><${Picture} term=${term} pixels=${268} /></div>`}
    <fieldset class="choices" aria-label="Wanted or not">
      <label><input type="radio" name="wanted" checked=${wanted} onChange=${() => put({ weight })} /><span>Look for it</span></label>
      <label><input type="radio" name="wanted" checked=${!wanted} onChange=${() => put({ weight: -weight })} /><span>Leave it out</span></label>
    </fieldset>
    <fieldset class="choices" aria-label="How much it counts">
      ${WEIGHTS.map((one) => html`<label><input type="radio" name="weight" checked=${weight === one}
        onChange=${() => put({ weight: sign * one })} /><span>${one === 0.25 ? "¼" : one === 0.5 ? "½" : one}×</span></label>`)}
    </fieldset>
    <div class="sheet-actions"><button type="button" class="button quiet" onClick=${onRemove}><${Icon} name="trash-2" size=${16} />Remove</button></div>`;
}

/** Feedback as a chip: the picture with a plus or a minus. */
export function MarkChip({ id, wanted, onRemove }) {
  const label = `${wanted ? "More" : "Less"} like picture #${id}`;
  return html`<span class=${`chip chip-picture chip-mark${wanted ? "" : " chip-minus"}`}>
    <span class="chip-body"><${Icon} name=${wanted ? "thumbs-up" : "thumbs-down"} size=${14} /><${Picture} term=${{ image: id }} pixels=${28} />
      <span class="chip-text">${wanted ? "more" : "less"} like this</span></span>
    <button type="button" class="chip-remove" aria-label=${`Remove: ${label}`} onClick=${onRemove}><${Icon} name="x" size=${14} /></button>
  </span>`;
}

