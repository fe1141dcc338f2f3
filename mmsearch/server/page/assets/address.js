// The address <-> what the page shows. Everything that a link should bring back stands in the address, as in
//   ?q=a+beach&q=2:sunset&not=people&like=12@0.1,0.2,0.5,0.5&tag=holiday&sort=date&image=7
// In: the browser's address. Out: a plain object (`State` below), and `go` to change it.

import { useEffect, useState } from "./vendor/htm-preact.js";

const LISTS = { inside: "in", camera: "camera", format: "format", tags: "tag", has: "has" };
const TEXTS = ["after", "before", "orientation", "where"];
const DATE = /^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])(T[\d:.]+)?$/;
const VALID = { // what else stands in an address is passed over: people write and shorten them
  view: ["search", "map", "duplicates", "collection"],
  tab: ["status", "indexing", "evaluation"],
  find: ["images", "captions"],
  match: ["vectors", "keywords", "hybrid", "joint"],
  sort: ["relevance", "date", "name"],
  orientation: ["landscape", "portrait", "square"],
  has: ["caption", "tag", "date", "gps", "text"],
};
const NUMBERS = ["min_width", "min_height"];
export const USUAL = {
  view: "search", tab: "status", image: null, collection: null, terms: [], filters: {}, more: [], less: [],
  find: "images", match: "vectors", sort: "relevance", min_probability: null, unique: false, diverse: 0,
};

// --- terms as people write them: 2:sunset, 0.5:12@0.1,0.2,0.3,0.4 ---------------------------------------------------

const WEIGHTED = /^(\d+(?:\.\d+)?|\.\d+):(.+)$/s;
const PART = /^(.+)@(-?[\d.]+,-?[\d.]+,-?[\d.]+,-?[\d.]+)$/s;

/** `2:sunset` -> {text, weight}; `-people` (only where `signs`) -> a weight below zero; `=2:30 pm` as it is. */
export function textTerm(written, signs = false) {
  let rest = written.trim();
  let sign = 1;
  if (signs && /^-\s*\S/.test(rest)) [sign, rest] = [-1, rest.slice(1).trim()];
  if (rest.startsWith("=") && rest.length > 1) return weighted({ text: rest.slice(1) }, sign);
  const found = WEIGHTED.exec(rest);
  if (found && Number(found[1]) > 0) return weighted({ text: found[2].trim() }, sign * Number(found[1]));
  return weighted({ text: rest }, sign);
}

export function writeText(term) {
  const weight = Math.abs(term.weight ?? 1);
  if (weight !== 1) return `${weight}:${term.text}`;
  return WEIGHTED.test(term.text) || term.text.startsWith("=") ? `=${term.text}` : term.text;
}

