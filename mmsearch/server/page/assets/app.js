// The page: its head, which view is open, what reaches the whole window (keys, drops, pastes).

import { current, follow, go, link, useAddress } from "./address.js";
import { refusesToken, useAnswer } from "./api.js";
import { Dialog, Icon, Notes, Popover, html, say, useMedia } from "./parts.js";
import { takeIn } from "./pictures.js";
import { Results } from "./results.js";
import { Saved } from "./saved.js";
import { SearchBox } from "./searchbox.js";
import { SelectionBar, clear, selecting } from "./selection.js";
import { render, useEffect, useState } from "./vendor/htm-preact.js";
import { several } from "./words.js";

const VIEWS = { search: "Search", map: "Map", duplicates: "Duplicates", collection: "Collection" };

function App() {
  const asked = useAddress();
  const [draft, setDraft] = useState(null);
  const [help, setHelp] = useState(false);
  const [locked, setLocked] = useState(false);
  useEffect(() => {
    const lock = () => setLocked(true);
    addEventListener("token-needed", lock);
    return () => removeEventListener("token-needed", lock);
  }, []);
  useKeys(() => setHelp(true));
  useEffect(() => { document.title = titleOf(asked); }, [asked]);
  const View = { map: Map, duplicates: Duplicates, collection: Collection }[asked.view];
  return html`
    <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); document.getElementById("main")?.focus(); }}>Skip to the pictures</a>
    <header class="top">
      <a class="brand" href=${link({ ...FRESH })} onClick=${(event) => follow(event, FRESH)} aria-label="mmsearch: all pictures"><img src="/assets/icon.svg" alt="" width="28" height="28" /><span>mmsearch</span></a>
      <${SearchBox} asked=${asked} onDraft=${setDraft} />
      <${Navigation} asked=${asked} onHelp=${() => setHelp(true)} />
    </header>
    ${View ? html`<${View} asked=${asked} key=${asked.view} />` : html`<${Results} asked=${asked} draft=${draft} />`}
    <${SelectionBar} />
    ${asked.image !== null && html`<${Detail} asked=${asked} />`}
    ${help && html`<${Lazy} from="./keys.js" name="Keys" onClose=${() => setHelp(false)} />`}
    ${locked && html`<${Token} />`}
    <${Drop} />
    <${Notes} />`;
}

const FRESH = { view: "search", image: null, terms: [], filters: {}, more: [], less: [] };

function titleOf(asked) {
  if (asked.view !== "search") return `${VIEWS[asked.view]} – mmsearch`;
  const words = asked.terms.map((term) => `${(term.weight ?? 1) < 0 ? "not " : ""}${term.text ?? "picture"}`).join(", ");
  return words ? `${words} – mmsearch` : "mmsearch";
}

// --- views that load when they are opened --------------------------------------------------------------------------------

const modules = new window.Map();

function Lazy({ from, name, ...rest }) {
  const [module, setModule] = useState(() => modules.get(from));
  useEffect(() => {
    if (module) return;
    import(from).then(
      (loaded) => { modules.set(from, loaded); setModule(loaded); },
      () => say("A part of the page could not be loaded; is the server still running?", { bad: true }),
    );
  }, []);
  return module ? html`<${module[name]} ...${rest} />` : null;
}

const Detail = (props) => html`<${Lazy} from="./detail.js" name="Detail" ...${props} />`;
const Map = (props) => html`<${Lazy} from="./map.js" name="MapView" ...${props} />`;
const Duplicates = (props) => html`<${Lazy} from="./duplicates.js" name="DuplicatesView" ...${props} />`;
const Collection = (props) => html`<${Lazy} from="./collection.js" name="CollectionView" ...${props} />`;

// --- the head --------------------------------------------------------------------------------------------------------------

function Navigation({ asked, onHelp }) {
  const wide = useMedia("(min-width: 1100px)");
  const narrow = useMedia("(max-width: 600px)");
  const items = Object.entries(VIEWS).map(([view, label]) => html`<a href=${link({ view, image: null })} aria-current=${asked.view === view ? "page" : null}
    onClick=${(event) => follow(event, { view, image: null })}>${label}</a>`);
  return html`<div class="head-end">
    ${wide && html`<nav class="views" aria-label="Views">${items}</nav>`}
    <${Popover} className="icon-button" label=${wide ? "Settings" : "Menu"} button=${html`<${Icon} name=${wide ? "ellipsis" : "menu"} />`} width=${260}>
      ${(close) => html`
        ${!wide && html`<nav class="menu-views" aria-label="Views" onClick=${close}>${items}</nav>`}
        <${Collections} asked=${asked} />
        ${narrow && html`<${Saved} asked=${asked} row />`}
        <${Theme} />
        <button type="button" class="row" onClick=${() => { close(); onHelp(); }}><${Icon} name="keyboard" size=${16} />Keys<kbd>?</kbd></button>`}
    <//>
  </div>`;
}

