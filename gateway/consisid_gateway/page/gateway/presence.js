// Whether the gateway answers, as those who ask it find.

import { byId, say } from "../dom.js";

const TEXT = "The gateway does not answer. Videos that were started go on; this page tries again by itself.";
const missing = new Set();

/** `who` found the gateway away, or there again. */
export function away(who, is) {
  if (is) missing.add(who);
  else missing.delete(who);
  const text = missing.size ? TEXT : "";
  if (byId("away").textContent !== text) say(byId("away"), text);
}
