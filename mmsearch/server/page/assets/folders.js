// The folders of the collection as a tree with counts; the chosen ones, or those below them, hold the pictures.

import { Icon, html } from "./parts.js";
import { useState } from "./vendor/htm-preact.js";
import { count } from "./words.js";

const names = new Map(); // prefix -> how people see it, for the chips of active filters

export const folderName = (prefix) => names.get(prefix) ?? prefix.split("/").filter(Boolean).at(-1) ?? prefix;

/** folders: [{path, prefix, count, depth}] in the order of a walk -> a tree. */
function tree(folders) {
  const top = [];
  const open = []; // the way down to the folder at hand
  for (const folder of folders) {
    const node = { ...folder, inside: [] };
    names.set(folder.prefix, folder.path);
    while (open.length && open.at(-1).depth >= folder.depth) open.pop();
    (open.length ? open.at(-1).inside : top).push(node);
    open.push(node);
  }
  return top;
}

export function Folders({ folders, chosen, onChange }) {
  return html`<ul class="folders">${tree(folders).map((node) => html`<${Branch} key=${node.prefix} node=${node} chosen=${chosen} onChange=${onChange} level=${0} few=${folders.length < 12} />`)}</ul>`;
}

function Branch({ node, chosen, onChange, level, few }) {
  const within = chosen.some((one) => one.startsWith(node.prefix));
  const [open, setOpen] = useState(few || level === 0 || within);
  const on = chosen.includes(node.prefix);
  const name = level === 0 ? node.path : node.path.split("/").at(-1);
  return html`<li>
    <div class=${`folder${on ? " on" : ""}`} style=${{ paddingInlineStart: `${level * 14}px` }}>
      ${node.inside.length
        ? html`<button type="button" class="twist" aria-label=${`${open ? "Close" : "Open"} ${name}`} aria-expanded=${open} onClick=${() => setOpen(!open)}><${Icon} name=${open ? "chevron-down" : "chevron-right"} size=${14} /></button>`
        : html`<span class="twist" />`}
      <button type="button" class="folder-name" aria-pressed=${on} title=${node.path} onClick=${() => onChange(on ? chosen.filter((one) => one !== node.prefix) : [...chosen, node.prefix])}>
        <span>${name}</span><span class="number">${count(node.count)}</span></button>
    </div>
    ${open && node.inside.length > 0 && html`<ul>${node.inside.map((one) => html`<${Branch} key=${one.prefix} node=${one} chosen=${chosen} onChange=${onChange} level=${level + 1} few=${few} />`)}</ul>`}
  </li>`;
}
