// The answers to what is asked: page after page, the line of relevance, how they are sorted, what stands where there
// are none.

import { go, listsOnly, queryOf } from "./address.js";
import { call } from "./api.js";
import { ActiveFilters, Filters, anyFilters } from "./filters.js";
import { Gallery } from "./gallery.js";
import { Dialog, Empty, Icon, IconButton, Popover, Problem, html, useMedia } from "./parts.js";
import { show } from "./pictures.js";
import { useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { count, duration, several } from "./words.js";

const FIRST = 60; // hits of the first page, then twice as many each
const MOST = 240;

/** The hits of a query so far; `more` fetches the next page. The old ones stay until the new ones are there. */
function useResults(query, collection) {
  const [found, set] = useState({ hits: [], loading: true });
  const turn = useRef(0);
  const [again, setAgain] = useState(0);
  const asked = JSON.stringify([collection, query]);
  const stop = useRef();

  const page = async (mine, before, k) => {
    try {
      const answer = await call("POST", "/search", { ...query, k, offset: before.hits.length }, { signal: stop.current.signal });
      if (mine !== turn.current) return;
      const hits = [...before.hits, ...answer.hits];
      const open = before.cut === null || before.cut === undefined || before.cut === before.hits.length; // no line drawn yet
      const cut = answer.relevant == null ? null : open ? before.hits.length + answer.relevant : before.cut;
      show(hits);
      set({ ...answer, hits, cut: before.hits.length ? cut : answer.relevant ?? null, seconds: before.seconds ?? answer.seconds, asked, k, loading: false, done: answer.hits.length < k });
    } catch (error) {
      if (error.name !== "AbortError" && mine === turn.current) set({ ...before, error, asked, loading: false, done: true });
    }
  };
  useEffect(() => {
    turn.current += 1;
    stop.current?.abort();
    stop.current = new AbortController();
    set((before) => ({ ...before, loading: true }));
    page(turn.current, { hits: [] }, FIRST);
  }, [asked, again]);
  const more = () => {
    if (found.loading || found.done || found.asked !== asked) return;
    set((before) => ({ ...before, loading: true }));
    page(turn.current, found, Math.min(MOST, found.k * 2));
  };
  return { ...found, fresh: found.asked === asked, more, again: () => setAgain((before) => before + 1) };
}

export function Results({ asked, draft }) {
  const wide = useMedia("(min-width: 900px)");
  const [filtering, setFiltering] = useState(false);
  const terms = draft ? [...asked.terms, draft] : asked.terms;
  const effective = { ...asked, terms };
  const query = queryOf(effective);
  const found = useResults(query, asked.collection);
  const listing = listsOnly(effective);
  const key = JSON.stringify(query);
  const first = useRef(true);
  useEffect(() => {
    if (first.current) first.current = false;
    else scrollTo(0, 0);
  }, [key]);
  const marked = (id) => (asked.more.includes(id) ? "more" : asked.less.includes(id) ? "less" : "");
  const line = {
    title: "Less likely from here on",
    text: asked.min_probability ? "" : "Above: more likely a match than not. Below: what comes nearest.",
  };
  const empty = !found.hits.length && !found.loading && !found.error;
  return html`<div class="search-view">
    ${wide && html`<aside class="sidebar" aria-label="Filters"><${Filters} asked=${asked} /></aside>`}
    <main class="results" id="main" tabindex="-1" aria-busy=${found.loading}>
      <div class="toolbar">
        ${!wide && html`<button type="button" class="button" onClick=${() => setFiltering(true)}><${Icon} name="sliders-horizontal" size=${16} />Filters</button>`}
        <${Count} found=${found} listing=${listing} find=${asked.find} />
        <div class="toolbar-end">
          <${Sorting} asked=${asked} listing=${listing} />
          <${Options} asked=${asked} listing=${listing} />
        </div>
      </div>
      <${ActiveFilters} asked=${asked} />
      ${found.notice && html`<p class="notice">${found.notice}</p>`}
      ${found.error && html`<${Problem} error=${found.error} again=${found.again} />`}
      ${!listing && found.cut === 0 && found.hits.length > 0 && html`<div class="nothing" role="note"><h2>Nothing here seems to match</h2>
        <p>These are the nearest. Other words may help, or a picture of what you mean.</p></div>`}
      ${empty && html`<${Nothing} asked=${effective} />`}
      <div class=${found.fresh || !found.hits.length ? "" : "stale"}>
        ${found.hits.length > 0 && html`<${Gallery} hits=${found.hits} cut=${listing ? null : found.cut} line=${line} onEnd=${found.more} marked=${marked} />`}
      </div>
      ${found.loading && found.hits.length > 0 && html`<p class="loading-more" aria-hidden="true">…</p>`}
    </main>
    ${!wide && filtering && html`<${Dialog} label="Filters" className="drawer" onClose=${() => setFiltering(false)}>
      <header class="drawer-head"><h2>Filters</h2><${IconButton} icon="x" label="Close the filters" onClick=${() => setFiltering(false)} /></header>
      <div class="drawer-body"><${Filters} asked=${asked} /></div>
      <footer class="drawer-foot"><button type="button" class="button primary" onClick=${() => setFiltering(false)}>Show ${found.total == null ? "pictures" : several(found.total, "picture")}</button></footer>
    <//>`}
  </div>`;
}

function Count({ found, listing, find }) {
  const what = find === "captions" ? "caption" : "picture";
  let title = "";
  let rest = "";
  if (found.loading && !found.hits.length) title = "Searching…";
  else if (!found.error) {
    const total = found.total ?? found.hits.length;
    if (listing) title = several(total, what);
    else if (found.cut == null) [title, rest] = [several(found.done ? found.hits.length : total, what), found.hits.length > 1 ? "best first" : ""];
    else {
      const open = found.cut === found.hits.length && !found.done;
      title = found.cut ? `${open ? "At least " : ""}${count(found.cut)} likely ${found.cut === 1 ? "match" : "matches"}` : "No likely match";
      rest = `among ${several(total, "picture")}`;
    }
    if (found.calibration === "collection" && !listing) rest += ", as far as this collection can tell";
  }
  return html`<p class="count" role="status"><strong>${title}</strong> <span class="soft">${rest}${found.seconds != null && !listing ? ` · ${duration(found.seconds)}` : ""}</span></p>`;
}

const SORTS = { relevance: "Best match", date: "Newest first", name: "By name" };

function Sorting({ asked, listing }) {
  const value = listing && asked.sort === "relevance" ? "date" : asked.sort;
  return html`<label class="select"><span class="visually-hidden">Sort by</span>
    <select value=${value} onChange=${(event) => go({ sort: event.target.value, ...(event.target.value !== "relevance" ? { diverse: 0 } : {}) })}>
      ${Object.entries(SORTS).filter(([name]) => !listing || name !== "relevance").map(([name, label]) => html`<option value=${name} selected=${name === value}>${label}</option>`)}
    </select></label>`;
}

const MATCHES = {
  vectors: ["Meaning", "What a picture shows"],
  keywords: ["Words", "In captions, names, tags and pictures"],
  hybrid: ["Both", "Meaning and words together"],
  joint: ["Pictures with captions", "Each picture and its captions as one"],
};

function Options({ asked }) {
  const texts = asked.terms.some((term) => term.text !== undefined && (term.weight ?? 1) > 0);
  const only = (name) => (name === "keywords" && (asked.terms.some((term) => term.text === undefined) || asked.more.length || asked.less.length)) || (["keywords", "hybrid"].includes(name) && !texts && asked.terms.length > 0);
  const least = Math.round((asked.min_probability ?? 0) * 100);
  const changed = asked.match !== "vectors" || asked.find !== "images" || asked.min_probability || asked.unique || asked.diverse;
  const captions = asked.find === "captions";
  return html`<${Popover} label="Options: how to search" className=${`button${changed ? " on" : ""}`} width=${340}
      button=${html`<${Icon} name="sliders-horizontal" size=${16} /><span class="wide-only">Options</span>`}>
    ${() => html`
      <fieldset class="options"><legend>Go by</legend>
        ${Object.entries(MATCHES).map(([name, [title, text]]) => html`<label class="option"><input type="radio" name="match" checked=${asked.match === name} disabled=${only(name) || (name === "joint" && captions)}
          onChange=${() => go({ match: name, ...(["keywords", "joint"].includes(name) ? { min_probability: null } : {}) })} /><span><strong>${title}</strong><span class="soft">${text}</span></span></label>`)}
      </fieldset>
      <fieldset class="choices" aria-label="What to find">
        <label><input type="radio" name="find" checked=${!captions} onChange=${() => go({ find: "images" })} /><span>Find pictures</span></label>
        <label><input type="radio" name="find" checked=${captions} onChange=${() => go({ find: "captions", unique: false, diverse: 0, ...(asked.match === "joint" ? { match: "vectors" } : {}) })} /><span>Find captions</span></label>
      </fieldset>
      <label class="slider"><span>At least this likely <output>${least ? `${least}%` : "any"}</output></span>
        <input type="range" min="0" max="95" step="5" value=${least} disabled=${["keywords", "joint"].includes(asked.match)} onChange=${(event) => go({ min_probability: Number(event.target.value) / 100 || null })} /></label>
      <label class="slider"><span>Variety <output>${asked.diverse ? `${Math.round(asked.diverse * 100)}%` : "off"}</output></span>
        <input type="range" min="0" max="1" step="0.1" value=${asked.diverse} disabled=${captions} onChange=${(event) => go({ diverse: Number(event.target.value), ...(Number(event.target.value) ? { sort: "relevance" } : {}) })} /></label>
      <label class="check"><input type="checkbox" checked=${asked.unique} disabled=${captions} onChange=${(event) => go({ unique: event.target.checked })} /><span>Fold near-duplicates into one</span></label>`}
  <//>`;
}

function Nothing({ asked }) {
  if (anyFilters(asked.filters)) {
    return html`<${Empty} icon="funnel" title="No picture satisfies these filters">
      <p>They are decided before the search; take one away, or all of them.</p>
      <button type="button" class="button primary" onClick=${() => go({ filters: {} })}>Clear the filters</button><//>`;
  }
  if (listsOnly(asked)) {
    return html`<${Empty} icon="images" title="No pictures yet">
      <p>Tell mmsearch where they are. In a shell:</p><pre><code>mmsearch index ~/Pictures</code></pre>
      <p><a href="/?view=collection" onClick=${(event) => { event.preventDefault(); go({ view: "collection", tab: "status" }); }}>See the collection</a></p><//>`;
  }
  return html`<${Empty} icon="search" title="Nothing found">
    <p>${asked.match === "keywords" ? "No caption, name or tag has these words. Going by meaning may find more." : "Other words may help, or a picture of what you mean."}</p>
    ${asked.match === "keywords" && html`<button type="button" class="button primary" onClick=${() => go({ match: "vectors" })}>Go by meaning</button>`}<//>`;
}
