// The form of a new video. What was typed stays, through errors and reloads of the page.

import * as api from "../gateway/api.js";
import { announce, byId, element, notice, say } from "../dom.js";
import * as portrait from "./portrait.js";
import { TIERS, count, words } from "../words.js";

const DRAFT = "consisid-draft";
const MOST_BYTES = 65536;
const LONG = 150;
/* Words, from which on a prompt may be longer than the text encoder reads. */
const EXAMPLES = [
  ["Rain", "A person in a yellow raincoat walks through a small harbour town in light rain, smiling at the camera."],
  ["Workshop", "A person planes a board in a sunlit workshop. Shavings fall, dust floats in the light, the camera moves closer."],
  ["Mountains", "A person in a wool sweater stands on a mountain ridge at sunrise. Wind moves the hair, clouds drift below."],
];

const form = byId("composer");
const prompt = byId("prompt");
const seeds = [byId("seed"), byId("seed-two")];
const random = byId("random");
const two = byId("two");
const problem = byId("composer-problem");
const NUMBERS = ["steps", "width", "height", "frames", "fps", "guidance", "face_scale"];

let choices = {};
let once = null;

/** `found`: what the gateway offers. `started`: called with the ids of new videos. */
export function setUp(found, started) {
  choices = found;
  const tiers = [{ name: "" }, ...(choices.tiers ?? [])];
  byId("tiers").hidden = tiers.length < 2;
  byId("tier-choices").replaceChildren(...tiers.map(tierChoice));
  restore();
  refresh();
  form.onsubmit = (event) => {
    event.preventDefault();
    submit(started);
  };
}

function tierChoice(tier, place) {
  const [name, meaning] = TIERS[tier.name] ?? [tier.name, tier.meaning];
  return element(
    "label",
    {},
    element("input", { type: "radio", name: "tier", value: tier.name, checked: place === 0 }),
    element("span", { class: "tier" }, element("strong", {}, name), element("span", {}, meaning)),
  );
}

/** Something of the request is another: it is a new one. */
export function changed() {
  once = null;
}

const tier = () => form.querySelector("[name=tier]:checked")?.value;

/** Take over the settings of a video that was made. */
export function fill(video) {
  prompt.value = video.prompt ?? "";
  const options = video.options ?? {};
  for (const name of [...NUMBERS, "negative_prompt"]) byId(name).value = options[name] ?? "";
  const chosen = [...form.querySelectorAll("[name=tier]")].find((each) => each.value === (options.tier ?? ""));
  if (chosen) chosen.checked = true;
  seeds[0].value = video.seed ?? "";
  random.checked = false;
  two.checked = false;
  changed();
  refresh();
  save();
  prompt.focus();
}

function refresh() {
  const number = words(prompt.value);
  const advice = number > LONG ? " Words at the end may not be read." : "";
  say(byId("prompt-count"), `${count(number, "word")}, ${count(prompt.value.length, "character")}.${advice}`);
  byId("second").hidden = !two.checked;
  for (const field of seeds) field.disabled = random.checked;
  byId("start").textContent = two.checked ? "Make both videos" : "Make the video";
  const own = choices.tiers?.find((each) => each.name === tier()) ?? {};
  const defaults = { ...choices.defaults, ...(own.steps ? { steps: own.steps } : {}) };
  for (const name of NUMBERS) byId(name).placeholder = defaults[name] ?? "default";
}

function save() {
  const kept = {};
  for (const field of form.elements) {
    if (!field.id || field.type === "file" || field.tagName === "BUTTON" || field.tagName === "FIELDSET") continue;
    kept[field.id] = field.type === "checkbox" ? field.checked : field.value;
  }
  sessionStorage.setItem(DRAFT, JSON.stringify({ ...kept, tier: tier() }));
}

function restore() {
  const kept = JSON.parse(sessionStorage.getItem(DRAFT) ?? "{}");
  for (const [id, value] of Object.entries(kept)) {
    const field = byId(id);
    if (field?.type === "checkbox") field.checked = value;
    else if (field && "value" in field) field.value = value;
  }
  const chosen = [...form.querySelectorAll("[name=tier]")].find((each) => each.value === kept.tier);
  if (chosen) chosen.checked = true;
}

