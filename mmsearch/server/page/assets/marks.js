// "More like this", "less like this": ids of good and bad answers in the state; a second time takes it back.

import { current, go } from "./address.js";
import { say } from "./parts.js";

function mark(id, wanted) {
  const state = current();
  const [to, from] = wanted ? ["more", "less"] : ["less", "more"];
  const taken = state[to].includes(id);
  const match = state.match === "keywords" ? { match: "hybrid" } : {}; // words alone know no likeness
  go({
    ...(state.terms.length ? match : {}),
    view: "search",
    image: null,
    [to]: taken ? state[to].filter((one) => one !== id) : [...state[to], id],
    [from]: state[from].filter((one) => one !== id),
  });
  if (!taken) say(wanted ? "More like this: the answers follow." : "Less like this: the answers follow.");
}

export const more = (id) => mark(id, true);
export const less = (id) => mark(id, false);
