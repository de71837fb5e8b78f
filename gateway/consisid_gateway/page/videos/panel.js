// One video: how far it is, what it will look like, then the video itself and what can be done with it.

import * as api from "../gateway/api.js";
import { announce, element, notice, write } from "../dom.js";
import { away } from "../gateway/presence.js";
import { follow } from "../gateway/stream.js";
import { duration, percent, progress } from "../words.js";

const AGAIN = 15;
/* Seconds between two announcements of progress. */

export class Panel {
  #leaving = new AbortController();
  #shown = "";
  #stage = null;
  #url = null;
  #name = "this video";

  /**
   * `on.change(video)`: it is known, or has another state. `on.open(ids)`: show others instead. `on.use(video)`: take
   * its settings. `on.ready()`: the video element is there.
   */
  constructor(id, on) {
    Object.assign(this, { id, on, video: null, media: null });
    this.picture = element("img", { class: "preview", alt: "", hidden: true });
    this.screen = element("div", { class: "screen" }, this.picture);
    this.bar = element("progress", { max: 100, value: 0, "aria-label": "Progress" });
    this.line = element("p", { class: "line" });
    this.left = element("p", { class: "left" });
    this.cancel = element("button", { type: "button", onclick: () => this.#cancel() }, "Cancel");
    this.running = element("div", { class: "running" }, this.bar, this.line, this.left, this.cancel);
    this.problem = element("div");
    this.prompt = element("p", { class: "prompt" });
    this.facts = element("dl", { class: "facts" });
    this.actions = element("div", { class: "actions" });
    this.element = element("article", { class: "panel", "aria-label": "Video" });
    this.element.append(this.screen, this.running, this.problem, this.actions, this.prompt, this.facts);
  }

  async start() {
    const { signal } = this.#leaving;
    try {
      this.#take(await this.#found());
      if (signal.aborted || this.#over()) return;
      for await (const event of follow(this.id, signal, (is) => away(this, is))) {
        if (this.#told(event)) break;
      }
      if (!signal.aborted && !this.#over()) this.#take(await api.retrieve(this.id));
    } catch (error) {
      if (!signal.aborted) this.#fail(error);
    }
  }

  /** Stop following, and free what is held. */
  close() {
    this.#leaving.abort();
    away(this, false);
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.element.remove();
  }

  /** The video, once the gateway is there. */
  async #found() {
    for (;;) {
      try {
        const video = await api.retrieve(this.id);
        away(this, false);
        return video;
      } catch (error) {
        if (!(error instanceof api.Away) || this.#leaving.signal.aborted) throw error;
        away(this, true);
        await new Promise((resolve) => setTimeout(resolve, 2000));
      }
    }
  }

  #over() {
    return this.video.status === "completed" || this.video.status === "failed";
  }

  /** Whether it was the last event. */
  #told({ type, data }) {
    if (type === "progress") this.#progress(data);
    else if (type === "state" || type === "completed" || type === "failed") this.#take(data);
    else if (type === "deleted") this.#gone();
    return type === "deleted" || type === "over" || this.#over();
  }

  #progress(event) {
    this.bar.value = event.progress ?? percent(event);
    const line = progress(event);
    const known = event.seconds_left !== null && event.seconds_left !== undefined;
    const left = known ? `${duration(event.seconds_left)} left` : "";
    write(this.line, line);
    write(this.left, left);
    if (event.preview) {
      this.picture.src = event.preview;
      this.picture.alt = "Preview: what the first picture will look like";
      this.picture.hidden = false;
    }
    const other = this.#stage !== (event.stage ?? "");
    this.#stage = event.stage ?? "";
    announce([line, left].filter(Boolean).join(", "), other ? 0 : AGAIN);
  }

  #take(video) {
    const before = this.video?.status;
    this.video = video;
    this.#name = video.prompt ? `“${video.prompt.slice(0, 60)}”` : "this video";
    write(this.prompt, video.prompt ?? "");
    this.element.setAttribute("aria-label", `Video ${this.#name}`);
    const [width, height] = (video.size ?? "").split("x").map(Number);
    if (width && height) this.screen.style.aspectRatio = `${width} / ${height}`;
    if (video.status === "queued") this.#progress({ stage: "queue", ...video, preview: null });
    else if (before !== "in_progress") this.#progress({ ...video, preview: null });
    this.running.hidden = this.#over();
    if (this.#shown !== video.status) {
      this.#shown = video.status;
      this.#describe();
      if (video.status === "completed") this.#play(Boolean(before));
      if (video.status === "failed") this.#failed(Boolean(before));
    }
    this.on.change(video);
  }

  #describe() {
    const { options = {}, seed, size, seconds, expires_at: until } = this.video;
    const facts = {
      Seed: seed,
      Quality: options.tier,
      Steps: options.steps,
      Size: size?.replace("x", " × "),
      Length: seconds && Number(seconds) ? `${Number(seconds).toFixed(1)} s` : null,
      "Kept until": until ? new Date(until * 1000).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" }) : null,
    };
    const rows = Object.entries(facts).filter(([, value]) => value !== null && value !== undefined && value !== "");
    this.facts.replaceChildren(
      ...rows.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, String(value)))),
    );
    const warnings = (this.video.warnings ?? []).map((warning) => element("p", { class: "warning" }, warning));
    this.problem.replaceChildren(...warnings);
  }

  async #play(watched) {
    try {
      const blob = await api.content(this.id, "video", this.#leaving.signal);
      this.#url = URL.createObjectURL(new Blob([blob], { type: "video/mp4" }));
    } catch (error) {
      if (!this.#leaving.signal.aborted) this.#fail(error);
      return;
    }
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.media = element("video", { controls: true, loop: true, playsinline: true, "aria-label": `Video ${this.#name}` });
    this.media.muted = true;
    this.media.src = this.#url;
    this.screen.replaceChildren(this.media);
    if (watched && !still) this.media.play().catch(() => {});
    if (watched) announce("The video is done.");
    const name = `consisid-${this.video.seed}.mp4`;
    const loop = element("input", { type: "checkbox", checked: true });
    loop.addEventListener("change", () => (this.media.loop = loop.checked));
    this.actions.replaceChildren(
      element("a", { class: "button primary", href: this.#url, download: name }, "Download"),
      element("label", { class: "check" }, loop, " Loop"),
      ...this.#further(),
    );
    this.on.ready();
  }

  #failed(watched) {
    this.#none("No video");
    const { code, message, remedy } = this.video.error ?? {};
    if (code === "CANCELLED") {
      this.problem.replaceChildren(element("p", { class: "warning" }, "This video was cancelled."));
    } else {
      this.problem.replaceChildren(notice({ code, message: message || "The video could not be made.", remedy }));
    }
    if (code === "CANCELLED") {
      // Its portrait is deleted: nothing can be made of it again.
      this.actions.replaceChildren(this.#settings());
      if (watched) announce("The video was cancelled.");
      return;
    }
    const again = element("button", { type: "button", class: "primary" }, "Try again");
    again.addEventListener("click", () => this.#make({ prompt: this.video.prompt }));
    this.actions.replaceChildren(again, ...this.#further());
  }

  #further() {
    const made = this.video.status === "completed";
    const button = (text, act) => element("button", { type: "button", onclick: act }, text);
    return [
      button("Another prompt", () => this.#remix()),
      made ? button("Compare with another seed", () => this.#another()) : null,
      this.#settings(),
    ].filter(Boolean);
  }

  #settings() {
    return element("button", { type: "button", onclick: () => this.on.use(this.video) }, "Use these settings");
  }

  #remix() {
    if (this.form) return this.form.querySelector("textarea").focus();
    const text = element("textarea", { rows: 3, id: `remix-${this.id}` });
    text.value = this.video.prompt ?? "";
    this.form = element(
      "form",
      { class: "remix" },
      element("label", { for: text.id }, "The same person and seed, with another prompt"),
      text,
      element(
        "div",
        { class: "row" },
        element("button", { type: "submit", class: "primary" }, "Make it"),
        element("button", { type: "button", class: "quiet", onclick: () => this.#unmix() }, "Close"),
      ),
    );
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (text.value.trim()) this.#make({ prompt: text.value });
    });
    this.actions.after(this.form);
    text.focus();
  }

  #unmix() {
    this.form.remove();
    this.form = null;
    [...this.actions.querySelectorAll("button")].find((each) => each.textContent === "Another prompt")?.focus();
  }

  #another() {
    const seed = String(crypto.getRandomValues(new Uint32Array(1))[0]);
    return this.#make({ prompt: this.video.prompt, seed }, true);
  }

  async #make(fields, beside = false) {
    const asked = JSON.stringify(fields);
    if (this.asked !== asked) Object.assign(this, { asked, once: api.idempotencyKey() });
    try {
      const made = await api.remix(this.id, fields, this.once);
      this.asked = null;
      this.on.open(beside ? [this.id, made.id] : [made.id]);
    } catch (error) {
      this.problem.replaceChildren(notice(error, () => this.#make(fields, beside)));
    }
  }

  async #cancel() {
    this.cancel.disabled = true;
    try {
      this.#take(await api.cancel(this.id));
    } catch (error) {
      this.problem.replaceChildren(notice(error));
    }
    this.cancel.disabled = false;
  }

  #none(text) {
    this.screen.style.aspectRatio = "";
    this.screen.classList.add("none");
    this.screen.replaceChildren(element("p", { class: "hint" }, text));
  }

  #gone() {
    this.running.hidden = true;
    this.video = { ...this.video, status: "failed", error: { code: "DELETED", message: "This video was deleted." } };
    this.#none("This video was deleted.");
  }

  #fail(error) {
    this.running.hidden = !this.video || this.#over();
    this.problem.replaceChildren(notice(error, () => {
      this.problem.replaceChildren();
      if (this.video?.status === "completed") this.#play(false);
      else this.start();
    }));
  }
}
