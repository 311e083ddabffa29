"use strict";
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const settings = read("settings");
  const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
  const printWidth = 1040; // CSS pixels between the margins of an A4 page at the style sheet's zoom for print
  const toDark = new Map(Object.entries(settings.light).map(([part, color]) => [color, settings.dark[part]]));

  // Figures are drawn for a light page; a dark one exchanges exactly the colours of the theme.
  const recoloured = (value) => {
    if (typeof value === "string") return toDark.get(value) ?? value;
    if (Array.isArray(value)) return value.map(recoloured);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, recoloured(inner)]));
  };

  const openPolicy = (trial) => {
    const policy = Number.isInteger(trial) ? document.getElementById(`policy-${trial}`) : null;
    if (policy === null) return;
    document.querySelectorAll(".policy.chosen").forEach((other) => other.classList.remove("chosen"));
    policy.classList.add("chosen");
    policy.open = true;
    policy.scrollIntoView({ block: "start" });
    policy.querySelector("summary").focus({ preventScroll: true });
  };

  const holders = [...document.querySelectorAll("[data-figure]")];
  const draw = (dark, width) => Promise.all(holders.map((holder) => {
    const original = read(holder.dataset.figure);
    const figure = dark ? recoloured(original) : original;
    if (width !== undefined) figure.layout.width = width / holder.parentElement.querySelectorAll("[data-figure]").length;
    return Plotly.react(holder, figure.data, figure.layout, settings.config);
  }));
  draw(prefersDark.matches).then(() => holders.forEach((holder) => {
    holder.on("plotly_click", (event) => openPolicy(event.points[0]?.customdata?.[0]));
  }));
  prefersDark.addEventListener("change", () => draw(prefersDark.matches));
  window.addEventListener("beforeprint", () => draw(false, printWidth));
  window.addEventListener("afterprint", () => draw(prefersDark.matches));

  const openFromAddress = () => {
    const match = /^#policy-(\d+)$/.exec(window.location.hash);
    if (match) openPolicy(Number(match[1]));
  };
  window.addEventListener("hashchange", openFromAddress);
  openFromAddress();

  const key = (row, column) => {
    const text = row.cells[column].dataset.value;
    return text === "" ? -Infinity : Number(text);
  };
  document.querySelectorAll(".sortable").forEach((table) => {
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => heading.addEventListener("click", () => {
      const descending = heading.getAttribute("aria-sort") !== "descending";
      const sign = descending ? -1 : 1;
      const rows = [...table.tBodies[0].rows].sort((a, b) => sign * (key(a, column) - key(b, column)) || 0);
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
      table.tBodies[0].append(...rows);
    }));
  });
})();
