"use strict";
// Ranges on parallel axes, brushed with the mouse or typed into the fields below: the trials inside all of them are the
// selection. Both stand in the address.
(() => {
  const WAIT = 400; // milliseconds after the last key before typed numbers count
  let waiting = 0;

  const plot = () => document.querySelector("[data-brush] .js-plotly-plot");
  const axes = () => plot()?._fullData?.find((trace) => trace.type === "parcoords");

  // Ranges by the name of their axis: { name: [[low, high], ...] }, null for an open end.
  const narrowed = (ranges) => {
    const shown = axes();
    const parameters = window.moalign.select([]);
    if (!Object.keys(ranges).length) return parameters;
    const inside = ([low, high], value) => (low === null || value >= low) && (high === null || value <= high);
    const bounded = shown.dimensions.filter((axis) => ranges[axis.name]);
    const held = (row) => bounded.every((axis) => ranges[axis.name].some((range) => inside(range, axis.values[row])));
    const trials = shown.customdata.map((link) => link[0]).filter((_, row) => held(row));
    parameters.set("trials", trials.length ? window.moalign.written(trials) : "-");
    parameters.set("within", JSON.stringify(ranges));
    return parameters;
  };

  const short = (value) => Number(value.toPrecision(6));

  // What a brush of plotly's left behind; null when it is what the address says already.
  window.moalign.brushed = () => {
    if (!axes()) return null;
    const ranges = {};
    axes().dimensions.filter((axis) => axis.constraintrange?.length).forEach((axis) => {
      const each = Array.isArray(axis.constraintrange[0]) ? axis.constraintrange : [axis.constraintrange];
      ranges[axis.name] = each.map((range) => range.map(short));
    });
    const now = window.moalign.query();
    if (!Object.keys(ranges).length && !now.has("within")) return null;
    return window.moalign.address(narrowed(ranges));
  };

  const typed = () => {
    if (!axes()) return;
    const ranges = {};
    document.querySelectorAll("input[data-range]").forEach((field) => {
      if (field.value === "" || !Number.isFinite(field.valueAsNumber)) return;
      ranges[field.dataset.range] ??= [[null, null]];
      ranges[field.dataset.range][0][field.dataset.side === "from" ? 0 : 1] = field.valueAsNumber;
    });
    window.moalign.go(narrowed(ranges));
  };

  document.addEventListener("input", (event) => {
    if (!event.target.matches?.("input[data-range]")) return;
    clearTimeout(waiting);
    waiting = setTimeout(typed, WAIT);
  });

  // Fields follow the brushes, but for the one that is being typed into.
  setInterval(() => {
    document.querySelectorAll("input[data-range]").forEach((field) => {
      if (field === document.activeElement || field.dataset.now === field.dataset.was) return;
      field.value = field.dataset.now;
      field.dataset.was = field.dataset.now;
    });
  }, 300);
})();
