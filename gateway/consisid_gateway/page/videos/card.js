// One video of the history.

import * as api from "../gateway/api.js";
import { announce, element, notice, write } from "../dom.js";
import { ago } from "../words.js";

const STATES = { queued: "Waiting", in_progress: "Being made", failed: "Failed" };

export class Card {
  #thumbnail = null;

  /** `on.open(ids)`: show them. `on.beside(id)`: show it beside what is shown. `on.deleted(card)`. */
  constructor(video, on) {
    this.video = video;
    this.on = on;
    this.picture = element("img", { alt: "", hidden: true });
    this.prompt = element("span", { class: "prompt" });
    this.state = element("span", { class: "when" });
    this.opener = element(
      "button",
      { type: "button", class: "open", onclick: () => on.open([this.video.id]) },
      element("span", { class: "thumbnail" }, this.picture),
      this.prompt,
      this.state,
    );
    this.compare = element("button", { type: "button", class: "quiet" }, "Compare");
    this.compare.addEventListener("click", () => on.beside(this.video.id));
    this.remove = element("button", { type: "button", class: "quiet", onclick: () => this.#ask() }, "Delete");
    this.bar = element("div", { class: "row" }, this.compare, this.remove);
    this.element = element("li", { class: "card", "data-id": video.id }, this.opener, this.bar);
  }

  show(video) {
    this.video = video;
    const known = { CANCELLED: "Cancelled" }[video.error?.code];
    const state = known ?? STATES[video.status];
    const when = ago(video.created_at);
    write(this.prompt, video.prompt ?? "");
    write(this.state, video.status === "in_progress" ? `${state}, ${video.progress ?? 0} %` : [state, when].filter(Boolean).join(", "));
    this.element.dataset.status = video.status;
    const short = (video.prompt ?? "").slice(0, 60);
    this.compare.setAttribute("aria-label", `Compare “${short}” with the video above`);
    this.remove.setAttribute("aria-label", `Delete “${short}”`);
    this.mark(this.current, this.beside);
    if (video.status === "completed" && !this.#thumbnail) this.#load();
  }

  /** Whether it is shown, and whether another is, beside which it could be. */
  mark(current, beside) {
    Object.assign(this, { current, beside });
    this.element.classList.toggle("current", Boolean(current));
    this.opener.setAttribute("aria-current", String(Boolean(current)));
    this.compare.hidden = current || !beside || this.video.status !== "completed";
  }

  close() {
    if (this.#thumbnail) this.#thumbnail.then(URL.revokeObjectURL, () => {});
    this.element.remove();
  }

  async #load() {
    this.#thumbnail = api.content(this.video.id, "thumbnail").then((blob) => URL.createObjectURL(blob));
    try {
      this.picture.src = await this.#thumbnail;
      this.picture.hidden = false;
    } catch {
      // Expired, or away: the card says enough without.
    }
  }

  #ask() {
    const keep = element("button", { type: "button", onclick: () => this.#keep() }, "Keep");
    const sure = element("button", { type: "button", class: "danger", onclick: () => this.#delete() }, "Delete");
    const text = element("p", {}, "Delete this video for good?");
    this.bar.replaceChildren(element("div", { class: "sure", role: "group", "aria-label": "Delete this video for good?" }, text, sure, keep));
    this.bar.onkeydown = (event) => event.key === "Escape" && this.#keep();
    keep.focus();
  }

  #keep() {
    this.bar.onkeydown = null;
    this.bar.replaceChildren(this.compare, this.remove);
    this.remove.focus();
  }

  async #delete() {
    try {
      await api.remove(this.video.id);
    } catch (error) {
      this.bar.replaceChildren(notice(error, () => this.#delete()));
      return;
    }
    announce("The video was deleted.");
    this.on.deleted(this);
  }
}
