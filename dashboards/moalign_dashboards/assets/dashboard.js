"use strict";
// What the browser does itself: clicks and selections become addresses at once, and the page asks for news only while
// nobody is using it. Everything that is looked at stands in the address.
(() => {
  const QUIET = 1500; // milliseconds without mouse or key before the page may refresh
  const PATIENCE = 1500; // milliseconds after which the page follows a click without its drawer
  const root = document.documentElement;
  let held = false;
  let busyUntil = 0;
  let shift = false;
  let toggling = false;

  const nothing = () => [window.dash_clientside.no_update, window.dash_clientside.no_update];
  const query = () => new URLSearchParams(window.location.search);
  const address = (parameters, path) => {
    const text = parameters.toString().replaceAll("%2C", ",").replaceAll("%7E", "~");
    return [path ?? window.location.pathname, text ? `?${text}` : ""];
  };
  const go = (parameters, path) => {
    const [pathname, search] = address(parameters, path);
    window.dash_clientside.set_props("url", { pathname, search });
  };
  const changed = () => window.dash_clientside.callback_context.triggered[0]?.value;

  // The shorter of ranges "0-3,7" and a base64 mask.
  const written = (trials) => {
    const sorted = [...new Set(trials)].sort((a, b) => a - b);
    const ranges = [];
    for (let i = 0; i < sorted.length; ) {
      let j = i;
      while (j + 1 < sorted.length && sorted[j + 1] === sorted[j] + 1) j += 1;
      ranges.push(i === j ? `${sorted[i]}` : `${sorted[i]}-${sorted[j]}`);
      i = j + 1;
    }
    const text = ranges.join(",");
    if (text.length < 400) return text;
    const mask = new Uint8Array(Math.floor(sorted[sorted.length - 1] / 8) + 1);
    sorted.forEach((trial) => { mask[trial >> 3] |= 1 << (trial & 7); });
    let bytes = "";
    mask.forEach((byte) => { bytes += String.fromCharCode(byte); });
    const packed = `~${btoa(bytes).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")}`;
    return packed.length < text.length ? packed : text;
  };

  // The trials of such a text, as the server reads them.
  const read = (text) => {
    const found = new Set();
    if (text.startsWith("~")) {
      const bytes = atob(text.slice(1).replaceAll("-", "+").replaceAll("_", "/"));
      for (let trial = 0; trial < 8 * bytes.length; trial += 1) {
        if ((bytes.charCodeAt(trial >> 3) >> (trial & 7)) & 1) found.add(trial);
      }
      return found;
    }
    text.split(",").filter((part) => /^\d{1,7}(-\d{1,7})?$/.test(part)).forEach((part) => {
      const [first, last] = part.split("-").map(Number);
      for (let trial = first; trial <= (last ?? first); trial += 1) found.add(trial);
    });
    return found;
  };

  // [trial, study], or the trial alone as a text where there are many
  const linkOf = (point) => (Array.isArray(point.customdata) ? point.customdata : [Number(point.customdata ?? NaN)]);
  const current = () => query().get("study") ?? document.querySelector("[data-option=study]")?.value;
  const trialsOf = (points) => points.map(linkOf) // of this study, not of one laid over it
    .filter(([trial, study]) => Number.isInteger(trial) && (study === undefined || study === current())).map(([trial]) => trial);
  const select = (trials) => {
    const parameters = query();
    if (trials.length) parameters.set("trials", written(trials));
    else parameters.delete("trials");
    parameters.delete("within"); // the ranges that chose others
    return parameters;
  };
  const toggled = (trial) => {
    const trials = read(query().get("trials") ?? "");
    if (!trials.delete(trial)) trials.add(trial);
    return select([...trials]);
  };
  window.moalign = { query, go, address, written, linkOf, trialsOf, select, zoomOf: (key) => zooms[key] ?? {} };

  // Texts, and elements as [tag, attributes, ...children]: one component however many words it shows; see words.py.
  const built = (node, place) => {
    if (!Array.isArray(node)) return node;
    const [tag, attributes, ...children] = node;
    return window.React.createElement(tag, { key: place, ...attributes }, ...children.map(built));
  };
  window.moalign_dashboards = { Words: ({ tree }) => tree.map(built) };

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    moalign: {
      clicked: () => {
        const point = changed()?.points?.find((one) => one.customdata !== undefined && one.customdata !== null);
        if (point === undefined) return nothing();
        const [trial, study] = linkOf(point);
        const parameters = query();
        if (typeof trial === "string") { // a user, not a trial
          parameters.set("user", trial);
          return address(parameters);
        }
        if (!Number.isInteger(trial)) return nothing();
        const shown = current();
        if (typeof study === "string" && study !== shown) { // a point of a study laid over this one
          parameters.set("study", study);
          parameters.set("with", [shown, ...(parameters.get("with") ?? "").split(",")].filter((n) => n && n !== study).join(","));
          parameters.delete("trials");
        }
        if (toggling && parameters.get("study") === query().get("study")) return address(toggled(trial));
        const first = parameters.get("trial");
        if (shift && first !== null && Number(first) !== trial) {
          parameters.set("a", first);
          parameters.set("b", trial);
          parameters.delete("trial");
          return address(parameters, "/compare");
        }
        parameters.set("trial", trial);
        return address(parameters);
      },

      selected: () => {
        const trials = trialsOf(changed()?.points ?? []); // a new plot reports nothing, too: see `deselected`
        if (!trials.length) return nothing();
        return address(select(trials));
      },

      brushed: () => (changed() ? window.moalign.brushed() : null) ?? nothing(), // see ranges.js

      // The address once the drawer of a clicked policy is there; at once if anything but the policy changed.
      settled: (path, search) => {
        const parameters = new URLSearchParams(search ?? "");
        const trial = parameters.get("trial");
        parameters.delete("trial");
        const rest = `${path}?${parameters}`;
        const only = rest === settledRest && trial !== null;
        settledRest = rest;
        pending = null;
        if (!only) return `${path}${search ?? ""}`;
        pending = `${path}${search ?? ""}`;
        clearTimeout(settling);
        settling = setTimeout(settle, PATIENCE);
        return window.dash_clientside.no_update;
      },

      // What figures depend on: the address without that which concerns the drawer, the tables and the probe only.
      look: (search) => {
        const parameters = new URLSearchParams(search ?? "");
        ["trial", "texts", "page", "sort", "probe", "find", "drag"].forEach((name) => parameters.delete(name));
        const text = parameters.toString();
        if (text === looked) return window.dash_clientside.no_update;
        looked = text;
        const axes = ["study", "view", "x", "y", "z"].map((name) => parameters.get(name)).join(" ");
        if (axes !== axesLooked) { // other axes, other ranges
          axesLooked = axes;
          zooms = {};
          window.dash_clientside.set_props("zoom", { data: zooms });
        }
        return text;
      },

      // Zoom and camera of each figure, which a new drawing of it takes over, and the tool; see `retooled`.
      zoomed: () => {
        const { prop_id: source, value } = window.dash_clientside.callback_context.triggered[0] ?? {};
        if (!value || !source) return window.dash_clientside.no_update;
        const { page, name } = JSON.parse(source.slice(0, source.lastIndexOf(".")));
        const key = `${page} ${name}`;
        const kept = { ...(zooms[key] ?? {}) };
        Object.entries(value).forEach(([part, now]) => {
          if (part.endsWith(".autorange")) {
            const axis = part.slice(0, -".autorange".length);
            Object.keys(kept).filter((old) => old.startsWith(`${axis}.range`)).forEach((old) => { delete kept[old]; });
          } else if (/axis\d*\.range|scene\d*\.camera$|dragmode$/.test(part)) kept[part] = now;
        });
        zooms = { ...zooms, [key]: kept };
        return zooms;
      },

      beat: (count) => {
        const waiting = held || Date.now() < busyUntil || document.hidden;
        return waiting ? window.dash_clientside.no_update : count ?? 0;
      },

      theme: (clicks) => {
        const dark = window.matchMedia("(prefers-color-scheme: dark)").matches;
        let theme = localStorage.getItem("moalign-theme") ?? (dark ? "dark" : "light");
        if (clicks) {
          theme = theme === "dark" ? "light" : "dark";
          localStorage.setItem("moalign-theme", theme);
        }
        root.dataset.theme = theme;
        const button = document.getElementById("theme-button");
        if (button) button.textContent = theme === "dark" ? "Light" : "Dark";
        return theme;
      },

      // After something was put on the page: the focus and the probe find their places.
      arranged: () => {
        requestAnimationFrame(() => {
          window.dispatchEvent(new CustomEvent("moalign:arranged"));
          setTimeout(settle, 0);
        });
        return window.dash_clientside.no_update;
      },
    },
  });
  let settledRest = null;
  let settling = 0;
  let pending = null;
  const settle = () => {
    if (pending === null) return;
    window.dash_clientside.set_props("settled", { data: pending });
    pending = null;
  };
  let looked = null;
  let axesLooked = null;
  let zooms = {};

  // ------------------------------------------------------------------------------------------------ mouse and keys

  const busy = () => { busyUntil = Date.now() + QUIET; };
  document.addEventListener("mousedown", (event) => { held = true; shift = event.shiftKey; toggling = event.ctrlKey || event.metaKey; busy(); }, true);
  window.addEventListener("mouseup", () => { held = false; busy(); }, true);
  document.addEventListener("wheel", busy, { capture: true, passive: true });
  document.addEventListener("keydown", busy, true);

  document.addEventListener("change", (event) => {
    const field = event.target.closest?.("select[data-option]");
    if (!field) return;
    const parameters = query();
    parameters.set(field.dataset.option, field.value);
    if (field.dataset.option === "study") {
      ["trials", "within", "trial", "a", "b", "with", "x", "y", "z", "color", "page", "sort", "probe"].forEach((name) => parameters.delete(name));
    }
    go(parameters);
  });

  let searching = 0;
  document.addEventListener("input", (event) => {
    const field = event.target.closest?.("[data-search] input, input[data-search]");
    if (!field) return;
    clearTimeout(searching);
    searching = setTimeout(() => {
      const parameters = query();
      if (field.value) parameters.set("find", field.value);
      else parameters.delete("find");
      go(parameters);
    }, 250);
  });

  const follow = (event, link) => {
    if (event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return; // to a tab of its own
    event.preventDefault();
    const { pathname, search } = new URL(link.href);
    if (pathname !== window.location.pathname) window.scrollTo(0, 0);
    window.dash_clientside.set_props("url", { pathname, search });
  };

  document.addEventListener("click", (event) => {
    const target = event.target;
    const inside = target.closest?.("a[data-inside]");
    if (inside) follow(event, inside);
    const chosen = target.closest?.("[data-choose]");
    if (chosen) go(toggled(Number(chosen.dataset.choose)));
    const menu = document.querySelector("details.exports[open]");
    if (menu && !menu.contains(target)) menu.open = false;
  });
})();