/** What is wrong before the gateway is asked: [sentence, field], or null. */
function mistake() {
  const found = portrait.current();
  if (!found) return ["Choose a portrait first.", byId("portrait")];
  if (found.refused) return ["Choose another portrait: no face could be taken from this one.", byId("portrait")];
  if (!prompt.value.trim()) return ["Write a prompt: what does the video show?", prompt];
  for (const field of [prompt, byId("negative_prompt")]) {
    if (new TextEncoder().encode(field.value).length > MOST_BYTES) return ["This text is too long.", field];
  }
  for (const field of NUMBERS.map(byId)) {
    if (!field.checkValidity()) return [`${field.labels[0].textContent}: ${field.validationMessage}`, field];
  }
  if (!random.checked) {
    for (const field of two.checked ? seeds : seeds.slice(0, 1)) {
      if (!/^\d*$/.test(field.value.trim())) return ["A seed is a whole number from 0 on.", field];
    }
    if (two.checked && seeds[0].value.trim() === seeds[1].value.trim()) {
      return ["Both seeds are the same: the videos would be, too.", seeds[1]];
    }
  }
  return null;
}

/** Beside the field, which may be far from the button. */
function complain(error, field) {
  const place = field?.closest(".field, fieldset");
  if (place) place.append(problem);
  else byId("start").before(problem);
  problem.replaceChildren(notice(error, error.status ? null : () => form.requestSubmit()));
  if (!field) return;
  field.setAttribute("aria-invalid", "true");
  field.closest("details")?.setAttribute("open", "");
  field.focus();
}

async function submit(started) {
  problem.replaceChildren();
  for (const field of form.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
  const wrong = mistake();
  if (wrong) return complain({ message: wrong[0], status: 400 }, wrong[1]);
  if (random.checked && !once) for (const field of seeds) field.value = draw();
  save();
  once ??= [api.idempotencyKey(), api.idempotencyKey()];
  byId("start").disabled = true;
  try {
    const made = [];
    for (const [place, seed] of seeds.slice(0, two.checked ? 2 : 1).entries()) {
      made.push(await create(seed.value.trim(), once[place]));
    }
    once = null;
    announce(made.length > 1 ? "Both videos were started." : "The video was started.");
    started(made.map((video) => video.id));
  } catch (error) {
    complain(error, error.param && NUMBERS.concat("prompt", "negative_prompt", "seed").includes(error.param) ? byId(error.param) : null);
  } finally {
    byId("start").disabled = false;
  }
}

/** The new video; of the picture itself, where the gateway has forgotten the face. */
async function create(seed, key) {
  try {
    return await api.create(fields(seed), key);
  } catch (error) {
    const forgotten = portrait.current().character && (error.status === 404 || error.status === 410);
    if (!forgotten) throw error;
    if (portrait.lost()) return api.create(fields(seed), key);
    portrait.remove();
    error.message = "The gateway no longer has this portrait.";
    error.remedy = "Choose it again.";
    throw error;
  }
}

function fields(seed) {
  const { file, character, index } = portrait.current();
  const wanted = { prompt: prompt.value, seed: seed || 0, tier: tier(), face_index: index };
  for (const name of [...NUMBERS, "negative_prompt"]) wanted[name] = byId(name).value.trim();
  return { ...wanted, ...(character ? { character } : { input_reference: file }) };
}

const draw = () => String(crypto.getRandomValues(new Uint32Array(1))[0]);

form.addEventListener("input", () => {
  once = null;
  refresh();
  save();
});
byId("defaults").addEventListener("click", () => {
  for (const name of [...NUMBERS, "negative_prompt"]) byId(name).value = "";
  changed();
  refresh();
  save();
});
byId("examples").append(
  ...EXAMPLES.map(([name, text]) =>
    element("button", { type: "button", class: "chip", title: text, onclick: () => {
      prompt.value = text;
      form.dispatchEvent(new Event("input"));
      prompt.focus();
    } }, name),
  ),
);
