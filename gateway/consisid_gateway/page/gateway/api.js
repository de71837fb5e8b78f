// Requests to the gateway. Addresses are relative to the page, so that a prefix of a proxy does not matter.

import * as key from "./key.js";

/** The gateway refused: its code, its words, and what to do. */
export class Refused extends Error {
  constructor(status, { code, message, remedy, param } = {}, retryAfter = null) {
    super(message || `The gateway answered ${status}.`);
    Object.assign(this, { status, code, remedy, param, retryAfter });
  }
}

/** The gateway does not answer. */
export class Away extends Error {
  constructor() {
    super("The gateway does not answer.");
    this.remedy = "Nothing you entered is lost. Videos that were started go on; try again in a moment.";
  }
}

export const url = (path) => new URL(`v1/${path}`, document.baseURI);

/** A response that is none of an error. Raises `Refused`, `Away`; an aborted `signal` raises "AbortError". */
export async function send(path, { method = "GET", body, headers = {}, signal } = {}) {
  for (;;) {
    const used = key.current();
    const sent = used ? { ...headers, Authorization: `Bearer ${used}` } : headers;
    let response;
    try {
      response = await fetch(url(path), { method, body, headers: sent, signal, cache: "no-cache" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Away();
    }
    if (response.ok) return response;
    const refused = await refusal(response);
    if (response.status !== 401) throw refused;
    const reason = used ? "The gateway does not know this key." : "This gateway asks for an API key.";
    if (key.current() === used && !(await key.ask(reason))) throw refused;
  }
}

async function refusal(response) {
  const text = await response.text().catch(() => "");
  const seconds = Number(response.headers.get("Retry-After")) || null;
  try {
    return new Refused(response.status, JSON.parse(text).error, seconds);
  } catch {
    return new Refused(response.status, {}, seconds);
  }
}

/** JSON. Seeds have up to 63 bits: they stay text where the browser tells how they were written. */
export function parse(text) {
  return JSON.parse(text, (name, value, context) => (name === "seed" && context?.source ? context.source : value));
}

async function json(path, request) {
  return parse(await (await send(path, request)).text());
}

function form(fields) {
  const made = new FormData();
  for (const [name, value] of Object.entries(fields)) {
    if (value !== null && value !== undefined && value !== "") made.append(name, value);
  }
  return made;
}

/** Names a request, so that one that is sent again makes no second video. */
export function idempotencyKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const video = (id) => `videos/${encodeURIComponent(id)}`;
const character = (id) => `videos/characters/${encodeURIComponent(id)}`;

export const options = () => json("options");

export const create = (fields, once) =>
  json("videos", { method: "POST", body: form(fields), headers: { "Idempotency-Key": once } });

export const remix = (id, fields, once) =>
  json(`${video(id)}/remix`, { method: "POST", body: form(fields), headers: { "Idempotency-Key": once } });

export const retrieve = (id) => json(video(id));

export const list = (after, limit) =>
  json(`videos?${new URLSearchParams({ limit, order: "desc", ...(after ? { after } : {}) })}`);

export const cancel = (id) => json(`${video(id)}/cancel`, { method: "POST" });

export const remove = (id) => json(video(id), { method: "DELETE" });

export const content = async (id, variant, signal) =>
  (await send(`${video(id)}/content?variant=${variant}`, { signal })).blob();

export const identify = (file, signal) =>
  json("videos/characters", { method: "POST", body: form({ name: "portrait", video: file }), signal });

export const identified = (id, signal) => json(character(id), { signal });

export const forget = (id) => send(character(id), { method: "DELETE" });
