// What pages of the studio do beyond htmx. Each idea has a module of its own; parts of a page that arrive later are
// set up as those that were there from the beginning.

import { brush } from "./brush.js";
import { curves } from "./curves.js";
import { form } from "./form.js";
import { sendForms } from "./send.js";
import { watchRequests } from "./server.js";
import { waves } from "./wave.js";

function arrived(part) {
  waves(part);
  for (const chart of part.querySelectorAll?.("[data-log]:empty") ?? []) curves(chart);
}

// Small images show their pixels; those of photos are smoothed when they are enlarged.
const SMALL = 96;
function smooth(image) {
  if (image instanceof HTMLImageElement && image.naturalWidth > SMALL) image.style.imageRendering = "auto";
}

document.addEventListener("load", (event) => smooth(event.target), true);
for (const image of document.images) smooth(image);
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
