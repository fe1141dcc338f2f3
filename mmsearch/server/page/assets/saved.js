// Saved searches: keep this one under a name, ask one again, forget one.

import { go, listsOnly, queryOf, stateOf } from "./address.js";
import { call } from "./api.js";
import { Icon, IconButton, Popover, Problem, html, say } from "./parts.js";
import { useEffect, useState } from "./vendor/htm-preact.js";

/** row: in a menu, with its name. */
export function Saved({ asked, row }) {
  return html`<${Popover} className=${row ? "row" : "icon-button"} label="Saved searches" button=${html`<${Icon} name="star" size=${row ? 16 : 18} />${row && "Saved searches"}`} width=${320}>
    ${(close) => html`<${SavedSheet} asked=${asked} close=${close} />`}
  <//>`;
}

/** What GET /saved gives, as [name, query] pairs. */
const pairs = (found) => (Array.isArray(found) ? found.map((one) => [one.name, one.query]) : Object.entries(found));

function SavedSheet({ asked, close }) {
  const [kept, setKept] = useState(null);
  const [error, setError] = useState(null);
  const load = () => call("GET", "/saved").then((found) => setKept(pairs(found)), setError);
  useEffect(() => { load(); }, []);
  const nothing = listsOnly(asked) && !Object.keys(asked.filters).length;
  const save = async (event) => {
    event.preventDefault();
    const name = new FormData(event.target).get("name").trim();
    if (!name) return;
    try {
      await call("PUT", `/saved/${encodeURIComponent(name)}`, queryOf(asked));
      say(`Saved as “${name}”.`);
      event.target.reset();
      load();
    } catch (problem) {
      say(problem.message, { bad: true });
    }
  };
  const forget = (name) => call("DELETE", `/saved/${encodeURIComponent(name)}`).then(load, (problem) => say(problem.message, { bad: true }));
  return html`
    <h2 class="sheet-title">Saved searches</h2>
    ${!nothing && html`<form class="row-form" onSubmit=${save}>
      <input name="name" aria-label="A name for this search" placeholder="A name for this search" autocomplete="off" required />
      <button class="button primary">Save</button></form>`}
    ${error && html`<${Problem} error=${error} />`}
    ${kept && (kept.length
      ? html`<ul class="saved-list">${kept.map(([name, query]) => html`<li key=${name}>
          <button type="button" class="row" onClick=${() => { close(); go(stateOf(query)); }}><span class="row-name">${name}</span><span class="soft">${inShort(query)}</span></button>
          <${IconButton} icon="trash-2" size=${16} label=${`Forget “${name}”`} onClick=${() => forget(name)} /></li>`)}</ul>`
      : html`<p class="soft">${nothing ? "None yet. Search for something, then save it here." : "None yet."}</p>`)}`;
}

function inShort(query) {
  const words = (query.terms ?? []).map((term) => `${(term.weight ?? 1) < 0 ? "not " : ""}${term.text ?? "a picture"}`);
  const marks = (query.more?.length ?? 0) + (query.less?.length ?? 0);
  if (marks) words.push(`${marks} marked`);
  if (query.filters) words.push("filters");
  return words.join(", ");
}
