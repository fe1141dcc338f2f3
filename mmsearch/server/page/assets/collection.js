// The collection itself: what it holds (here), how it is brought up to date (indexing.js), how well it finds
// (evaluating.js).

import { follow, link } from "./address.js";
import { useAnswer } from "./api.js";
import { EvaluationTab } from "./evaluating.js";
import { IndexingTab } from "./indexing.js";
import { Problem, html } from "./parts.js";
import { count } from "./words.js";

const TABS = { status: ["Status", StatusTab], indexing: ["Indexing", IndexingTab], evaluation: ["Evaluation", EvaluationTab] };

export function CollectionView({ asked }) {
  const status = useAnswer("GET", "/status");
  const [, Tab] = TABS[asked.tab] ?? TABS.status;
  return html`<main class="page" id="main" tabindex="-1">
    <header class="page-head"><div><h1>Collection</h1><p>${status.data?.collection ?? "\u00a0"}</p></div></header>
    <nav class="tabs" aria-label="Parts of the collection">${Object.entries(TABS).map(([tab, [label]]) => html`<a href=${link({ tab })} aria-current=${tab === asked.tab ? "page" : null} onClick=${(event) => follow(event, { tab })}>${label}</a>`)}</nav>
    ${status.error && html`<${Problem} error=${status.error} again=${status.again} />`}
    ${status.data && html`<${Tab} status=${status.data} again=${status.again} />`}
  </main>`;
}

const WATCHED = { events: "Followed as they change", polling: "Followed by looking again and again" };

function StatusTab({ status }) {
  const away = new Set(status.away);
  const figures = [["Pictures", status.images], ["Captions", status.captions], ["Missing files", status.missing], ["Failed files", status.failed.length]];
  return html`
    <dl class="figures">${figures.map(([name, value]) => html`<div class="figure"><dt>${name}</dt><dd>${count(value)}</dd></div>`)}</dl>
    <section class="block"><h2>Folders</h2>
      ${status.roots.length ? html`<div class="table-room"><table class="table"><thead><tr><th scope="col">Folder</th><th scope="col">State</th></tr></thead><tbody>
        ${status.roots.map((root) => html`<tr><td dir="auto">${root}</td><td><span class=${`state ${away.has(root) ? "bad" : "good"}`}>${away.has(root) ? "Away: cannot be read now" : WATCHED[status.watching] ?? "There"}</span></td></tr>`)}</tbody></table></div>`
        : html`<p class="soft">No folders yet. In a shell: <code>mmsearch index ~/Pictures</code></p>`}</section>
    <section class="block"><h2>Encoders</h2><p class="soft">Each encoder has its own space of vectors; searches use the current one.</p>
      <div class="table-room"><table class="table"><thead><tr><th scope="col">Encoder</th><th scope="col" class="number">Pictures</th><th scope="col" class="number">Captions</th><th scope="col" class="number">Dimensions</th><th scope="col">State</th></tr></thead><tbody>
        ${status.spaces.map((space) => html`<tr><td>${space.encoder}</td><td class="number">${count(space.images)}</td><td class="number">${count(space.captions)}</td><td class="number">${count(space.dimension)}</td>
          <td><span class=${`state ${space.ready ? "good" : "busy"}`}>${space.ready ? (space.current ? "Current" : "Ready") : "Being built"}</span></td></tr>`)}</tbody></table></div></section>
    <p class="soft">mmsearch ${status.version}</p>`;
}
