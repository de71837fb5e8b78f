// The page: a form, the videos that are shown, and those made so far.

import * as api from "./gateway/api.js";
import * as composer from "./form/composer.js";
import { byId, notice, say } from "./dom.js";
import * as history from "./videos/history.js";
import * as key from "./gateway/key.js";
import * as portrait from "./form/portrait.js";
import { away } from "./gateway/presence.js";
import * as viewer from "./videos/viewer.js";

const AGAIN = 2000;
/* Milliseconds before a gateway that does not answer is asked again. */

async function choices() {
  for (;;) {
    try {
      const found = await api.options();
      away("page", false);
      return found;
    } catch (error) {
      if (!(error instanceof api.Away) && error.status < 500) {
        byId("composer-problem").replaceChildren(notice(error, () => location.reload()));
        return {};
      }
      away("page", true);
      await new Promise((resolve) => setTimeout(resolve, AGAIN));
    }
  }
}

function started(ids) {
  viewer.open(ids);
  history.look();
}

key.show();
byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("portrait").focus();
});
composer.setUp({}, started);
const found = await choices();
composer.setUp(found, started);
say(byId("state"), found.workers === 0 ? "No worker is ready: videos wait." : "");
portrait.setUp(found.upload_bytes, composer.changed);
viewer.setUp({ change: history.update, use: composer.fill, show: history.mark });
await Promise.all([portrait.restore(), history.setUp({ open: started, drop: viewer.drop })]);
const running = history.open();
if (running && !viewer.shown().length) viewer.put([running.id]);
