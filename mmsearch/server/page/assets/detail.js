// One picture, large, with what is known about it, why it was found, and what to do with it.

import { close, current, go, listsOnly, queryOf } from "./address.js";
import { useAnswer } from "./api.js";
import { Crop } from "./crop.js";
import { Facts } from "./facts.js";
import * as marks from "./marks.js";
import { Dialog, Icon, IconButton, Problem, html } from "./parts.js";
import { original, searchWith, showing, thumbnail } from "./pictures.js";
import { toggle, useSelection } from "./selection.js";
import { useEffect, useRef, useState } from "./vendor/htm-preact.js";

export function Detail({ asked }) {
  const id = asked.image;
  const hits = showing();
  const at = hits.findIndex((hit) => hit.id === id);
  const hit = at < 0 ? null : hits[at];
  const { data, error, again, fresh } = useAnswer("GET", `/images/${id}`);
  const [cropping, setCropping] = useState(false);
  const selection = useSelection();
  const image = fresh && data ? data : null;
  const size = image ?? hit ?? {};
  useEffect(() => setCropping(false), [id]);

  const turn = (step) => {
    const next = hits[at + step];
    if (at >= 0 && next) go({ image: next.id }, { replace: true });
  };
  const shut = () => (cropping ? setCropping(false) : close({ image: null }));
  const similar = () => searchWith({ image: id }, { alone: true });
  const fullScreen = () => openFullScreen(hits.length && at >= 0 ? hits : [{ id, ...size }], Math.max(0, at));
  const select = () => toggle(hit ?? { id, name: image?.files[0]?.name, path: image?.files[0]?.path }, { hits });
  const keys = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea, select") || event.defaultPrevented) return;
    const act = {
      ArrowRight: () => turn(1), ArrowLeft: () => turn(-1), m: () => marks.more(id), l: () => marks.less(id), s: similar,
      c: () => setCropping(!cropping), f: fullScreen, x: select, t: () => document.querySelector(".tag-input")?.focus(),
    }[event.key];
    if (!act || (cropping && event.key.startsWith("Arrow"))) return;
    event.preventDefault();
    act();
  };
  const more = asked.more.includes(id);
  const less = asked.less.includes(id);
  return html`<${Dialog} label=${`Picture ${image?.files[0]?.name ?? `#${id}`}`} className="detail" onClose=${shut} onKeyDown=${keys}>
    <div class="stage" style=${{ "--ratio": (size.width || 4) / (size.height || 3) }}>
      <div class="stage-bar">
        <${IconButton} icon="arrow-left" label="Back" keys="Esc" onClick=${shut} />
        ${at >= 0 && html`<span class="place soft">${at + 1} of ${hits.length}</span>`}
        <span class="stage-tools">
          <${IconButton} icon="crop" label="Search with a part of it" keys="c" aria-pressed=${cropping} onClick=${() => setCropping(!cropping)} />
          <${IconButton} icon="maximize" label="Full screen" keys="f" onClick=${fullScreen} />
          <a class="icon-button" href=${original(id)} download aria-label="Download the original" title="Download the original"><${Icon} name="download" /></a>
          <${IconButton} icon="check" label="Select" keys="x" aria-pressed=${selection.has(id)} onClick=${select} />
        </span>
      </div>
      ${error && !image && fresh ? html`<${Problem} error=${error} again=${again} />` : html`<${Stage} key=${id} id=${id} size=${size} cropping=${cropping} onOpen=${fullScreen}
        onCrop=${(part) => { setCropping(false); searchWith({ image: id, part }, { alone: true }); }} onCancel=${() => setCropping(false)} />`}
      ${at > 0 && html`<button type="button" class="turn turn-back" aria-label="The picture before" onClick=${() => turn(-1)}><${Icon} name="chevron-left" size=${24} /></button>`}
      ${at >= 0 && at < hits.length - 1 && html`<button type="button" class="turn turn-on" aria-label="The next picture" onClick=${() => turn(1)}><${Icon} name="chevron-right" size=${24} /></button>`}
    </div>
    <div class="panel">
      <div class="panel-actions">
        <button type="button" class="button primary" onClick=${similar} title="Find similar pictures  (s)"><${Icon} name="scan-search" size=${16} />Find similar</button>
        <button type="button" class="button" aria-pressed=${more} onClick=${() => marks.more(id)} title="More like this  (m)"><${Icon} name="thumbs-up" size=${16} />More</button>
        <button type="button" class="button" aria-pressed=${less} onClick=${() => marks.less(id)} title="Less like this  (l)"><${Icon} name="thumbs-down" size=${16} />Less</button>
      </div>
      ${image && html`<${Facts} key=${id} image=${image} hit=${hit} query=${listsOnly(asked) ? null : queryOf(current())} again=${again} />`}
    </div>
  <//>`;
}

