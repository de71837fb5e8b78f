// Two videos that play as one: the first leads, the second is held to its time.

import { byId, write } from "../dom.js";

const APART = 0.05;
/* Seconds that the second may be off. */

const bar = byId("together");
const button = byId("both-play");
const time = byId("both-time");

/** Take over two video elements; returns a function that gives them back. */
export function connect([lead, other]) {
  const both = [lead, other];
  const length = () => Math.min(lead.duration, other.duration) || 0;
  let asked = 0;
  let wanted = false;

  const seek = (to) => both.forEach((video) => (video.currentTime = to));

  function show() {
    time.max = length();
    time.value = lead.currentTime;
    write(byId("both-clock"), `${lead.currentTime.toFixed(1)} / ${length().toFixed(1)} s`);
    time.setAttribute("aria-valuetext", `${lead.currentTime.toFixed(1)} of ${length().toFixed(1)} seconds`);
  }

  function step() {
    if (lead.currentTime >= length() - 0.02 || both.some((video) => video.ended)) {
      seek(0);
      both.forEach((video) => video.play().catch(() => {}));
    } else if (Math.abs(lead.currentTime - other.currentTime) > APART) {
      other.currentTime = lead.currentTime;
    }
    show();
    asked = requestAnimationFrame(step);
  }

  async function play(on) {
    wanted = on;
    cancelAnimationFrame(asked);
    button.textContent = on ? "Pause both" : "Play both";
    if (!on) {
      both.forEach((video) => video.pause());
      other.currentTime = lead.currentTime;
      return show();
    }
    other.currentTime = lead.currentTime;
    await Promise.all(both.map((video) => video.play().catch(() => {})));
    asked = requestAnimationFrame(step);
  }

  for (const video of both) {
    Object.assign(video, { controls: false, loop: false });
    video.pause();
    video.addEventListener("loadedmetadata", show);
  }
  seek(0);
  show();
  bar.hidden = false;
  button.onclick = () => play(!wanted);
  time.oninput = () => {
    seek(Number(time.value));
    show();
  };
  return () => {
    cancelAnimationFrame(asked);
    button.textContent = "Play both";
    bar.hidden = true;
    for (const video of both) Object.assign(video, { controls: true, loop: true });
  };
}
