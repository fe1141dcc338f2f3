// What is known about a picture: why it was found, its captions and tags, where and when, what is near to it.

import { follow, go, link } from "./address.js";
import { call, useAnswer } from "./api.js";
import { Bar, Icon, IconButton, html, say } from "./parts.js";
import { thumbnail } from "./pictures.js";
import { copy } from "./selection.js";
import { bytes, coordinates, count, moment, percent } from "./words.js";

export function Facts({ image, hit, query, again }) {
  const name = image.files[0]?.name ?? image.key ?? `#${image.id}`;
  return html`
    <header class="facts-head"><h2 dir="auto">${name}</h2>
      <p class="soft">${[image.taken_at && moment(image.taken_at), image.width && `${count(image.width)} × ${count(image.height)}`, image.format?.toUpperCase()].filter(Boolean).join(" · ")}</p></header>
    ${query && html`<${Why} image=${image} query=${query} />`}
    ${image.captions.length > 0 && html`<section><h3>Captions</h3><ul class="captions">${image.captions.map((one) => html`<li dir="auto">${one.text}</li>`)}</ul></section>`}
    <${Tags} image=${image} again=${again} />
    <${Near} image=${image} />
    ${image.text && html`<section><h3>Text inside</h3><p class="inside-text" dir="auto">${image.text}</p></section>`}
    <${Sheet} image=${image} hit=${hit} />`;
}

// --- why ---------------------------------------------------------------------------------------------------------------

const STATES = {
  filtered: "The filters leave it out",
  folded: "Folded into a near-duplicate",
  unlikely: "Less likely than asked for",
  "no match": "None of the words are there",
  "not encoded": "Not encoded yet",
  missing: "Gone from its folder",
  failed: "It could not be read",
};

function Why({ image, query }) {
  const { data, error, fresh } = useAnswer("POST", "/why", { image: image.id, query });
  if (error) return html`<section><h3>Why it was found</h3><p class="soft">${error.message}</p></section>`;
  if (!data || !fresh) return html`<section class="why why-wait" aria-hidden="true"></section>`;
  const { hit, state } = data;
  if (state !== "found" || !hit) {
    return html`<section class="why"><h3>Why it is not among the answers</h3><p>${STATES[state] ?? state}${data.filtered_by?.length ? `: ${data.filtered_by.join(", ")}` : ""}${data.reason ? `: ${data.reason}` : ""}.</p></section>`;
  }
  const likely = hit.probability;
  const verdict = likely == null ? "Among the answers" : likely >= 0.5 ? "A likely match" : likely >= 0.2 ? "Perhaps a match" : "Hardly a match";
  const largest = Math.max(...hit.shares.map((share) => Math.abs(share.score)), 1e-9);
  return html`<section class="why"><h3>Why it was found</h3>
    <p class="verdict"><strong>${verdict}</strong>${likely != null && html`<span class="percent">${percent(likely)}</span>`}</p>
    ${likely != null && html`<${Bar} share=${likely} />`}
    <p class="soft">Number ${count(hit.rank)} of ${count(data.answers)} by likeness to what you look for.</p>
    ${hit.shares.length > 0 && html`<table class="shares"><caption>What each term adds to the likeness</caption><tbody>
      ${hit.shares.map((share) => html`<tr><th scope="row" dir="auto">${share.term.startsWith("#") ? `picture ${share.term}` : share.term}</th>
        <td aria-hidden="true"><span class=${`share ${share.score < 0 ? "against" : "for"}`}><span style=${{ width: `${(Math.abs(share.score) / largest) * 100}%` }} /></span></td>
        <td class="number">${share.score < 0 ? "−" : "+"}${Math.abs(share.score).toFixed(3)}</td></tr>`)}</tbody></table>`}
  </section>`;
}

// --- tags ----------------------------------------------------------------------------------------------------------------

