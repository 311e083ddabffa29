"use strict";
// The keyboard: Escape closes, the focus follows into a drawer that was opened by key and back again, and a figure that
// has the focus is zoomed and moved.
(() => {
  const STEP = 0.15; // share of a range that an arrow moves
  const ZOOM = 1.25; // factor of one key
  const TURN = 0.15; // radians that an arrow turns a space
  const first = new WeakMap(); // plot -> camera before the first key
  let byKey = false;
  let opener = null;
  let title = "";

  document.addEventListener("mousedown", () => { byKey = false; }, true);
  document.addEventListener("keydown", () => { byKey = true; }, true);

  const follow = () => {
    const heading = document.getElementById("drawer-title");
    const now = heading?.textContent ?? "";
    if (now === title) return;
    const drawer = document.getElementById("drawer");
    const focused = document.activeElement;
    const free = focused === null || focused === document.body;
    if (heading) {
      drawer.scrollTop = 0;
      if (byKey && !free && !drawer.contains(focused)) opener = focused;
      if (byKey || free) heading.focus({ preventScroll: true });
    } else if (free && opener?.isConnected) opener.focus({ preventScroll: true });
    title = now;
    window.dash_clientside.set_props("live", { children: now }); // said by screen readers
  };
  window.addEventListener("moalign:arranged", () => {
    new MutationObserver(follow).observe(document.getElementById("drawer"), { childList: true, characterData: true, subtree: true });
    follow();
  }, { once: true });

  const escape = () => {
    const menu = document.querySelector("details.exports[open]");
    if (menu) {
      if (menu.contains(document.activeElement)) menu.querySelector("summary").focus();
      menu.open = false;
      return;
    }
    const parameters = window.moalign.query();
    if (!parameters.has("trial")) return;
    parameters.delete("trial");
    window.moalign.go(parameters);
  };

  const plane = (layout, key) => {
    const change = {};
    Object.keys(layout).filter((name) => /^[xy]axis\d*$/.test(name)).forEach((name) => {
      const [low, high] = layout[name].range;
      const [middle, half] = [(low + high) / 2, (high - low) / 2];
      const along = { x: { ArrowLeft: -1, ArrowRight: 1 }, y: { ArrowDown: -1, ArrowUp: 1 } }[name[0]][key] ?? 0;
      const factor = { "+": 1 / ZOOM, "=": 1 / ZOOM, "-": ZOOM }[key] ?? 1;
      if (key === "0") change[`${name}.autorange`] = true;
      else if (along) change[`${name}.range`] = [low + 2 * STEP * half * along, high + 2 * STEP * half * along];
      else if (factor !== 1) change[`${name}.range`] = [middle - half * factor, middle + half * factor];
    });
    return change;
  };

  const space = (plot, key) => {
    const { camera } = plot._fullLayout.scene;
    if (!first.has(plot)) first.set(plot, structuredClone({ eye: camera.eye, center: camera.center, up: camera.up }));
    if (key === "0") return { "scene.camera": structuredClone(first.get(plot)) };
    const factor = { "+": 1 / ZOOM, "=": 1 / ZOOM, "-": ZOOM }[key] ?? 1;
    const turn = { ArrowLeft: -TURN, ArrowRight: TURN }[key] ?? 0;
    const lift = { ArrowUp: TURN, ArrowDown: -TURN }[key] ?? 0;
    const { x, y, z } = camera.eye;
    const [cos, sin] = [Math.cos(turn), Math.sin(turn)];
    const eye = { x: factor * (x * cos - y * sin), y: factor * (x * sin + y * cos), z: factor * z + lift * Math.hypot(x, y, z) };
    return { "scene.camera": { ...structuredClone(first.get(plot)), eye } };
  };

  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") escape();
    const plot = event.target.matches?.(".graph:focus-visible") && event.target.querySelector(".js-plotly-plot");
    const known = ["+", "=", "-", "0", "ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"].includes(event.key);
    if (!plot?._fullLayout || !known || event.ctrlKey || event.metaKey || event.altKey) return;
    const change = plot._fullLayout.scene ? space(plot, event.key) : plane(plot._fullLayout, event.key);
    if (!Object.keys(change).length) return;
    event.preventDefault();
    window.Plotly.relayout(plot, change);
  });
})();
