// The API key: asked for where the gateway wants one, kept until the tab is closed.

import { byId, say } from "../dom.js";

const NAME = "consisid-key";
const dialog = byId("key-dialog");
const field = byId("key");

let asking = null;

export const current = () => sessionStorage.getItem(NAME);

/** A key from the person; null where the dialog was closed without one. Callers that ask at once share the answer. */
export function ask(reason) {
  asking ??= new Promise((resolve) => {
    say(byId("key-reason"), reason);
    field.value = "";
    dialog.returnValue = "";
    dialog.addEventListener("close", () => {
      asking = null;
      const given = dialog.returnValue === "use" ? field.value.trim() : "";
      if (given) sessionStorage.setItem(NAME, given);
      field.value = "";
      show();
      resolve(given || null);
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}

/** Show the button by which a key is changed, once there is one. */
export function show() {
  byId("key-button").hidden = !current();
}

byId("key-button").addEventListener("click", () => {
  sessionStorage.removeItem(NAME);
  ask("Enter another key. The one before is forgotten.").then((given) => given && location.reload());
});
byId("key-cancel").addEventListener("click", () => dialog.close(""));