function pictureTerm(written, sign) {
  let rest = written;
  let weight = 1;
  const found = WEIGHTED.exec(rest);
  if (found && !found[2].startsWith("//")) [weight, rest] = [Number(found[1]) || 1, found[2]];
  const part = PART.exec(rest);
  const term = {};
  if (part) [rest, term.part] = [part[1], part[2].split(",").map(Number)];
  if (/^\d+$/.test(rest)) term.image = Number(rest);
  else if (/^https?:\/\//i.test(rest)) term.picture = rest;
  else term.upload = rest.replace(/^upload-/, "");
  return weighted(term, sign * weight);
}

function writePicture(term) {
  const weight = Math.abs(term.weight ?? 1);
  const what = term.image ?? term.picture ?? `upload-${term.upload}`;
  const part = term.part ? `@${term.part.map((number) => +number.toFixed(4)).join(",")}` : "";
  return `${weight === 1 ? "" : `${weight}:`}${what}${part}`;
}

function weighted(term, weight) {
  return weight === 1 ? term : { ...term, weight };
}

// --- the whole address ------------------------------------------------------------------------------------------------

export function readAddress(search) {
  const asked = new URLSearchParams(search);
  const state = { ...USUAL, terms: [], filters: {} };
  for (const [name, value] of asked) {
    if (!value.trim()) continue;
    if (name === "q" || name === "not") state.terms.push(flip(textTerm(value), name === "not"));
    if (name === "like" || name === "unlike") state.terms.push(pictureTerm(value, name === "like" ? 1 : -1));
  }
  for (const [filter, name] of Object.entries(LISTS)) if (asked.has(name)) state.filters[filter] = asked.getAll(name);
  if (state.filters.has) state.filters.has = state.filters.has.filter((one) => VALID.has.includes(one));
  if (!state.filters.has?.length) delete state.filters.has;
  for (const name of TEXTS) if (asked.get(name)) state.filters[name] = asked.get(name);
  for (const name of ["after", "before"]) if (!DATE.test(state.filters[name] ?? "")) delete state.filters[name];
  if (!VALID.orientation.includes(state.filters.orientation)) delete state.filters.orientation;
  for (const name of NUMBERS) if (Number(asked.get(name)) > 0) state.filters[name] = Number(asked.get(name));
  const near = (asked.get("near") ?? "").split(",").map(Number);
  if (near.length === 3 && near.every(Number.isFinite)) state.filters.near = near;
  for (const name of ["more", "less"]) if (asked.get(name)) state[name] = asked.get(name).split(",").map(Number).filter(Number.isInteger);
  state.collection = asked.get("collection");
  for (const name of ["view", "tab", "find", "match", "sort"]) if (VALID[name].includes(asked.get(name))) state[name] = asked.get(name);
  if (/^\d+$/.test(asked.get("image") ?? "")) state.image = Number(asked.get("image"));
  const share = (name, usual) => (Number(asked.get(name)) > 0 && Number(asked.get(name)) <= 1 ? Number(asked.get(name)) : usual);
  state.min_probability = share("min", USUAL.min_probability);
  state.diverse = share("diverse", USUAL.diverse);
  state.unique = asked.get("unique") === "1";
  return state;
}

function flip(term, unwanted) {
  return unwanted ? { ...term, weight: -(term.weight ?? 1) } : term;
}

export function writeAddress(state) {
  const asked = new URLSearchParams();
  for (const name of ["collection", "view"]) if (state[name] !== USUAL[name]) asked.append(name, state[name]);
  if (state.view === "collection" && state.tab !== USUAL.tab) asked.append("tab", state.tab);
  for (const term of state.terms) {
    const wanted = (term.weight ?? 1) > 0;
    if (term.text !== undefined) asked.append(wanted ? "q" : "not", writeText(term));
    else asked.append(wanted ? "like" : "unlike", writePicture(term));
  }
  for (const [filter, name] of Object.entries(LISTS)) for (const value of state.filters[filter] ?? []) asked.append(name, value);
  for (const name of [...TEXTS, ...NUMBERS]) if (state.filters[name]) asked.append(name, state.filters[name]);
  if (state.filters.near) asked.append("near", state.filters.near.join(","));
  for (const name of ["more", "less"]) if (state[name].length) asked.append(name, state[name].join(","));
  for (const name of ["find", "match", "sort"]) if (state[name] !== USUAL[name]) asked.append(name, state[name]);
  if (state.min_probability) asked.append("min", state.min_probability);
  if (state.diverse) asked.append("diverse", state.diverse);
  if (state.unique) asked.append("unique", "1");
  if (state.image !== null) asked.append("image", state.image);
  const written = asked.toString().replaceAll("%3A", ":").replaceAll("%2C", ",").replaceAll("%2F", "/").replaceAll("%40", "@");
  return written ? `/?${written}` : "/";
}

// --- the one state ----------------------------------------------------------------------------------------------------

const listeners = new Set();
let state = readAddress(location.search);

addEventListener("popstate", () => change(readAddress(location.search)));

function change(next) {
  state = next;
  for (const listener of listeners) listener(next);
}

export function current() {
  return state;
}

/** Change some of the state. replace: without a new entry in the history. opened: `close` goes back over this entry. */
export function go(changes, { replace = false, opened = false } = {}) {
  const next = { ...state, ...changes };
  const address = writeAddress(next);
  if (address !== location.pathname + location.search) {
    if (replace) history.replaceState(history.state, "", address);
    else history.pushState({ opened }, "", address);
  }
  change(next);
}

/** A link to the state with some changes, for <a href>. */
export function link(changes) {
  return writeAddress({ ...state, ...changes });
}

/** Undo what was `opened`; or, where a link led straight to it, make these changes. */
export function close(changes) {
  if (history.state?.opened) history.back();
  else go(changes, { replace: true });
}

/** For the onClick of a link: follow it without loading the page, unless it is to open elsewhere. */
export function follow(event, changes, options) {
  if (event.metaKey || event.ctrlKey || event.shiftKey || event.button) return;
  event.preventDefault();
  go(changes, options);
}

export function useAddress() {
  const [shown, show] = useState(state);
  useEffect(() => {
    listeners.add(show);
    show(state);
    return () => listeners.delete(show);
  }, []);
  return shown;
}

// --- what is asked of the server --------------------------------------------------------------------------------------

export function listsOnly(asked) {
  return !(asked.terms.length || asked.more.length || asked.less.length);
}

/** The state as a query in JSON, without what is as usual. */
export function queryOf(asked) {
  const query = { terms: asked.terms };
  if (Object.keys(asked.filters).length) query.filters = asked.filters;
  for (const name of ["more", "less"]) if (asked[name].length) query[name] = asked[name];
  if (asked.find !== "images") query.find = asked.find;
  for (const name of ["match", "sort", "min_probability", "unique", "diverse"]) {
    if (asked[name] !== USUAL[name]) query[name] = asked[name];
  }
  if (listsOnly(asked)) {
    for (const name of ["match", "min_probability", "diverse"]) delete query[name];
    if (asked.sort === "relevance") query.sort = "date";
  }
  return query;
}

/** A saved query -> the part of the state that it says. */
export function stateOf(query) {
  const asked = { image: null, view: "search" };
  for (const name of ["terms", "filters", "more", "less", "find", "match", "sort", "min_probability", "unique", "diverse"]) {
    asked[name] = query[name] ?? USUAL[name];
  }
  return asked;
}
