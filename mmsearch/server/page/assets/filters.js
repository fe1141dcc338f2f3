// Filters with counts: dates, folders, places, cameras, tags, formats, sizes. Each kind shows what the others leave.

import { go } from "./address.js";
import { useAnswer } from "./api.js";
import { Folders, folderName } from "./folders.js";
import { Histogram } from "./histogram.js";
import { Icon, html } from "./parts.js";
import { useEffect, useState } from "./vendor/htm-preact.js";
import { count, period } from "./words.js";

export const anyFilters = (filters) => Object.keys(filters).length > 0;

/** Change some filters; what is empty goes. */
export function filterBy(asked, changes) {
  const filters = { ...asked.filters, ...changes };
  for (const [name, value] of Object.entries(filters)) {
    if (value === null || value === undefined || value === "" || (Array.isArray(value) && !value.length)) delete filters[name];
  }
  go({ view: "search", filters });
}

export function without(filters, names) {
  return Object.fromEntries(Object.entries(filters).filter(([name]) => !names.includes(name)));
}

/** What this kind of filter could choose: the counts among all that the other filters leave; `counts` where none of
 * this kind (`own`) is set. */
function useFacets(counts, filters, own) {
  const set = own.some((name) => name in filters);
  const { data } = useAnswer("POST", set ? "/facets" : null, { filters: without(filters, own) });
  return set ? data ?? counts : counts;
}

export function Filters({ asked }) {
  const { filters } = asked;
  const { data: now, last, error } = useAnswer("POST", "/facets", { filters });
  const data = now ?? last;
  if (error && !data) return html`<p class="soft">${error.message}</p>`;
  if (!data) return html`<div class="sidebar-wait" aria-hidden="true"></div>`;
  const set = (changes) => filterBy(asked, changes);
  return html`
    <${Group} title="Date" known=${data.dates.length > 0 || filters.after || filters.before}><${Dates} counts=${data} filters=${filters} onChange=${set} /><//>
    <${Group} title="Folder" known=${data.folders.length > 1 || filters.inside}><${FolderGroup} counts=${data} filters=${filters} onChange=${set} /><//>
    <${Group} title="Place" known=${data.places.count > 0 || filters.near}><${Places} counts=${data} filters=${filters} onChange=${set} /><//>
    <${Group} title="Camera" known=${data.cameras.length > 0 || filters.camera}><${Choices} counts=${data} kind="cameras" name="camera" filters=${filters} onChange=${set} /><//>
    <${Group} title="Tag" known=${data.tags.length > 0 || filters.tags}><${Choices} counts=${data} kind="tags" name="tags" all filters=${filters} onChange=${set} /><//>
    <${Group} title="Format" known=${data.formats.length > 1 || filters.format}><${Choices} counts=${data} kind="formats" name="format" filters=${filters} onChange=${set} /><//>
    <${Group} title="Shape and size" known><${Shape} filters=${filters} onChange=${set} /><//>
    <${Group} title="What is known" known closed=${!filters.has && !filters.where}><${Known} filters=${filters} onChange=${set} /><//>`;
}

function Group({ title, known, closed, children }) {
  if (!known) return null;
  return html`<details class="group" open=${!closed}><summary>${title}<${Icon} name="chevron-down" size=${16} /></summary><div class="group-body">${children}</div></details>`;
}

function Dates({ counts, filters, onChange }) {
  const data = useFacets(counts, filters, ["after", "before"]);
  return html`<${Histogram} dates=${data.dates} after=${filters.after} before=${filters.before} onChange=${onChange} />
    <div class="dates">
      <label class="field">From<input type="date" value=${filters.after?.slice(0, 10) ?? ""} onChange=${(event) => onChange({ after: event.target.value })} /></label>
      <label class="field">Before<input type="date" value=${filters.before?.slice(0, 10) ?? ""} onChange=${(event) => onChange({ before: event.target.value })} /></label>
    </div>
    ${data.without?.date > 0 && html`<p class="aside">${count(data.without.date)} without a date</p>`}`;
}

function FolderGroup({ counts, filters, onChange }) {
  const data = useFacets(counts, filters, ["inside"]);
  return html`<${Folders} folders=${data.folders} chosen=${filters.inside ?? []} onChange=${(inside) => onChange({ inside })} />`;
}

function Places({ counts, filters, onChange }) {
  const data = useFacets(counts, filters, ["near"]);
  const [module, setModule] = useState(null);
  useEffect(() => { import("./places.js").then(setModule); }, []);
  if (!module) return html`<div class="places-wait" aria-hidden="true"></div>`;
  return html`<${module.Places} points=${data.places.points} total=${data.places.count} near=${filters.near} onChange=${(near) => onChange({ near })} />`;
}

const FEW = 6;