function Stage({ id, size, cropping, onOpen, onCrop, onCancel }) {
  const [failed, fail] = useState(false);
  const room = useRef();
  const [box, setBox] = useState(null); // the largest box of the picture's shape that fits
  useEffect(() => {
    const fit = () => {
      const { clientWidth, clientHeight } = room.current;
      const [width, height] = [size.width || 4, size.height || 3];
      const scale = Math.min(clientWidth / width, clientHeight / height, Math.max(1, Math.max(720, clientWidth * 0.55) / Math.max(width, height)));
      setBox({ width: Math.round(width * scale), height: Math.round(height * scale) });
    };
    fit();
    const watcher = new ResizeObserver(fit);
    watcher.observe(room.current);
    return () => watcher.disconnect();
  }, [size.width, size.height]);
  return html`<div class="stage-room" ref=${room}>
    ${failed ? html`<div class="empty"><${Icon} name="image-off" size=${32} /><p>This picture cannot be shown.</p></div>`
      : box && html`<div class="stage-picture" style=${{ width: `${box.width}px`, height: `${box.height}px` }}>
        <img class="stage-small" src=${thumbnail(id, 160)} alt="" width=${box.width} height=${box.height} />
        <img class="stage-large" src=${thumbnail(id, 1280)} alt="" width=${box.width} height=${box.height} onError=${() => fail(true)} />
        ${cropping ? html`<${Crop} onCrop=${onCrop} onCancel=${onCancel} />` : html`<button type="button" class="stage-open" aria-label="Full screen" onClick=${onOpen} />`}
      </div>`}
  </div>`;
}

async function openFullScreen(hits, index) {
  if (!document.querySelector("link[href$='photoswipe.css']")) {
    const sheet = Object.assign(document.createElement("link"), { rel: "stylesheet", href: "/assets/vendor/photoswipe.css" });
    document.head.append(sheet);
    await new Promise((done) => { sheet.onload = done; sheet.onerror = done; });
  }
  const { default: PhotoSwipe } = await import("./vendor/photoswipe.js");
  const host = document.querySelector("dialog.detail");
  const show = new PhotoSwipe({
    dataSource: hits.map((hit) => ({ src: hit.format && !WEB.has(hit.format.toUpperCase()) ? thumbnail(hit.id, 1280) : original(hit.id), msrc: thumbnail(hit.id, 640), width: hit.width || 1200, height: hit.height || 900, alt: hit.name ?? "" })),
    index,
    appendToEl: host,
    bgOpacity: 1,
    wheelToZoom: true,
    returnFocus: false,
    escKey: false, // the dialog hears it first
  });
  const shut = (event) => { event.preventDefault(); event.stopImmediatePropagation(); if (show.opener.isOpen) show.close(); else show.on("openingAnimationEnd", () => show.close()); };
  host.addEventListener("cancel", shut, { capture: true });
  show.on("destroy", () => {
    host.removeEventListener("cancel", shut, { capture: true });
    const hit = hits[show.currIndex];
    if (current().image !== null && hit && hit.id !== current().image) go({ image: hit.id }, { replace: true });
  });
  show.init();
}

const WEB = new Set(["JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP"]); // what every browser shows
