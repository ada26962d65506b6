// Shows a line when the server does not answer, and hides it when it does.
"use strict";
const lost = (gone) => { document.getElementById("lost").hidden = !gone; };
document.addEventListener("htmx:error", () => lost(true));
document.addEventListener("htmx:after:request", () => lost(false));