/** all: an image must have all that are chosen, so the others' counts are among these. */
function Choices({ counts, kind, name, all, filters, onChange }) {
  const data = useFacets(counts, filters, all ? [] : [name]);
  const [open, setOpen] = useState(false);
  const [wanted, setWanted] = useState("");
  const chosen = filters[name] ?? [];
  const there = data[kind];
  const listed = [...chosen.filter((one) => !there.some((other) => other.name === one)).map((one) => ({ name: one, count: 0 })), ...there];
  const found = listed.filter((one) => one.name.toLowerCase().includes(wanted.toLowerCase()));
  const shown = open || wanted ? found.slice(0, 200) : found.filter((one, at) => at < FEW || chosen.includes(one.name));
  const toggle = (one) => onChange({ [name]: chosen.includes(one) ? chosen.filter((other) => other !== one) : [...chosen, one] });
  return html`
    ${listed.length > 12 && html`<input class="small-search" type="search" aria-label=${`Find a ${name === "tags" ? "tag" : name}`} placeholder="Find…" value=${wanted} onInput=${(event) => setWanted(event.target.value)} />`}
    <ul class="choices-list">${shown.map((one) => html`<li key=${one.name}><label class="check"><input type="checkbox" checked=${chosen.includes(one.name)} onChange=${() => toggle(one.name)} />
      <span class="check-name">${one.name}</span><span class="number">${count(one.count)}</span></label></li>`)}</ul>
    ${!wanted && found.length > shown.length && html`<button type="button" class="link" onClick=${() => setOpen(true)}>${found.length - shown.length} more</button>`}
    ${open && found.length > FEW && !wanted && html`<button type="button" class="link" onClick=${() => setOpen(false)}>Fewer</button>`}`;
}

const SHAPES = { landscape: "Wide", portrait: "Tall", square: "Square" };
const WIDTHS = [0, 640, 1280, 1920, 3840];

function Shape({ filters, onChange }) {
  return html`<div class="choices" role="group" aria-label="Shape">${Object.entries(SHAPES).map(([name, label]) => html`<button type="button" class="choice" aria-pressed=${filters.orientation === name}
      onClick=${() => onChange({ orientation: filters.orientation === name ? null : name })}>${label}</button>`)}</div>
    <label class="field">Width<select value=${filters.min_width ?? 0} onChange=${(event) => onChange({ min_width: Number(event.target.value) || null })}>
      ${[...new Set([...WIDTHS, filters.min_width ?? 0])].sort((a, b) => a - b).map((one) => html`<option value=${one} selected=${one === (filters.min_width ?? 0)}>${one ? `at least ${count(one)} px` : "any"}</option>`)}</select></label>`;
}

const HAS = { caption: "Captions", tag: "Tags", date: "A date", gps: "A place", text: "Text inside" };

function Known({ filters, onChange }) {
  const chosen = filters.has ?? [];
  const put = (event) => {
    event.preventDefault();
    onChange({ where: new FormData(event.target).get("where").trim() });
  };
  return html`<ul class="choices-list">${Object.entries(HAS).map(([name, label]) => html`<li><label class="check"><input type="checkbox" checked=${chosen.includes(name)}
      onChange=${() => onChange({ has: chosen.includes(name) ? chosen.filter((one) => one !== name) : [...chosen, name] })} /><span class="check-name">${label}</span></label></li>`)}</ul>
    <form onSubmit=${put}><label class="field">Any other condition<input name="where" value=${filters.where ?? ""} placeholder="width > 2 * height" autocomplete="off" spellcheck=${false} /></label></form>`;
}

// --- what is chosen, as chips over the gallery ---------------------------------------------------------------------------

export function ActiveFilters({ asked }) {
  const { filters } = asked;
  const chips = [];
  const add = (label, changes) => chips.push({ label, changes });
  const each = (name, label) => (filters[name] ?? []).forEach((one) => add(label(one), { [name]: filters[name].filter((other) => other !== one) }));
  if (filters.after || filters.before) add(period(filters.after, filters.before), { after: null, before: null });
  each("inside", (one) => `in ${folderName(one)}`);
  if (filters.near) add(`within ${filters.near[2] < 10 ? filters.near[2].toFixed(1) : Math.round(filters.near[2])} km of ${filters.near.slice(0, 2).map((one) => one.toFixed(2)).join(", ")}`, { near: null });
  each("camera", (one) => one);
  each("tags", (one) => `tag ${one}`);
  each("format", (one) => one.toUpperCase());
  if (filters.orientation) add(SHAPES[filters.orientation].toLowerCase(), { orientation: null });
  if (filters.min_width) add(`at least ${count(filters.min_width)} px wide`, { min_width: null });
  if (filters.min_height) add(`at least ${count(filters.min_height)} px high`, { min_height: null });
  each("has", (one) => `has ${HAS[one].toLowerCase()}`);
  if (filters.where) add(filters.where, { where: null });
  if (!chips.length) return null;
  return html`<ul class="active-filters" aria-label="Active filters">
    ${chips.map(({ label, changes }) => html`<li key=${label}><span class="filter-chip">${label}<button type="button" aria-label=${`Remove the filter: ${label}`} onClick=${() => filterBy(asked, changes)}><${Icon} name="x" size=${14} /></button></span></li>`)}
    ${chips.length > 1 && html`<li><button type="button" class="link" onClick=${() => go({ filters: {} })}>Clear all</button></li>`}
  </ul>`;
}
