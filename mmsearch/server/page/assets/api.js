// The one way to the server: JSON in, JSON out. A refusal becomes a `Refusal` that holds the server's one line.

import { useEffect, useState } from "./vendor/htm-preact.js";
import { current } from "./address.js";

const ROOT = "/api/v1";

export class Refusal extends Error {
  constructor(status, line) {
    super(line);
    this.status = status;
  }
}

export function path(rest, values = {}) {
  const [place, given = ""] = rest.split("?");
  const asked = new URLSearchParams(given);
  for (const [name, value] of Object.entries(values)) asked.set(name, value);
  const { collection } = current();
  if (collection) asked.set("collection", collection);
  const written = asked.toString();
  return `${ROOT}${place}${written ? `?${written}` : ""}`;
}

export async function call(method, rest, body, { signal } = {}) {
  const request = { method, signal, headers: { Accept: "application/json" } };
  if (body instanceof Blob) {
    request.body = body;
    request.headers["Content-Type"] = body.type || "application/octet-stream";
  } else if (body !== undefined) {
    request.body = JSON.stringify(body);
    request.headers["Content-Type"] = "application/json";
  }
  const answer = await reach(path(rest), request);
  if (answer.status === 204) return null;
  return answer.json();
}

async function reach(address, request) {
  let answer;
  try {
    answer = await fetch(address, request);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "The server does not answer; is `mmsearch serve` still running?");
  }
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  if (answer.status === 401) dispatchEvent(new Event("token-needed"));
  throw new Refusal(answer.status, problem.detail || problem.title || `The server answered ${answer.status}.`);
}

/** Why the server does not take a token; "" where it does. */
export async function refusesToken(token) {
  try {
    const answer = await fetch(path("/collections"), { headers: { Authorization: `Bearer ${token}` } });
    return answer.status === 401 ? "This is not the token." : "";
  } catch {
    return "The server does not answer.";
  }
}

/** The bytes of an answer, for downloads. */
export async function fetchBlob(rest, body) {
  const request = { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
  return (await reach(path(rest), request)).blob();
}

/** {data, error, loading, again}: what a GET or POST gives, asked again whenever one of its parts changes. `last`: what
 * it gave before, when there is an error now; `fresh`: data or error belong to what is asked now. */
export function useAnswer(method, rest, body) {
  const [answer, set] = useState({ loading: true });
  const [turn, setTurn] = useState(0);
  const asked = rest && JSON.stringify([current().collection, method, rest, body]);
  useEffect(() => {
    if (!asked) return undefined;
    const stop = new AbortController();
    set((before) => ({ data: before.data, last: before.last, asked: before.asked, loading: true }));
    call(method, rest, body, { signal: stop.signal }).then(
      (data) => set({ data, asked, loading: false }),
      (error) => error.name === "AbortError" || set((before) => ({ error, last: before.data ?? before.last, asked, loading: false })),
    );
    return () => stop.abort();
  }, [asked, turn]);
  return { ...answer, fresh: answer.asked === asked, again: () => setTurn((before) => before + 1) };
}
