// What pages of the studio do beyond htmx. Each idea has a module of its own; parts of a page that arrive later are
// set up as those that were there from the beginning.

import { brush } from "./brush.js";
import { form } from "./form.js";
import { sendForms } from "./send.js";
import { watchRequests } from "./server.js";
import { waves } from "./wave.js";

function arrived(part) {
  waves(part);
}

htmx.process(document.body);
watchRequests();
sendForms();
document.addEventListener("htmx:load", (event) => arrived(event.detail.elt));
arrived(document);
const create = document.getElementById("create");
if (create) form(create);
const canvas = document.getElementById("paint");
if (canvas) brush(canvas, create);
document.getElementById("main").inert = false;
