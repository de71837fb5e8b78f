// The portrait: chosen, dropped or pasted; the face that was found in it.

import * as api from "../gateway/api.js";
import { announce, byId, element, notice, say } from "../dom.js";
import { UNREAD, judge, nth, several } from "./quality.js";
import { size } from "../words.js";

const KEPT = "consisid-portrait";
const PREVIEW_EDGE = 480;
const MOST_FACES = 20;
const ASK_AGAIN = 500;
/* Milliseconds between two looks at a face that is not read yet. */

const input = byId("portrait");
const drop = byId("drop");
const image = byId("photo-image");
const box = byId("face-box");
const problem = byId("portrait-problem");

let portrait = null;
let reading = new AbortController();
let most = Infinity;
let changed = () => {};

/** { file, name, character, face, index, refused } or null. `file` is null after a reload: the character stands for it. */
export const current = () => portrait;

/** `limit`: bytes that the gateway takes. */
export function setUp(limit, onchange) {
  most = limit ?? Infinity;
  changed = onchange;
}

export async function choose(file) {
  if (!file) return;
  if (!file.type.startsWith("image/")) return complain({ message: `${file.name} is no picture.` });
  if (file.size > most) {
    const message = `The picture has ${size(file.size)}; the gateway takes ${size(most)}.`;
    return complain({ message, remedy: "Scale it down, or save it as a JPEG." });
  }
  remove();
  portrait = { file, name: file.name, character: null, face: null, index: null, refused: false };
  image.src = URL.createObjectURL(file);
  show();
  await identify();
}

/** Forget the portrait, here and at the gateway; videos that were started keep their own. */
export function remove() {
  reading.abort();
  const before = portrait;
  portrait = null;
  sessionStorage.removeItem(KEPT);
  if (image.src.startsWith("blob:")) URL.revokeObjectURL(image.src);
  image.removeAttribute("src");
  input.value = "";
  problem.replaceChildren();
  show();
  if (before?.character) api.forget(before.character).catch(() => {});
}

/** The portrait of this tab before it was loaded again. */
export async function restore() {
  const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "null");
  if (!kept || portrait) return;
  try {
    const found = await api.identified(kept.character);
    if (portrait) return;
    const { name, index, original } = kept;
    portrait = { file: null, name, character: found.id, face: found.face, index, original, refused: false };
    image.src = kept.preview;
    show();
  } catch (error) {
    if (error instanceof api.Refused) sessionStorage.removeItem(KEPT);
  }
}

/** The gateway no longer knows the face. Returns whether the picture can be sent instead. */
export function lost() {
  portrait.character = null;
  sessionStorage.removeItem(KEPT);
  return Boolean(portrait.file);
}

async function identify() {
  reading.abort();
  reading = new AbortController();
  const { signal } = reading;
  const mine = portrait;
  problem.replaceChildren();
  byId("face").hidden = false;
  say(byId("face-headline"), "Looking for the face…");
  byId("face").dataset.verdict = "";
  byId("face-remarks").replaceChildren();
  try {
    let found = await api.identify(mine.file, signal);
    mine.character = found.id;
    while (found.status === "pending") {
      await new Promise((resolve) => setTimeout(resolve, ASK_AGAIN));
      found = await api.identified(found.id, signal);
    }
    if (found.error) throw new api.Refused(200, found.error);
    if (portrait !== mine) return;
    mine.face = found.face;
    keep();
    show();
    announce(byId("face-headline").textContent);
  } catch (error) {
    if (portrait !== mine || signal.aborted) return;
    mine.refused = error instanceof api.Refused && error.status < 500 && error.code !== "SCOPE_MISSING";
    byId("face").hidden = true;
    if (error.code === "SCOPE_MISSING") return;
    problem.replaceChildren(notice(error, mine.refused ? null : identify));
  }
  changed();
}

function complain(error) {
  problem.replaceChildren(notice(error));
}

function show() {
  byId("photo").hidden = !portrait;
  byId("portrait-bar").hidden = !portrait;
  byId("portrait-name").textContent = portrait?.name ?? "";
  byId("choose-action").textContent = portrait ? "Choose another portrait" : "Choose a portrait";
  drop.classList.toggle("chosen", Boolean(portrait));
  showFace(portrait?.face);
  changed();
}

function showFace(face) {
  byId("face").hidden = !face;
  box.hidden = true;
  if (!face) return;
  // What was read is of one face; of another nothing is known but its size.
  const other = portrait.index !== null && portrait.index !== face.face_index;
  const { verdict, headline, remarks } = other ? UNREAD : judge(face);
  byId("face").dataset.verdict = verdict;
  say(byId("face-headline"), headline);
  const lines = [several(face, portrait.index), ...remarks].filter(Boolean);
  byId("face-remarks").replaceChildren(...lines.map((line) => element("li", {}, line)));
  byId("face-choice").hidden = !(face.faces > 1);
  const names = Array.from({ length: Math.min(face.faces, MOST_FACES) }, (_, place) => nth(place));
  byId("face-index").replaceChildren(
    ...names.map((name, place) => element("option", { value: place, selected: place === (portrait.index ?? 0) }, name)),
  );
  if (!other) frame(face.face_box);
}

/** Draw the box over the picture, in shares of its edges: it keeps its place at every width. */
async function frame(edges) {
  const shown = image.src;
  await image.decode().catch(() => {});
  if (!edges || image.src !== shown || !portrait?.face) return;
  const [width, height] = portrait.original ?? [image.naturalWidth, image.naturalHeight];
  if (!width) return;
  const [left, top, right, bottom] = edges;
  box.style.left = `${(100 * left) / width}%`;
  box.style.top = `${(100 * top) / height}%`;
  box.style.width = `${(100 * (right - left)) / width}%`;
  box.style.height = `${(100 * (bottom - top)) / height}%`;
  box.hidden = false;
}

/** Keep what a reload needs: the gateway's name of the face, and a small picture to show. */
async function keep() {
  const mine = portrait;
  await image.decode().catch(() => {});
  if (!image.naturalWidth || portrait !== mine) return;
  const factor = Math.min(1, PREVIEW_EDGE / Math.max(image.naturalWidth, image.naturalHeight));
  const canvas = element("canvas", {
    width: Math.round(image.naturalWidth * factor),
    height: Math.round(image.naturalHeight * factor),
  });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  const { character, name, index } = mine;
  const preview = canvas.toDataURL("image/jpeg", 0.8);
  const original = [image.naturalWidth, image.naturalHeight];
  sessionStorage.setItem(KEPT, JSON.stringify({ character, name, index, preview, original }));
}

input.addEventListener("change", () => choose(input.files[0]));
byId("portrait-remove").addEventListener("click", () => {
  remove();
  input.focus();
});
byId("face-index").addEventListener("change", (event) => {
  portrait.index = Number(event.target.value) || null;
  showFace(portrait.face);
  keep();
  changed();
});
document.addEventListener("paste", (event) => {
  const file = [...(event.clipboardData?.files ?? [])].find((each) => each.type.startsWith("image/"));
  if (!file) return;
  event.preventDefault();
  choose(file);
});
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    drop.classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => event.relatedTarget || drop.classList.remove("over"));
document.addEventListener("drop", (event) => {
  drop.classList.remove("over");
  if (!event.dataTransfer?.files.length) return;
  event.preventDefault();
  choose(event.dataTransfer.files[0]);
});
