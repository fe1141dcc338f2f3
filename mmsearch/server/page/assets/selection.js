// Pictures that were selected, to export or to tag them together. They live as long as the page.

import { call, fetchBlob } from "./api.js";
import { Icon, IconButton, html, say } from "./parts.js";
import { useEffect, useState } from "./vendor/htm-preact.js";

const MOST_IN_ZIP = 2000;
let selected = new Map(); // id -> hit
let last = null; // the hit that a shift-click reaches from
const watchers = new Set();

function change(next) {
  selected = next;
  watchers.forEach((watch) => watch(next));
}

export function useSelection() {
  const [now, set] = useState(selected);
  useEffect(() => {
    watchers.add(set);
    return () => watchers.delete(set);
  }, []);
  return now;
}

export const selecting = () => selected.size > 0;
export const clear = () => change(new Map());

/** Select a hit, or no more. hits, shift: all from the one selected before to this one. */
export function toggle(hit, { hits = [], shift = false } = {}) {
  const next = new Map(selected);
  const from = hits.findIndex((one) => one.id === last?.id);
  const to = hits.findIndex((one) => one.id === hit.id);
  if (shift && from >= 0 && to >= 0) {
    for (const one of hits.slice(Math.min(from, to), Math.max(from, to) + 1)) next.set(one.id, one);
  } else if (!next.delete(hit.id)) next.set(hit.id, hit);
  last = hit;
  change(next);
}

export function selectAll(hits) {
  change(new Map([...selected, ...hits.map((hit) => [hit.id, hit])]));
}

// --- what can be done with them ------------------------------------------------------------------------------------------

export function download(blob, name) {
  const anchor = document.createElement("a");
  anchor.href = URL.createObjectURL(blob);
  anchor.download = name;
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(anchor.href), 60_000);
}

export const placeOf = (hit) => hit.path ?? hit.key ?? `#${hit.id}`;

export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    say(`${what} copied.`);
  } catch {
    say("The browser does not let this page copy; use the list instead.", { bad: true });
  }
}

function list(hits) {
  const columns = ["id", "name", "path", "probability", "score", "taken_at", "width", "height"];
  const cell = (value) => (/[",\n]/.test(`${value ?? ""}`) ? `"${`${value}`.replaceAll('"', '""')}"` : `${value ?? ""}`);
  const lines = hits.map((hit) => columns.map((name) => cell(hit[name])).join(","));
  download(new Blob([[columns.join(","), ...lines, ""].join("\n")], { type: "text/csv" }), "pictures.csv");
}

export function SelectionBar() {
  const now = useSelection();
  const [busy, setBusy] = useState(false);
  const [tagging, setTagging] = useState(false);
  const hits = [...now.values()];
  if (!hits.length) return null;
  const zip = async () => {
    setBusy(true);
    try {
      download(await fetchBlob("/export", { ids: hits.map((hit) => hit.id) }), "pictures.zip");
    } catch (error) {
      say(error.message, { bad: true });
    }
    setBusy(false);
  };
  const tag = async (event) => {
    event.preventDefault();
    const name = new FormData(event.target).get("name").trim();
    if (!name) return;
    try {
      for (const hit of hits) await call("POST", `/images/${hit.id}/tags`, { names: [name] });
      say(`${hits.length} tagged “${name}”.`);
      setTagging(false);
    } catch (error) {
      say(error.message, { bad: true });
    }
  };
  return html`<section class="selection" aria-label="Selected pictures">
    <strong>${hits.length} selected</strong>
    ${tagging
      ? html`<form class="row-form" onSubmit=${tag}><input name="name" aria-label="A tag for the selected pictures" placeholder="A tag" autocomplete="off" autofocus required />
          <button class="button">Tag</button><${IconButton} icon="x" label="No tag" onClick=${() => setTagging(false)} /></form>`
      : html`<button type="button" class="button" onClick=${() => list(hits)}><${Icon} name="list" size=${16} />List</button>
          <button type="button" class="button" disabled=${busy || hits.length > MOST_IN_ZIP} onClick=${zip}
            title=${hits.length > MOST_IN_ZIP ? `At most ${MOST_IN_ZIP} files fit into one ZIP` : "The original files"}><${Icon} name="download" size=${16} />${busy ? "Packing…" : "ZIP"}</button>
          <button type="button" class="button" onClick=${() => copy(hits.map(placeOf).join("\n"), hits.length === 1 ? "Path" : `${hits.length} paths`)}><${Icon} name="copy" size=${16} />Copy<span class="wide-only"> paths</span></button>
          <button type="button" class="button" onClick=${() => setTagging(true)}><${Icon} name="tag" size=${16} />Tag</button>
          <${IconButton} icon="x" label="Select none" keys="Esc" onClick=${clear} />`}
  </section>`;
}
