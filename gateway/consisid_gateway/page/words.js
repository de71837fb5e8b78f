// Numbers and states as people say them.

const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const moment = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "short" });

export const count = (number, one, many = `${one}s`) => `${number} ${number === 1 ? one : many}`;

/** "about 40 s", "about 3 min": seconds, as exact as an estimate is. */
export function duration(seconds) {
  if (seconds < 5) return "a few seconds";
  if (seconds < 90) return `about ${Math.round(seconds / 5) * 5} s`;
  if (seconds < 5400) return `about ${Math.round(seconds / 60)} min`;
  return `about ${Math.round(seconds / 3600)} h`;
}

/** "3 minutes ago", a date after a week. `since`: seconds since 1970. */
export function ago(since, now = Date.now() / 1000) {
  const seconds = Math.max(0, now - since);
  if (seconds < 45) return "just now";
  for (const [unit, length, limit] of [["minute", 60, 3600], ["hour", 3600, 86400], ["day", 86400, 604800]]) {
    if (seconds < limit) return relative.format(-Math.max(1, Math.round(seconds / length)), unit);
  }
  return moment.format(since * 1000);
}

/** "2.4 MB". */
export function size(bytes) {
  if (bytes < 1e6) return `${Math.max(1, Math.round(bytes / 1e3))} kB`;
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

/** Words of a prompt. */
export const words = (text) => (text.trim() ? text.trim().split(/\s+/u).length : 0);

const STAGES = {
  face: "Reading the face",
  text: "Reading the prompt",
  encode: "Preparing the first picture",
  denoise: "Making the video",
  decode: "Developing the frames",
  similarity: "Comparing the faces",
};

/** Tier → how it is called, and what it means for somebody who wants a video. */
export const TIERS = {
  "": ["Default", "what the server prefers"],
  exact: ["Exact", "every step in full"],
  fp8: ["FP8", "every step, in 8-bit numbers"],
  fast: ["Fast", "leaves out steps that change little"],
  draft: ["Draft", "the quickest, to try things out"],
};

/** One line on a job that is not over: { stage, done, total, position }. */
export function progress(event) {
  if (event.stage === "queue" || !event.stage) {
    if (event.position === 0) return "Next in line";
    if (event.position) return `Waiting behind ${count(event.position, "video")}`;
    return event.status === "queued" ? "Waiting for its turn" : "Starting";
  }
  const stage = STAGES[event.stage] ?? "Working";
  return event.stage === "denoise" && event.total ? `${stage}: step ${event.done} of ${event.total}` : stage;
}

/** Percent, as the gateway counts: by far the longest stage is 5 to 95. */
export function percent(event) {
  if (event.stage === "denoise" && event.total) return 5 + Math.floor((90 * event.done) / event.total);
  return event.stage === "decode" || event.stage === "similarity" ? 95 : 0;
}
