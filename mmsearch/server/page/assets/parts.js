// The small parts that every view is made of: icons, buttons, popovers, dialogs, notes.

import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/htm-preact.js";
import icons from "./vendor/icons.js";

export { html };

export function Icon({ name, size = 18 }) {
  return html`<svg class="icon" width=${size} height=${size} viewBox="0 0 24 24" aria-hidden="true"
    dangerouslySetInnerHTML=${{ __html: icons[name] }} />`;
}

/** A button with an icon alone; its label is read out and shown on hover. */
export function IconButton({ icon, label, keys, size, ...rest }) {
  return html`<button type="button" class="icon-button" aria-label=${label} title=${keys ? `${label}  (${keys})` : label}
    ...${rest}><${Icon} name=${icon} size=${size} /></button>`;
}

let made = 0;
export function useId(name) {
  return useState(() => `${name}-${(made += 1)}`)[0];
}

/** A button that opens a small sheet beside it; closes by Escape, a click elsewhere, or `close()` given to `children`. */
export function Popover({ button, label, className = "button", children, width = 320, keys, expanded }) {
  const id = useId("sheet");
  const trigger = useRef();
  const sheet = useRef();
  const [open, setOpen] = useState(false);
  useLayoutEffect(() => {
    const element = sheet.current;
    const toggled = (event) => setOpen(event.newState === "open");
    element.addEventListener("beforetoggle", toggled);
    return () => element.removeEventListener("beforetoggle", toggled);
  }, []);
  useLayoutEffect(() => {
    if (!open) return undefined;
    const place = () => placeBeside(trigger.current, sheet.current, width);
    place();
    const watcher = new ResizeObserver(place);
    watcher.observe(sheet.current);
    addEventListener("resize", place);
    return () => {
      watcher.disconnect();
      removeEventListener("resize", place);
    };
  }, [open]);
  const close = () => sheet.current?.hidePopover();
  return html`<button type="button" ref=${trigger} class=${className} popovertarget=${id} aria-label=${label}
      aria-expanded=${open} title=${keys ? `${label}  (${keys})` : label} ...${expanded ?? {}}>${button}</button>
    <div class="sheet" id=${id} popover="auto" ref=${sheet} role="dialog" aria-label=${label}>${open && children(close)}</div>`;
}

function placeBeside(trigger, sheet, width) {
  const box = trigger.getBoundingClientRect();
  const wide = Math.min(width, innerWidth - 16);
  const left = Math.max(8, Math.min(box.left, innerWidth - wide - 8));
  const below = innerHeight - box.bottom - 16;
  const above = box.top - 16;
  const under = below >= Math.min(sheet.scrollHeight, 320) || below >= above;
  Object.assign(sheet.style, {
    width: `${wide}px`,
    left: `${left}px`,
    top: under ? `${box.bottom + 6}px` : "auto",
    bottom: under ? "auto" : `${innerHeight - box.top + 6}px`,
    maxHeight: `${under ? below : above}px`,
  });
}

/** A modal dialog: the browser keeps the focus inside and gives it back. */
export function Dialog({ label, className = "", onClose, children, ...rest }) {
  const dialog = useRef();
  useEffect(() => {
    const element = dialog.current;
    const before = document.activeElement;
    element.showModal();
    (element.querySelector("[autofocus]") ?? element).focus({ preventScroll: true });
    return () => {
      element.close();
      before?.isConnected && before.focus({ preventScroll: true });
    };
  }, []);
  return html`<dialog ref=${dialog} class=${className} aria-label=${label} tabindex="-1" ...${rest}
    onCancel=${(event) => { event.preventDefault(); if (event.target === dialog.current) onClose(); }}
    onClick=${(event) => event.target === dialog.current && onClose()}>${children}</dialog>`;
}

// --- a short word that something happened ------------------------------------------------------------------------------

let notes = [];
const watchers = new Set();

/** Say it for some seconds. bad: it went wrong; stays longer. */
export function say(text, { bad = false } = {}) {
  const note = { text, bad, id: (made += 1) };
  notes = [...notes.slice(-2), note];
  watchers.forEach((watch) => watch(notes));
  setTimeout(() => {
    notes = notes.filter((one) => one !== note);
    watchers.forEach((watch) => watch(notes));
  }, bad ? 9000 : 4000);
}

export function Notes() {
  const [shown, show] = useState(notes);
  const box = useRef();
  useEffect(() => {
    watchers.add(show);
    return () => watchers.delete(show);
  }, []);
  useEffect(() => { // above open dialogs too
    const element = box.current;
    if (element.matches(":popover-open")) element.hidePopover();
    if (shown.length) element.showPopover();
  }, [shown]);
  return html`<div class="notes" role="status" popover="manual" ref=${box}>
    ${shown.map((note) => html`<p key=${note.id} class=${note.bad ? "note bad" : "note"}>${note.bad && html`<${Icon} name="circle-alert" />`}${note.text}</p>`)}
  </div>`;
}

// --- larger pieces ------------------------------------------------------------------------------------------------------

/** What stands where there is nothing to show. */
export function Empty({ icon, title, children }) {
  return html`<div class="empty"><${Icon} name=${icon} size=${32} /><h2>${title}</h2>${children}</div>`;
}

export function Problem({ error, again }) {
  return html`<div class="problem" role="alert"><${Icon} name="circle-alert" /><p>${error.message}</p>
    ${again && html`<button type="button" class="button" onClick=${again}>Try again</button>`}</div>`;
}

export function Bar({ share, className = "" }) {
  return html`<span class=${`bar ${className}`} aria-hidden="true"><span style=${{ width: `${Math.max(0, Math.min(1, share)) * 100}%` }} /></span>`;
}

/** A colour of the page as the browser computes it, for canvases. */
export function colour(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

/** Calls back when light turns dark or the reverse. */
export function onTheme(callback) {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const watcher = new MutationObserver(callback);
  watcher.observe(document.documentElement, { attributeFilter: ["data-theme"] });
  system.addEventListener("change", callback);
  return () => {
    watcher.disconnect();
    system.removeEventListener("change", callback);
  };
}

export function useMedia(query) {
  const [matches, set] = useState(() => matchMedia(query).matches);
  useEffect(() => {
    const media = matchMedia(query);
    const changed = () => set(media.matches);
    media.addEventListener("change", changed);
    return () => media.removeEventListener("change", changed);
  }, [query]);
  return matches;
}

/** {width, height} of an element, kept current. */
export function useSize(element) {
  const [size, set] = useState({ width: 0, height: 0 });
  useLayoutEffect(() => {
    const measure = () => {
      const { clientWidth: width, clientHeight: height } = element.current;
      set((before) => (before.width === width && before.height === height ? before : { width, height }));
    };
    measure();
    const watcher = new ResizeObserver(measure);
    watcher.observe(element.current);
    return () => watcher.disconnect();
  }, []);
  return size;
}
