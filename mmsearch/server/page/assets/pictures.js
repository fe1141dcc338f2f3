// Where pictures come from and go to: thumbnails, uploads, what is on show, what was said about it.

import { current, go } from "./address.js";
import { call, path } from "./api.js";
import { say } from "./parts.js";

const SIZES = [160, 320, 640, 1280];

/** The address of a thumbnail whose shorter side fills so many pixels of the page. */
export function thumbnail(id, pixels) {
  const wanted = pixels * Math.min(devicePixelRatio || 1, 2) * 0.9;
  return path(`/images/${id}/thumbnail`, { size: SIZES.find((size) => size >= wanted) ?? 1280 });
}

export const original = (id) => path(`/images/${id}/original`);

/** The picture of a term, or null for a text or an address. */
export function pictureOf(term, pixels) {
  if (term.image !== undefined) return thumbnail(term.image, pixels);
  if (term.upload !== undefined) return path(`/uploads/${term.upload}/thumbnail`);
  return null;
}

// --- what is on show: the detail view turns its pages -------------------------------------------------------------------

let shown = [];
export const showing = () => shown;
export const show = (hits) => { shown = hits; };

// --- pictures from elsewhere ------------------------------------------------------------------------------------------

/** Add a picture to what is looked for. */
export function searchWith(term, { alone = false } = {}) {
  const { terms } = current();
  const kept = alone ? {} : { terms: [...terms, term] };
  go({ view: "search", image: null, ...(alone ? { terms: [term], more: [], less: [], filters: {} } : kept) });
}

export async function searchWithFile(file) {
  try {
    const { id } = await call("POST", "/uploads", file);
    searchWith({ upload: id });
  } catch (error) {
    say(error.message, { bad: true });
  }
}

/** What was dropped or pasted, as a term: a file, one of our tiles, an address. False where it is none of these. */
export function takeIn(data) {
  const own = data.getData("application/x-mmsearch-image");
  if (own) return searchWith({ image: Number(own) }), true;
  const file = [...data.files].find((one) => one.type.startsWith("image/") || one.type === "");
  if (file) return searchWithFile(file), true;
  const address = data.getData("text/uri-list").split("\n").find((line) => /^https?:\/\//.test(line));
  if (address) return searchWith({ picture: address.trim() }), true;
  return false;
}
