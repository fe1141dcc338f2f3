// Runs of the server (indexing, evaluating, tagging) as they go on: started, followed by server-sent events, stopped.

import { call, path, useAnswer } from "./api.js";
import { Bar, html, say } from "./parts.js";
import { useEffect, useState } from "./vendor/htm-preact.js";
import { count, duration } from "./words.js";

const STAGES = {
  waiting: "Waiting", scanning: "Looking through the folders", encoding: "Reading pictures", captions: "Reading captions", reading: "Reading the text inside pictures",
  building: "Building the index", calibrating: "Calibrating", tagging: "Tagging", comparing: "Measuring",
};
const ENDS = { done: ["Done", "good"], failed: ["Failed", "bad"], cancelled: ["Stopped", ""] };
const busy = (run) => run.state === "waiting" || run.state === "running";

/** {runs of a kind, newest first, start}; those at work are followed. onEnd: called when one has ended. */
export function useRuns(kind, onEnd) {
  const listed = useAnswer("GET", "/runs");
  const [changed, setChanged] = useState({});
  const all = (Array.isArray(listed.data) ? listed.data : listed.data?.runs ?? []).filter((run) => run.kind === kind);
  const runs = all.map((run) => changed[run.id] ?? run).sort((one, other) => (one.started_at < other.started_at ? 1 : -1));
  const working = runs.find(busy)?.id;
  useEffect(() => {
    if (working === undefined) return undefined;
    const events = new EventSource(path(`/runs/${working}/events`));
    const take = (event) => {
      const run = JSON.parse(event.data);
      setChanged((before) => ({ ...before, [run.id]: run }));
      return run;
    };
    events.addEventListener("progress", take);
    events.addEventListener("end", (event) => {
      events.close();
      take(event);
      onEnd?.();
    });
    return () => events.close();
  }, [working]);
  const start = async (options = {}) => {
    try {
      await call("POST", "/runs", { kind, ...options });
      listed.again();
    } catch (error) {
      say(error.message, { bad: true });
    }
  };
  return { runs, start, busy: working !== undefined };
}

export function Run({ run, children }) {
  const at = busy(run);
  const stop = () => call("DELETE", `/runs/${run.id}`).catch((error) => say(error.message, { bad: true }));
  const [end, tone] = ENDS[run.state] ?? ["", ""];
  const share = run.total ? run.done / run.total : 0;
  return html`<article class="run" data-state=${run.state}>
    <div class="run-head"><strong>${at ? STAGES[run.stage] ?? "Starting" : html`<span class=${`state ${tone}`}>${end}</span>`}</strong>
      <span class="soft number">${at ? run.total ? `${count(run.done)} of ${count(run.total)}` : run.done ? count(run.done) : "" : when(run)}</span></div>
    ${at && html`<div role="progressbar" aria-label="Progress" aria-valuemin="0" aria-valuemax="100" aria-valuenow=${run.total ? Math.round(share * 100) : null}><${Bar} share=${share} /></div>
      <div class="run-foot"><span>${run.message ?? ""}</span><button type="button" class="button" onClick=${stop}>Stop</button></div>`}
    ${!at && run.state === "failed" && html`<p>${run.message}</p>`}
    ${!at && children}
  </article>`;
}

function when(run) {
  const ended = run.ended_at && new Date(run.ended_at);
  if (!ended) return "";
  const seconds = run.started_at ? (ended - new Date(run.started_at)) / 1000 : 0;
  return `${ended.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", hour12: false })}, took ${duration(seconds)}`;
}
