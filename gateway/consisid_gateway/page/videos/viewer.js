// What is shown: one video, or two side by side. The address of the page names them, so that a reload shows them again.

import { byId } from "../dom.js";
import { Panel } from "./panel.js";
import { connect } from "./together.js";

const MOST = 2;
const NAMES = "#videos=";

let panels = [];
let parted = null;
let on = {};

/** The ids that are shown. */
export const shown = () => panels.map((panel) => panel.id);

/** Ids in the page's address; null where it is about something else. */
function named() {
  if (location.hash && !location.hash.startsWith(NAMES)) return null;
  return location.hash.slice(NAMES.length).split("+").filter((id) => /^[\w-]+$/.test(id)).slice(0, MOST);
}

/** `reactions.change(video)`, `reactions.use(video)`, `reactions.show(ids)`. */
export function setUp(reactions) {
  on = reactions;
  addEventListener("hashchange", () => named() && show(named()));
  show(named() ?? []);
}

/** Show these, where the reader is. */
export function put(ids) {
  location.replace(NAMES + ids.slice(-MOST).join("+"));
}

/** Show these instead, and move there. */
export function open(ids) {
  location.hash = NAMES + ids.slice(-MOST).join("+");
  byId("viewer-title").focus({ preventScroll: true });
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  byId("viewer").scrollIntoView({ behavior: still ? "auto" : "smooth", block: "start" });
}

/** One was deleted. */
export function drop(id) {
  if (shown().includes(id)) put(shown().filter((each) => each !== id));
}

function show(ids) {
  parted?.();
  parted = null;
  const kept = panels.filter((panel) => ids.includes(panel.id));
  for (const panel of panels) if (!kept.includes(panel)) panel.close();
  panels = ids.map((id) => kept.find((panel) => panel.id === id) ?? make(id));
  byId("panels").replaceChildren(...panels.map((panel) => panel.element));
  byId("panels").classList.toggle("two", panels.length > 1);
  byId("empty").hidden = panels.length > 0;
  byId("viewer-title").textContent = panels.length > 1 ? "Two videos" : "Video";
  join();
  on.show(ids);
}

function make(id) {
  const panel = new Panel(id, { change: (video) => on.change(video), use: (video) => on.use(video), open, ready: join });
  panel.start();
  return panel;
}

function join() {
  if (!parted && panels.length === MOST && panels.every((panel) => panel.media)) {
    parted = connect(panels.map((panel) => panel.media));
  }
}
