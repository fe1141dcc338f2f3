// Bringing the collection up to date: a run with its progress, what earlier ones did, which files failed and why.

import { Icon, html } from "./parts.js";
import { Run, useRuns } from "./running.js";
import { useState } from "./vendor/htm-preact.js";
import { count, several } from "./words.js";

const COUNTS = { new: "new", changed: "changed", moved: "moved", removed: "removed", unchanged: "unchanged", missing: "missing", failed: "failed" };

export function IndexingTab({ status, again }) {
  const { runs, start, busy } = useRuns("index", again);
  const [prune, setPrune] = useState(false);
  return html`
    <section class="block"><h2>Bring it up to date</h2>
      <p class="soft">Looks through ${several(status.roots.length, "folder")} for what is new, changed or moved; what is unchanged costs nothing. Your pictures are never changed.</p>
      <div class="start"><button type="button" class="button primary" disabled=${busy || !status.roots.length} onClick=${() => start({ prune })}><${Icon} name="refresh-cw" size=${16} />Update now</button>
        <label class="check"><input type="checkbox" checked=${prune} disabled=${busy} onChange=${(event) => setPrune(event.target.checked)} /><span>Also forget ${status.missing ? several(status.missing, "file") : "files"} that ${status.missing === 1 ? "is" : "are"} gone</span></label></div></section>
    ${runs.length > 0 && html`<section class="block" aria-live="polite"><h2>Runs</h2>${runs.slice(0, 5).map((run) => html`<${Run} key=${run.id} run=${run}><${Report} report=${run.report} /><//>`)}</section>`}
    <section class="block"><h2>Files that failed</h2>
      ${status.failed.length
        ? html`<p class="soft">Each is tried again when it changes.</p><div class="table-room"><table class="table"><thead><tr><th scope="col">File</th><th scope="col">Why</th></tr></thead><tbody>
            ${status.failed.map((one) => html`<tr key=${one.path}><td dir="auto">${one.path}</td><td>${one.error}</td></tr>`)}</tbody></table></div>`
        : html`<p class="soft">None.</p>`}</section>
    <section class="block"><h2>Add a folder</h2><p class="soft">New folders are added where they lie, not through this page:</p><pre><code>mmsearch index ~/Pictures</code></pre></section>`;
}

function Report({ report }) {
  if (!report) return null;
  const counts = Object.entries(COUNTS).filter(([name]) => report[name]).map(([name, word]) => `${count(report[name])} ${word}`);
  return html`<p>${counts.join(", ") || "Nothing there."}${report.captions ? `; ${several(report.captions, "caption")}` : ""}</p>
    ${(report.left_alone ?? []).map((one) => html`<p class="notice">${one.root}: ${one.reason}</p>`)}
    ${(report.notices ?? []).map((notice) => html`<p class="soft">${notice}</p>`)}`;
}
