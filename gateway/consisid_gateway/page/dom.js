// Elements without markup: whatever a caller or a server wrote becomes text.

export const byId = (id) => document.getElementById(id);

/** An element. An attribute that is false, null or undefined is left out; "onclick" and the like are listeners. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Show `text` in an element, and hide the element where there is none. */
export function say(target, text) {
  target.textContent = text;
  target.hidden = !text;
}

/** Change text only where it differs: screen readers repeat what is set again. */
export function write(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

let announced = 0;

/** Read something aloud. `pause`: seconds for which nothing else of this kind is said. */
export function announce(text, pause = 0) {
  const now = performance.now();
  if (pause && now - announced < pause * 1000) return;
  announced = now;
  write(byId("announcer"), text);
}

/** An error for a person: what happened, and what to do. `again` offers a button. */
export function notice(error, again = null) {
  return element(
    "div",
    { class: "notice", role: "alert" },
    element("p", { class: "what" }, error.message),
    error.remedy ? element("p", {}, error.remedy) : null,
    error.code ? element("p", { class: "code" }, error.code) : null,
    again ? element("button", { type: "button", onclick: again }, "Try again") : null,
  );
}
