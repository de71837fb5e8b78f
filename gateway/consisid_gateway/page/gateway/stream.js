// The events of one video, through losses of the connection.

import { Away, Refused, parse, send } from "./api.js";
import { Parser } from "./sse.js";

const PAUSES = [0.5, 1, 2, 4, 8];
const SILENCE = 45;
/* Seconds. The gateway says something every 15. */

/**
 * Yields { type, data } until `signal` is aborted; who reads leaves after the last event. "over": there is nothing to tell
 * of a video that has ended.
 *
 * `away` is called with true when the gateway cannot be reached, and with false when it can again. Raises `Refused`.
 */
export async function* follow(id, signal, away) {
  let last = "";
  for (let failures = 0; !signal.aborted; ) {
    try {
      for await (const event of connection(id, last, signal)) {
        if (failures) away(false);
        failures = 0;
        last = event.id || last;
        yield { type: event.type, data: parse(event.data) };
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refused && error.status < 500 && error.status !== 429) throw error;
    }
    if (signal.aborted) return;
    failures += 1;
    if (failures > 1) away(true);
    const pause = PAUSES[Math.min(failures, PAUSES.length) - 1] * (0.75 + Math.random() / 2);
    await rest(pause, signal);
  }
}

async function* connection(id, last, signal) {
  const attempt = new AbortController();
  const stop = () => attempt.abort();
  signal.addEventListener("abort", stop);
  let silence = setTimeout(stop, SILENCE * 1000);
  try {
    const headers = { Accept: "text/event-stream", ...(last ? { "Last-Event-ID": last } : {}) };
    const response = await send(`videos/${encodeURIComponent(id)}/events`, { headers, signal: attempt.signal });
    if (response.status === 204) return yield { type: "over", id: "", data: "null" };
    const parser = new Parser();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(silence);
      silence = setTimeout(stop, SILENCE * 1000);
      yield* parser.push(value);
    }
  } catch (error) {
    throw error instanceof Refused ? error : new Away();
  } finally {
    clearTimeout(silence);
    signal.removeEventListener("abort", stop);
    attempt.abort();
  }
}

function rest(seconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}
