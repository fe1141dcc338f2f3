// The search box: terms as chips, words being typed, pictures by click, paste or drop.

import { current, go, textTerm, writeText } from "./address.js";
import { Icon, IconButton, html, useMedia } from "./parts.js";
import { searchWithFile, takeIn } from "./pictures.js";
import { Saved } from "./saved.js";
import { MarkChip, TermChip } from "./terms.js";
import { useEffect, useRef, useState } from "./vendor/htm-preact.js";

const PAUSE_MS = 220; // between the last letter and a search for what stands there

/** onDraft: called with the term that is being typed, or null. */
export function SearchBox({ asked, onDraft }) {
  const [draft, setDraft] = useState("");
  const narrow = useMedia("(max-width: 600px)");
  const input = useRef();
  const chooser = useRef();
  const chips = asked.terms.length + asked.more.length + asked.less.length;

  useEffect(() => {
    const text = draft.trim();
    const timer = setTimeout(() => onDraft(text.length > 2 ? textTerm(text, true) : null), text ? PAUSE_MS : 0);
    return () => clearTimeout(timer);
  }, [draft]);

  useEffect(() => { // on phones, terms are one line that moves: its end shows where one types
    const line = input.current.parentElement;
    line.scrollLeft = line.scrollWidth;
  }, [chips]);

  const commit = () => {
    if (!draft.trim()) return false;
    const { terms } = current();
    setDraft("");
    onDraft(null);
    go({ view: "search", image: null, terms: [...terms, textTerm(draft, true)] });
    return true;
  };
  const change = (place, term) => go({ view: "search", terms: asked.terms.map((one, at) => (at === place ? term : one)) });
  const remove = (place) => {
    go({ terms: asked.terms.filter((_, at) => at !== place) });
    input.current.focus();
  };
  const keys = (event) => {
    if (event.key === "Enter" && !event.isComposing && !commit()) input.current.blur();
    if (event.key === "Escape") {
      if (draft) setDraft("");
      else input.current.blur();
    }
    if (event.key === "Backspace" && !draft && chips) {
      event.preventDefault();
      const last = asked.terms.at(-1);
      if (asked.less.length) return go({ less: asked.less.slice(0, -1) });
      if (asked.more.length) return go({ more: asked.more.slice(0, -1) });
      if (last.text !== undefined) setDraft(`${(last.weight ?? 1) < 0 ? "-" : ""}${writeText(last)}`);
      go({ terms: asked.terms.slice(0, -1) });
    }
    if (event.key === "ArrowDown" && !event.isComposing) {
      event.preventDefault();
      document.querySelector(".tile-link[tabindex='0']")?.focus();
    }
    return undefined;
  };
  const pasted = (event) => {
    if (event.clipboardData.files.length && takeIn(event.clipboardData)) event.preventDefault();
  };

  return html`<div class="searchbox" role="search"
      onClick=${(event) => event.target === event.currentTarget && input.current.focus()}>
    <${Icon} name="search" />
    <div class="terms">
      ${asked.terms.map((term, place) => html`<${TermChip} key=${`${place}-${JSON.stringify(term)}`} term=${term}
        onChange=${(to) => change(place, to)} onRemove=${() => remove(place)} />`)}
      ${asked.more.map((id) => html`<${MarkChip} key=${`more-${id}`} id=${id} wanted onRemove=${() => go({ more: asked.more.filter((one) => one !== id) })} />`)}
      ${asked.less.map((id) => html`<${MarkChip} key=${`less-${id}`} id=${id} onRemove=${() => go({ less: asked.less.filter((one) => one !== id) })} />`)}
      <input id="search" ref=${input} value=${draft} aria-label="What to look for" autocomplete="off" spellcheck=${false} enterkeyhint="search"
        placeholder=${chips ? (narrow ? "and…" : "and…   or  -without") : narrow ? "Describe a picture" : "Describe a picture, or drop one here"}
        onInput=${(event) => setDraft(event.target.value)} onKeyDown=${keys} onBlur=${commit} onPaste=${pasted} />
    </div>
    ${(chips > 0 || draft) && html`<${IconButton} icon="x" label="Clear the search" onClick=${() => {
      setDraft("");
      go({ terms: [], more: [], less: [] });
      input.current.focus();
    }} />`}
    <input ref=${chooser} type="file" accept="image/*" hidden aria-hidden="true" tabindex="-1"
      onChange=${(event) => { const [file] = event.target.files; event.target.value = ""; if (file) searchWithFile(file); }} />
    <${IconButton} icon="image-plus" label="Search with a picture of yours" onClick=${() => chooser.current.click()} />
    ${!narrow && html`<${Saved} asked=${asked} />`}
  </div>`;
}