function Collections({ asked }) {
  const { data } = useAnswer("GET", "/collections");
  if (!data || data.length < 2) return null;
  return html`<fieldset class="options"><legend>Collection</legend>${data.map((one) => html`<label class="option" key=${one.name}>
    <input type="radio" name="collection" checked=${asked.collection ? one.name === asked.collection : one.current} onChange=${() => go({ ...FRESH, collection: one.name })} />
    <span><strong>${one.name}</strong><span class="soft">${several(one.images, "picture")}</span></span></label>`)}</fieldset>`;
}

function Theme() {
  const root = document.documentElement;
  const [theme, set] = useState(root.dataset.theme ?? "system");
  const choose = (chosen) => {
    if (chosen === "system") {
      delete root.dataset.theme;
      localStorage.removeItem("mmsearch-theme");
    } else {
      root.dataset.theme = chosen;
      localStorage.setItem("mmsearch-theme", chosen);
    }
    set(chosen);
  };
  return html`<fieldset class="choices" aria-label="Colours">${[["system", "monitor", "As the system"], ["light", "sun", "Light"], ["dark", "moon", "Dark"]].map(([name, icon, label]) => html`<label title=${label}>
    <input type="radio" name="theme" checked=${theme === name} onChange=${() => choose(name)} aria-label=${label} /><span><${Icon} name=${icon} size=${16} /></span></label>`)}</fieldset>`;
}

// --- what reaches the whole window -----------------------------------------------------------------------------------------

const writing = (element) => element.matches("input:not([type=checkbox], [type=radio], [type=range]), textarea, select");

function useKeys(onHelp) {
  useEffect(() => {
    const pressed = (event) => {
      if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || writing(event.target)) return;
      if (event.key === "Escape" && selecting() && !document.querySelector("dialog[open]")) clear();
      if (document.querySelector("dialog[open]")) return;
      if (event.key === "/") {
        event.preventDefault();
        document.getElementById("search").focus();
      }
      if (event.key === "?") onHelp();
      if (["ArrowDown", "ArrowRight"].includes(event.key) && event.target === document.body) {
        const first = document.querySelector(".tile-link[tabindex='0']");
        if (first) event.preventDefault();
        first?.focus();
      }
    };
    const pasted = (event) => {
      if (!writing(event.target) && event.clipboardData.files.length && takeIn(event.clipboardData)) event.preventDefault();
    };
    addEventListener("keydown", pressed);
    addEventListener("paste", pasted);
    return () => {
      removeEventListener("keydown", pressed);
      removeEventListener("paste", pasted);
    };
  }, []);
}

function Drop() {
  const [over, setOver] = useState(false);
  useEffect(() => {
    let deep = 0;
    const carries = (event) => ["Files", "text/uri-list", "application/x-mmsearch-image"].some((kind) => event.dataTransfer?.types.includes(kind));
    const enter = (event) => { if (carries(event)) { deep += 1; setOver(true); } };
    const leave = (event) => { if (carries(event)) { deep = Math.max(0, deep - 1); if (!deep) setOver(false); } };
    const above = (event) => carries(event) && event.preventDefault();
    const drop = (event) => {
      deep = 0;
      setOver(false);
      if (!carries(event)) return;
      event.preventDefault();
      if (!takeIn(event.dataTransfer)) say("This is no picture; drop an image file, or a picture of another page.", { bad: true });
    };
    const heard = { dragenter: enter, dragleave: leave, dragover: above, drop };
    for (const [name, handler] of Object.entries(heard)) addEventListener(name, handler);
    return () => { for (const [name, handler] of Object.entries(heard)) removeEventListener(name, handler); };
  }, []);
  return over && html`<div class="drop"><div><${Icon} name="image-plus" size=${32} /><strong>Drop it to find what looks like it</strong>
    <span>${current().terms.length ? "It is added to what you look for." : "Your picture stays on this server."}</span></div></div>`;
}

function Token() {
  const [wrong, setWrong] = useState("");
  const enter = async (event) => {
    event.preventDefault();
    const token = new FormData(event.target).get("token").trim();
    const refused = await refusesToken(token);
    if (refused) return setWrong(refused);
    const asked = new URLSearchParams(location.search);
    asked.set("token", token);
    return location.replace(`/?${asked}`); // the server turns it into a cookie
  };
  return html`<${Dialog} label="A token is needed" className="small-dialog" onClose=${() => {}}>
    <form onSubmit=${enter}><h2>A token is needed</h2><p class="soft">The terminal in which <code>mmsearch serve</code> was started shows it.</p>
      <label class="field">Token<input name="token" type="password" autocomplete="off" required autofocus aria-describedby="token-wrong" /></label>
      <p class="wrong" id="token-wrong" role="alert">${wrong}</p>
      <div class="sheet-actions"><button class="button primary">Open</button></div></form><//>`;
}

render(html`<${App} />`, document.getElementById("app"));
