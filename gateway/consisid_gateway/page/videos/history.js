// The videos so far: the newest first, a page at a time.

import * as api from "../gateway/api.js";
import { byId, notice } from "../dom.js";
import { away } from "../gateway/presence.js";
import { Card } from "./card.js";

const LIMIT = 12;
const LOOK = 3000;
/* Milliseconds between two looks while videos are being made. */
const OPEN = ["queued", "in_progress"];

const list = byId("cards");
const cards = new Map();
let current = [];
let on = {};
let timer = 0;
let looked = false;

/** `reactions.open(ids)`: show them; `reactions.drop(id)`: it was deleted. */
export async function setUp(reactions) {
  on = reactions;
  byId("older").addEventListener("click", older);
  document.addEventListener("visibilitychange", () => document.hidden || look());
  await look();
}

/** What is shown above. */
export function mark(ids) {
  current = ids;
  for (const [id, card] of cards) card.mark(ids.includes(id), ids.length > 0);
}

/** A video has changed, or is new. One that is older than all of them waits for its page, and all for the first page. */
export function update(video) {
  const first = cards.get(list.firstElementChild?.dataset.id);
  if (cards.has(video.id)) cards.get(video.id).show(video);
  else if (looked && (!first || video.created_at >= first.video.created_at)) list.prepend(make(video).element);
  count();
}

/** Look at the newest again; and again later, while videos are being made. */
export async function look() {
  clearTimeout(timer);
  let wait = LOOK;
  try {
    const page = await api.list(null, LIMIT);
    away("history", false);
    byId("history-problem").replaceChildren();
    merge(page);
    if (!page.data.some((video) => OPEN.includes(video.status))) wait = 0;
  } catch (error) {
    const refused = error instanceof api.Refused;
    away("history", !refused);
    if (refused) byId("history-problem").replaceChildren(notice(error, look));
    if (refused && error.status < 500) wait = 0;
  }
  count();
  if (wait && !document.hidden) timer = setTimeout(look, wait);
}

/** The newest video that is being made. */
export const open = () => [...cards.values()].map((card) => card.video).find((video) => OPEN.includes(video.status));

function merge(page) {
  looked = true;
  const oldest = page.data.at(-1)?.created_at ?? -Infinity;
  const found = new Set(page.data.map((video) => video.id));
  for (const card of cards.values()) {
    if (!found.has(card.video.id) && (!page.has_more || card.video.created_at > oldest)) forget(card);
  }
  let before = null;
  for (const video of page.data) {
    const known = cards.get(video.id);
    const card = known ?? make(video);
    if (known) known.show(video);
    else if (before) before.after(card.element);
    else list.prepend(card.element);
    before = card.element;
  }
  if (cards.size <= page.data.length) byId("older").hidden = !page.has_more;
}

async function older() {
  const button = byId("older");
  button.disabled = true;
  try {
    const page = await api.list(list.lastElementChild.dataset.id, LIMIT);
    const added = page.data.filter((video) => !cards.has(video.id)).map(make);
    list.append(...added.map((card) => card.element));
    button.hidden = !page.has_more;
    added[0]?.opener.focus();
  } catch (error) {
    byId("history-problem").replaceChildren(notice(error, older));
  }
  button.disabled = false;
}

function make(video) {
  const card = new Card(video, {
    open: (ids) => on.open(ids),
    beside: (id) => on.open([...current.slice(0, 1), id]),
    deleted: (gone) => {
      const next = gone.element.nextElementSibling ?? gone.element.previousElementSibling;
      forget(gone);
      on.drop(gone.video.id);
      (next?.querySelector(".open") ?? byId("history-title")).focus();
      count();
    },
  });
  cards.set(video.id, card);
  card.mark(current.includes(video.id), current.length > 0);
  card.show(video);
  return card;
}

function forget(card) {
  cards.delete(card.video.id);
  card.close();
}

function count() {
  byId("history-empty").hidden = cards.size > 0;
}