function Tags({ image, again }) {
  const known = useAnswer("GET", "/tags");
  const described = useAnswer("GET", `/images/${image.id}/describe`);
  const has = new Set(image.tags.map((tag) => tag.name));
  const guesses = (described.fresh && described.data ? described.data.labels : []).filter((one) => !has.has(one.label) && (one.probability == null || one.probability > 0.1)).slice(0, 4);
  const add = async (name) => {
    if (!name || has.has(name)) return;
    await call("POST", `/images/${image.id}/tags`, { names: [name] }).then(again, (error) => say(error.message, { bad: true }));
  };
  const remove = (name) => call("DELETE", `/images/${image.id}/tags/${encodeURIComponent(name)}`).then(again, (error) => say(error.message, { bad: true }));
  const enter = (event) => {
    event.preventDefault();
    const field = event.target.elements.tag;
    add(field.value.trim()).then(() => { field.value = ""; });
  };
  return html`<section><h3>Tags</h3>
    <ul class="tags">
      ${image.tags.map((tag) => html`<li key=${tag.name}><span class="filter-chip" title=${tag.probability == null ? "Given by a person" : `Given by the model: ${percent(tag.probability)}`}>
        <a href=${link({ image: null, filters: { tags: [tag.name] } })} onClick=${(event) => follow(event, { view: "search", image: null, filters: { tags: [tag.name] } })}>${tag.name}</a>
        <button type="button" aria-label=${`Remove the tag ${tag.name}`} onClick=${() => remove(tag.name)}><${Icon} name="x" size=${14} /></button></span></li>`)}
      <li><form onSubmit=${enter}><input name="tag" class="tag-input" aria-label="Add a tag" placeholder="Add a tag" list="known-tags" autocomplete="off" /></form></li>
    </ul>
    <datalist id="known-tags">${(known.data ?? []).map((tag) => html`<option value=${tag.name} />`)}</datalist>
    ${guesses.length > 0 && html`<p class="guesses"><span class="soft">Looks like</span>${guesses.map((one) => html`<button type="button" class="guess" title=${one.probability == null ? "Add it as a tag" : `${percent(one.probability)} likely; add it as a tag`} onClick=${() => add(one.label)}><${Icon} name="plus" size=${12} />${one.label}</button>`)}</p>`}
  </section>`;
}

// --- neighbours ----------------------------------------------------------------------------------------------------------

function Near({ image }) {
  const { data, error, fresh } = useAnswer("GET", `/images/${image.id}/similar?k=9`);
  if (error) return null;
  const hits = fresh && data ? data.hits.filter((hit) => hit.id !== image.id).slice(0, 8) : null;
  if (hits && !hits.length) return null;
  const all = { view: "search", image: null, terms: [{ image: image.id }], more: [], less: [], filters: {} };
  return html`<section><h3>Similar <a class="link" href=${link(all)} onClick=${(event) => follow(event, all)}>See all</a></h3>
    <ul class="near">${(hits ?? Array(8).fill(null)).map((hit, at) => html`<li key=${hit?.id ?? `wait-${at}`}>${hit && html`<a href=${link({ image: hit.id })} onClick=${(event) => follow(event, { image: hit.id }, { replace: true })}
      aria-label=${`${hit.name}, similarity ${hit.score.toFixed(2)}`} title=${`${hit.name}  ${hit.score.toFixed(2)}`}><img src=${thumbnail(hit.id, 120)} alt="" loading="lazy" /></a>`}</li>`)}</ul></section>`;
}

// --- facts ---------------------------------------------------------------------------------------------------------------

function Sheet({ image, hit }) {
  const rows = [];
  const add = (name, value) => value && rows.push({ name, value });
  add("Taken", image.taken_at && moment(image.taken_at));
  add("Camera", image.camera && html`<button type="button" class="link" onClick=${() => filter({ camera: [image.camera] })}>${image.camera}</button>`);
  add("Lens", image.lens);
  add("Place", image.latitude != null && html`<button type="button" class="link" title="Pictures taken near here" onClick=${() => filter({ near: [image.latitude, image.longitude, 5] })}>${coordinates(image.latitude, image.longitude)}</button>`);
  add("Size", image.size_bytes && bytes(image.size_bytes));
  add("Score", hit?.score && hit.score.toFixed(4));
  add("Key", image.key);
  add("Id", `#${image.id}`);
  return html`<section><h3>Details</h3>
    <dl class="sheet-facts">${rows.map((row) => html`<div><dt>${row.name}</dt><dd>${row.value}</dd></div>`)}</dl>
    ${image.files.length > 0 && html`<ul class="paths">${image.files.map((file) => html`<li class=${file.present ? "" : "gone"}><span dir="auto">${file.path}</span>${file.present ? html`<${IconButton} icon="copy" size=${15} label="Copy the path" onClick=${() => copy(file.path, "Path")} />` : html`<span class="soft">gone</span>`}</li>`)}</ul>`}
  </section>`;
}

const filter = (filters) => go({ view: "search", image: null, terms: [], more: [], less: [], filters: { ...filters } });
