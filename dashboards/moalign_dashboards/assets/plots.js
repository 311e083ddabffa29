"use strict";
// What plotly's figures are listened to for, and where they need help.
(() => {
  // Double-click undoes a selection. Plots come and go, so that they are listened to as they appear.
  const deselected = () => {
    if (window.moalign.query().has("trials")) window.moalign.go(window.moalign.select([]));
  };
  // A space reports a click only if it was drawn anew while the button was down, which a slow machine may not manage.
  const under = new WeakMap(); // plot -> what the mouse is over
  let answered = 0;
  let pressed = [0, 0];
  const inSpace = (event) => {
    const plot = event.target.closest?.(".gl-container")?.closest("#main .js-plotly-plot");
    const still = Math.hypot(event.clientX - pressed[0], event.clientY - pressed[1]) < 4;
    if (plot?._fullLayout?.scene && under.has(plot) && still && Date.now() - answered > 1000) plot.emit("plotly_click", under.get(plot));
  };

  // A drawing that was asked for before another tool was chosen brings back the old one.
  const retooled = (plot) => {
    const { page, name } = JSON.parse(plot.closest('[id^="{"]')?.id ?? "{}");
    const kept = window.moalign.zoomOf(`${page} ${name}`);
    const layout = plot._fullLayout;
    const tools = { dragmode: layout.dragmode, "scene.dragmode": layout.scene?.dragmode };
    Object.entries(tools).forEach(([part, now]) => {
      if (now !== undefined && kept[part] !== undefined && kept[part] !== now) window.Plotly.relayout(plot, { [part]: kept[part] });
    });
  };
  setInterval(() => {
    document.querySelectorAll("#main .js-plotly-plot:not([data-heard])").forEach((plot) => {
      if (typeof plot.on !== "function") return;
      plot.dataset.heard = "";
      plot.on("plotly_deselect", deselected);
      plot.on("plotly_afterplot", () => retooled(plot));
      plot.on("plotly_hover", (event) => { under.set(plot, event); });
      plot.on("plotly_unhover", () => { under.delete(plot); });
      plot.on("plotly_click", () => { answered = Date.now(); });
    });
  }, 300);

  document.addEventListener("mousedown", (event) => { pressed = [event.clientX, event.clientY]; }, true);
  document.addEventListener("click", inSpace);
})();
