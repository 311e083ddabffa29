"use strict";
// The probe on the plot of weights: a ring that is dragged over the triangle or along the line, sliders beside it, and
// the arrow keys. Its place is written into the address; the server answers with the nearest policy.
(() => {
  const STEP = 0.02;
  const WAIT = 120; // milliseconds between two questions while the ring is dragged
  let weights = null;
  let asked = 0;
  let timer = 0;
  let names = [];

  const parameters = () => new URLSearchParams(window.location.search);
  const plot = () => document.getElementById("probe-plot");
  const kind = () => plot()?.dataset.kind;

  const read = () => {
    const given = (parameters().get("probe") ?? "").split(",").map(Number);
    const sum = given.reduce((a, b) => a + b, 0);
    const usable = given.length === names.length && given.every((w) => w >= 0) && sum > 0;
    return usable ? given.map((w) => w / sum) : names.map(() => 1 / names.length);
  };

  const ask = () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      asked = Date.now();
      const now = parameters();
      now.set("probe", weights.map((w) => w.toFixed(3)).join(","));
      const search = `?${now.toString().replaceAll("%2C", ",").replaceAll("%7E", "~")}`;
      window.history.replaceState(null, "", window.location.pathname + search);
      window.dash_clientside.set_props("url", { search });
    }, Math.max(WAIT - (Date.now() - asked), 0));
  };

  // Corners of the drawn triangle, or ends of the line, in pixels of the holder: a, b, c or first = 1, first = 0.
  const corners = () => {
    const holder = plot();
    const origin = holder.getBoundingClientRect();
    if (kind() === "ternary") {
      const shape = holder.querySelector(".ternarylayer .plotbg path");
      if (!shape) return null;
      const box = shape.getBoundingClientRect();
      const [left, right, top, bottom] = [box.left, box.right, box.top, box.bottom];
      return [[(left + right) / 2, top], [left, bottom], [right, bottom]].map(([x, y]) => [x - origin.left, y - origin.top]);
    }
    const area = holder.querySelector(".nsewdrag");
    const axis = holder.querySelector(".js-plotly-plot")?._fullLayout?.xaxis;
    if (!area || !axis) return null;
    const box = area.getBoundingClientRect();
    const at = (value) => box.left - origin.left + ((value - axis.range[0]) / (axis.range[1] - axis.range[0])) * box.width;
    const y = box.bottom - origin.top - 14;
    return [[at(1), y], [at(0), y]];
  };

  const place = () => {
    const ring = document.getElementById("probe-ring");
    const ends = weights && ring ? corners() : null;
    if (!ends) return;
    ring.style.left = `${ends.reduce((sum, [x], i) => sum + x * weights[i], 0)}px`;
    ring.style.top = `${ends.reduce((sum, [, y], i) => sum + y * weights[i], 0)}px`;
    const words = names.map((name, i) => `${name} ${weights[i].toFixed(2)}`).join(", ");
    ring.setAttribute("aria-valuetext", words);
    ring.setAttribute("aria-valuenow", weights[0].toFixed(2));
  };

  const show = () => {
    place();
    document.querySelectorAll("#probe-sliders input").forEach((input, i) => {
      if (document.activeElement !== input) input.value = weights[i];
      input.nextElementSibling.textContent = weights[i].toFixed(2);
    });
  };

  const set = (wanted) => {
    const positive = wanted.map((w) => Math.max(w, 0));
    const sum = positive.reduce((a, b) => a + b, 0);
    if (!(sum > 0)) return;
    weights = positive.map((w) => w / sum);
    show();
    ask();
  };

  const fromPixels = (x, y) => {
    const ends = corners();
    if (!ends) return;
    if (ends.length === 2) {
      const first = Math.min(Math.max((x - ends[1][0]) / (ends[0][0] - ends[1][0]), 0), 1);
      set([first, 1 - first]);
      return;
    }
    const [[ax, ay], [bx, by], [cx, cy]] = ends;
    const area = (by - cy) * (ax - cx) + (cx - bx) * (ay - cy);
    const a = ((by - cy) * (x - cx) + (cx - bx) * (y - cy)) / area;
    const b = ((cy - ay) * (x - cx) + (ax - cx) * (y - cy)) / area;
    set([a, b, 1 - a - b]);
  };

  const moved = (position, by) => {
    const target = Math.min(Math.max(weights[position] + by, 0), 1);
    const rest = 1 - weights[position];
    const others = names.length - 1;
    set(weights.map((w, i) => (i === position ? target : rest > 0 ? (w * (1 - target)) / rest : (1 - target) / others)));
  };

  const build = () => {
    const holder = plot();
    const box = document.getElementById("probe-sliders");
    if (!holder || !box) return;
    if (!box.childElementCount) {
      names = JSON.parse(box.dataset.objectives);
      weights = read();
      names.forEach((name, i) => {
        const title = document.createElement("label");
        title.textContent = name; // text, never markup
        title.htmlFor = `probe-slider-${i}`;
        const input = Object.assign(document.createElement("input"), { type: "range", min: 0, max: 1, step: 0.01, id: `probe-slider-${i}` });
        const value = document.createElement("output");
        input.addEventListener("input", () => moved(i, Number(input.value) - weights[i]));
        box.append(title, input, value);
      });
    }
    if (kind() !== "none" && !document.getElementById("probe-ring")) {
      const ring = document.createElement("div");
      Object.assign(ring, { id: "probe-ring", className: "probe", tabIndex: 0, title: "Drag to probe" });
      ring.setAttribute("role", "slider");
      ring.setAttribute("aria-label", "Probe on the preference weights");
      ring.addEventListener("pointerdown", (event) => { ring.setPointerCapture(event.pointerId); event.preventDefault(); ring.focus(); });
      const follow = (event) => {
        if (!ring.hasPointerCapture(event.pointerId)) return;
        const origin = holder.getBoundingClientRect();
        fromPixels(event.clientX - origin.left, event.clientY - origin.top);
      };
      ring.addEventListener("pointermove", follow);
      ring.addEventListener("pointerup", follow);
      ring.addEventListener("keydown", (event) => {
        const by = { ArrowUp: [0, STEP], ArrowDown: [0, -STEP], ArrowLeft: [1, STEP], ArrowRight: [names.length - 1, STEP] }[event.key];
        if (!by) return;
        event.preventDefault();
        moved(...by);
      });
      holder.append(ring);
      const graph = holder.querySelector(".js-plotly-plot");
      graph?.on?.("plotly_afterplot", place);
    }
    show();
  };

  window.addEventListener("moalign:arranged", () => setTimeout(build, 50));
  window.addEventListener("resize", () => setTimeout(place, 200));
  window.addEventListener("popstate", () => { if (names.length) { weights = read(); show(); } });
  // The plot is drawn some time after its place was arranged.
  setInterval(() => {
    const graph = plot()?.querySelector(".js-plotly-plot");
    if (graph && !graph.dataset.probed) { graph.dataset.probed = "yes"; graph.on?.("plotly_afterplot", place); build(); }
  }, 300);
})();
