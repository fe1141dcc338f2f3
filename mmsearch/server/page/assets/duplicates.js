// Pictures that are the same, side by side, each group with the one that we suggest to keep. Nothing is ever deleted.

import { follow, link } from "./address.js";
import { useAnswer } from "./api.js";
import { Empty, Icon, Problem, html, useMedia } from "./parts.js";
import { show, thumbnail } from "./pictures.js";
import { copy } from "./selection.js";
import { useEffect, useState } from "./vendor/htm-preact.js";
import { bytes, count, day, several } from "./words.js";

const TIERS = {
  exact: ["Same file", "The same bytes in several places"],
  near: ["Same picture", "Re-encoded, resized or brightened"],
  semantic: ["Much alike", "Crops, series, the same thing again"],
};

export function DuplicatesView() {
  const [tier, setTier] = useState("near");
  const [least, setLeast] = useState(0.9);
  const body = tier === "semantic" ? { tiers: ["semantic"], similarity: least } : { tiers: [tier] };
  const { data, error, loading, fresh, again } = useAnswer("POST", "/duplicates", body);
  const groups = fresh && data ? data.groups : null;
  const [shown, setShown] = useState(30);
  useEffect(() => {
    setShown(30);
    show((groups ?? []).flatMap((group) => [group.keeper, ...group.others]).map((one) => ({ ...one, name: nameOf(one) })));
  }, [groups]);
  const spare = (groups ?? []).flatMap((group) => group.others);
  const paths = spare.flatMap((one) => (tier === "exact" ? [one.path ?? one.key] : one.paths)).filter(Boolean);
  return html`<main class="page" id="main" tabindex="-1">
    <header class="page-head"><div><h1>Duplicates</h1><p>${TIERS[tier][1]}. Nothing is deleted here: look, and copy the paths of those you can spare.</p></div>
      <fieldset class="choices" aria-label="How alike">${Object.entries(TIERS).map(([name, [label]]) => html`<label><input type="radio" name="tier" checked=${tier === name} onChange=${() => setTier(name)} /><span>${label}</span></label>`)}</fieldset></header>
    ${tier === "semantic" && html`<label class="slider block"><span>At least this alike <output>${least.toFixed(2)}</output></span><input type="range" min="0.7" max="0.99" step="0.01" value=${least} onChange=${(event) => setLeast(Number(event.target.value))} /></label>`}
    ${error && fresh && html`<${Problem} error=${error} again=${again} />`}
    ${(data?.notices ?? []).map((notice) => html`<p class="notice">${notice}</p>`)}
    ${loading && !groups && html`<p class="soft" role="status">Comparing all pictures with each other…</p>`}
    ${groups && (groups.length
      ? html`<div class="toolbar"><p class="count" role="status"><strong>${several(groups.length, "group")}</strong> <span class="soft">${several(spare.length, "picture")} to spare, ${bytes(spare.reduce((sum, one) => sum + one.size_bytes, 0))}</span></p>
          <div class="toolbar-end"><button type="button" class="button" onClick=${() => copy(paths.join("\n"), several(paths.length, "path"))}><${Icon} name="copy" size=${16} />Copy the paths to spare</button></div></div>
        <div class="groups">${groups.slice(0, shown).map((group) => html`<${Group} key=${`${group.tier}-${group.keeper.id}-${group.keeper.path}`} group=${group} />`)}</div>
        ${groups.length > shown && html`<button type="button" class="button" onClick=${() => setShown(shown + 60)}>Show more</button>`}`
      : !error && html`<${Empty} icon="layers" title="No duplicates of this kind"><p>${tier === "semantic" ? "Lower the likeness to see more." : "Every picture is there once."}</p><//>`)}
  </main>`;
}

function Group({ group }) {
  const copies = [group.keeper, ...group.others];
  const largest = Math.max(...copies.map((one) => (one.width ?? 0) * (one.height ?? 0)));
  return html`<section class=${`pair-group${copies.length > 2 ? " large" : ""}`} aria-label=${`${copies.length} like ${nameOf(group.keeper)}`}>
    <header class="pair-head"><h2>${several(copies.length, "copy", "copies")}</h2>
      <span class="soft">${group.tier === "exact" ? "equal in every byte" : `${(group.similarity * 100).toFixed(group.similarity > 0.995 ? 1 : 0)}% alike`}${group.reason ? ` · keep the first: ${group.reason}` : ""}</span></header>
    <div class="copies">${copies.map((one, at) => html`<${Copy} key=${`${one.id}-${one.path}`} one=${one} keeper=${at === 0} largest=${largest} />`)}</div></section>`;
}

function Copy({ one, keeper, largest }) {
  const wide = useMedia("(min-width: 900px)");
  const folder = (one.path ?? "").split("/").slice(0, -1).join("/");
  const date = one.taken_at ?? one.changed_at;
  return html`<article class=${`copy${keeper ? " keeper" : ""}`}>
    <a class="copy-picture" href=${link({ image: one.id })} onClick=${(event) => follow(event, { image: one.id }, { opened: true })} aria-label=${`Open ${nameOf(one)}`}>
      <img src=${thumbnail(one.id, wide ? 320 : 160)} alt="" loading="lazy" />${keeper && html`<span class="keep"><${Icon} name="check" size=${13} />Keep</span>`}</a>
    <p class="copy-name" dir="auto">${nameOf(one)}</p>
    <div class="copy-facts"><span class=${(one.width ?? 0) * (one.height ?? 0) === largest ? "best" : ""}>${one.width ? `${count(one.width)} × ${count(one.height)}` : "size unknown"} · ${bytes(one.size_bytes)}</span>
      ${date && html`<span>${one.taken_at ? "taken" : "changed"} ${day(date)}</span>`}<span dir="auto">${folder}</span></div>
  </article>`;
}

const nameOf = (one) => one.path?.split("/").at(-1) ?? one.key ?? `#${one.id}`;
