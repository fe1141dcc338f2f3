// Which keys do what.

import { Dialog, IconButton, html } from "./parts.js";

const KEYS = {
  Everywhere: [["/", "search"], ["?", "these keys"], ["Esc", "close, or select none"]],
  "In the search box": [["Enter", "add what is typed as a term"], ["-people", "leave people out"], ["2:sunset", "count sunset twice"], ["Backspace", "change the last term"]],
  "Among pictures": [["← → ↑ ↓", "move"], ["Enter", "open"], ["m", "more like this"], ["l", "less like this"], ["x", "select"], ["Shift x", "select up to here"]],
  "In a picture": [["← →", "the one before, the next"], ["c", "search with a part of it"], ["f", "full screen"], ["m  l", "more, less like this"], ["s", "find similar ones"], ["t", "add a tag"]],
};

export function Keys({ onClose }) {
  return html`<${Dialog} label="Keys" className="small-dialog keys-dialog" onClose=${onClose}>
    <header class="drawer-head"><h2>Keys</h2><${IconButton} icon="x" label="Close" onClick=${onClose} /></header>
    <div class="keys">${Object.entries(KEYS).map(([where, keys]) => html`<section><h3>${where}</h3><dl>${keys.map(([key, what]) => html`<div><dt><kbd>${key}</kbd></dt><dd>${what}</dd></div>`)}</dl></section>`)}</div><//>`;
}
