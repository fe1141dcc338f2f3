// Hits -> a justified gallery. Sizes are known beforehand, so nothing jumps; only the rows near the window are in the
// page, so that ten thousand pictures scroll like ten. One tile takes part in the tab order; arrows move on from it.

import { follow, link } from "./address.js";
import * as marks from "./marks.js";
import { Icon, html, useMedia, useSize } from "./parts.js";
import { thumbnail } from "./pictures.js";
import { selecting, toggle, useSelection } from "./selection.js";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "./vendor/htm-preact.js";
import { percent } from "./words.js";

const justify = window.require("justified-layout");
const AHEAD = 1.5; // windows above and below that are drawn

/** hits; cut: how many of them are likely (the line is drawn there), or null; onEnd: the end is near. */
export function Gallery({ hits, cut, line, onEnd, marked }) {
  const box = useRef();
  const { width } = useSize(box);
  const coarse = useMedia("(hover: none)");
  const selection = useSelection();
  const [active, setActive] = useState(0);
  const layout = useMemo(() => width && arrange(hits, cut, width), [hits, cut, width]);
  const [from, until] = useWindow(box, layout?.height ?? 0);

  useEffect(() => setActive(0), [hits[0]?.id]);
  useEffect(() => {
    if (layout && until > layout.height - innerHeight) onEnd();
  }, [until, layout]);
  const wanted = useRef(null); // the tile that gets the focus once it is drawn
  useLayoutEffect(() => {
    if (wanted.current === null) return;
    box.current.querySelector(`[data-at="${wanted.current}"] .tile-link`)?.focus({ preventScroll: true });
    wanted.current = null;
  });

  const move = (to) => {
    const at = Math.max(0, Math.min(hits.length - 1, to));
    wanted.current = at;
    reveal(box.current, layout.boxes[at]);
    setActive(at);
  };
  const keys = (event) => {
    const hit = hits[active];
    if (event.ctrlKey || event.metaKey || event.altKey || !hit) return;
    const act = {
      ArrowRight: () => move(active + 1),
      ArrowLeft: () => move(active - 1),
      ArrowDown: () => move(beside(layout.boxes, active, 1)),
      ArrowUp: () => (layout.boxes[active].top === 0 ? document.getElementById("search").focus() : move(beside(layout.boxes, active, -1))),
      Home: () => move(0),
      End: () => move(hits.length - 1),
      m: () => marks.more(hit.id),
      l: () => marks.less(hit.id),
      x: () => toggle(hit, { hits }),
      X: () => toggle(hit, { hits, shift: true }),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  };
  const drawn = layout
    ? layout.boxes.map((one, at) => [one, at]).filter(([one, at]) => (one.top + one.height > from && one.top < until) || at === active)
    : [];
  return html`<div class=${`gallery${selection.size ? " selecting" : ""}`} ref=${box} style=${{ height: `${layout?.height ?? 0}px` }}>
    <div role="list" aria-label="Pictures" onKeyDown=${keys}>
      ${drawn.map(([one, at]) => html`<${Tile} key=${hits[at].id + (hits[at].caption ?? "")} at=${at} hit=${hits[at]} box=${one} total=${hits.length} active=${at === active} coarse=${coarse}
        hits=${hits} likely=${cut === null || at < cut} selected=${selection.has(hits[at].id)} mark=${marked(hits[at].id)} onFocus=${() => setActive(at)} />`)}
    </div>
    ${layout && layout.line !== null && line && html`<div class="cut-off" style=${{ top: `${layout.line}px` }}>
      <span class="cut-off-text"><strong>${line.title}</strong><span>${line.text}</span></span></div>`}
  </div>`;
}

function Tile({ at, hit, box, total, active, coarse, hits, likely, selected, mark, onFocus }) {
  const name = hit.name ?? `#${hit.id}`;
  const held = useRef();
  const label = [name, hit.caption, hit.probability != null && `${percent(hit.probability)} likely`, selected && "selected"].filter(Boolean).join(", ");
  const open = (event) => {
    if (event.shiftKey || ((event.ctrlKey || event.metaKey) && selecting()) || (coarse && selecting())) {
      event.preventDefault();
      toggle(hit, { hits, shift: event.shiftKey });
    } else follow(event, { image: hit.id }, { opened: true });
  };
  const press = (event) => {
    if (event.pointerType === "touch") held.current = setTimeout(() => { toggle(hit); navigator.vibrate?.(10); }, 500);
  };
  const tab = active ? 0 : -1;
  return html`<div role="listitem" aria-setsize=${total} aria-posinset=${at + 1} data-at=${at} data-id=${hit.id}
      class=${`tile${likely ? "" : " unlikely"}${selected ? " selected" : ""}${mark ? ` marked-${mark}` : ""}${box.width < 150 ? " small" : ""}`}
      style=${{ transform: `translate(${box.left}px, ${box.top}px)`, width: `${box.width}px`, height: `${box.height}px` }}>
    <a class="tile-link" href=${link({ image: hit.id })} tabindex=${tab} aria-label=${label} draggable
      onClick=${open} onFocus=${onFocus} onPointerDown=${press} onPointerUp=${() => clearTimeout(held.current)} onPointerCancel=${() => clearTimeout(held.current)}
      onContextMenu=${(event) => coarse && event.preventDefault()}
      onDragStart=${(event) => event.dataTransfer.setData("application/x-mmsearch-image", `${hit.id}`)}>
      <${Thumb} hit=${hit} box=${box} />
      ${hit.caption && html`<span class="tile-caption">${hit.caption}</span>`}
      <span class="tile-name">${name}</span>
      ${hit.probability != null && html`<span class="badge" title="How likely it is what you look for">${percent(hit.probability)}</span>`}
      ${hit.folded?.length > 0 && html`<span class="badge badge-folded"><${Icon} name="layers" size=${12} />${hit.folded.length + 1}</span>`}
    </a>
    <button type="button" class="tile-select" role="checkbox" aria-checked=${selected} aria-label=${`Select ${name}`} title="Select  (x)" tabindex=${tab}
      onClick=${(event) => toggle(hit, { hits, shift: event.shiftKey })}><${Icon} name="check" size=${14} /></button>
    ${!coarse && html`<span class="tile-marks">
      <button type="button" aria-label=${`More like ${name}`} title="More like this  (m)" aria-pressed=${mark === "more"} tabindex=${tab} onClick=${() => marks.more(hit.id)}><${Icon} name="thumbs-up" size=${15} /></button>
      <button type="button" aria-label=${`Less like ${name}`} title="Less like this  (l)" aria-pressed=${mark === "less"} tabindex=${tab} onClick=${() => marks.less(hit.id)}><${Icon} name="thumbs-down" size=${15} /></button>
    </span>`}
  </div>`;
}

const PATIENCE_MS = [700, 2500]; // before a picture is asked for again: a server may be too busy for a moment

function Thumb({ hit, box }) {
  const [failed, fail] = useState(false);
  const tries = useRef(0);
  const missed = ({ target }) => {
    const wait = PATIENCE_MS[tries.current];
    tries.current += 1;
    if (wait) setTimeout(() => { if (target.isConnected) target.src = target.src; }, wait);
    else fail(true);
  };
  if (failed) return html`<span class="tile-none"><${Icon} name="image-off" size=${24} /><span>No picture</span></span>`;
  return html`<img src=${thumbnail(hit.id, Math.min(box.width, box.height))} width=${Math.round(box.width)} height=${Math.round(box.height)}
    alt="" decoding="async" draggable=${false} onError=${missed} onLoad=${(event) => event.target.classList.add("loaded")} />`;
}

// --- where things lie ---------------------------------------------------------------------------------------------------

const LINE_HEIGHT = 92; // px, of the cut-off with its room

function arrange(hits, cut, width) {
  const narrow = width < 600;
  const gap = narrow ? 4 : 8;
  const row = narrow ? 112 : Math.min(300, Math.max(180, width / 6.5));
  const place = (some, top) => {
    const ratios = some.map((hit) => Math.min(narrow ? 2 : 3, Math.max(0.5, hit.width && hit.height ? hit.width / hit.height : 1)));
    const { boxes, containerHeight } = justify(ratios, {
      containerWidth: width, containerPadding: 0, boxSpacing: gap, targetRowHeight: row, targetRowHeightTolerance: 0.25,
    });
    return { boxes: boxes.map((box) => ({ ...box, top: box.top + top })), height: some.length ? containerHeight : 0 };
  };
  if (cut === null || cut >= hits.length) return { ...place(hits, 0), line: null };
  const likely = place(hits.slice(0, cut), 0);
  const top = cut ? likely.height + LINE_HEIGHT : 0;
  const others = place(hits.slice(cut), top);
  return { boxes: [...likely.boxes, ...others.boxes], height: top + others.height, line: cut ? likely.height : null };
}

/** The tile nearest in the row above (-1) or below (1). */
function beside(boxes, at, step) {
  const here = boxes[at];
  const middle = here.left + here.width / 2;
  const rows = boxes.map((box) => box.top).filter((top) => (step > 0 ? top > here.top : top < here.top));
  if (!rows.length) return step > 0 ? boxes.length - 1 : at;
  const row = step > 0 ? Math.min(...rows) : Math.max(...rows);
  let best = at;
  let least = Infinity;
  boxes.forEach((box, place) => {
    const away = Math.abs(box.left + box.width / 2 - middle);
    if (box.top === row && away < least) [best, least] = [place, away];
  });
  return best;
}

function reveal(gallery, box) {
  const top = gallery.getBoundingClientRect().top + box.top;
  const header = document.querySelector(".top").offsetHeight + 12;
  if (top < header) scrollBy(0, top - header);
  else if (top + box.height > innerHeight - 24) scrollBy(0, top + box.height - innerHeight + 24);
}

/** The part of an element that is in the window or near it: [top, bottom], in px of the element. */
function useWindow(element, height) {
  const [span, set] = useState([0, 2000]);
  useLayoutEffect(() => {
    let waiting = 0;
    const measure = () => {
      waiting = 0;
      const top = -element.current.getBoundingClientRect().top;
      const step = innerHeight / 2; // coarse steps: a few drawings a screen, not one a pixel
      const from = Math.floor((top - AHEAD * innerHeight) / step) * step;
      const until = Math.ceil((top + (1 + AHEAD) * innerHeight) / step) * step;
      set((before) => (before[0] === from && before[1] === until ? before : [from, until]));
    };
    const scrolled = () => { waiting ||= requestAnimationFrame(measure); };
    measure();
    addEventListener("scroll", scrolled, { passive: true });
    addEventListener("resize", scrolled);
    return () => {
      cancelAnimationFrame(waiting);
      removeEventListener("scroll", scrolled);
      removeEventListener("resize", scrolled);
    };
  }, [height]);
  return span;
}
