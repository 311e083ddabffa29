"use strict";
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const settings = read("settings");
  const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
  const toDark = new Map(Object.entries(settings.light).map(([part, color]) => [color, settings.dark[part]]));
  const holder = document.getElementById("figure");
  const choice = document.getElementById("trial");

  // Figures are drawn for a light page; a dark one exchanges exactly the colours of the theme.
  const recoloured = (value) => {
    if (typeof value === "string") return toDark.get(value) ?? value;
    if (Array.isArray(value)) return value.map(recoloured);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, recoloured(inner)]));
  };

  const draw = () => {
    const figure = prefersDark.matches ? recoloured(read("drawing")) : read("drawing");
    return Plotly.react(holder, figure.data, { ...figure.layout, height: null, autosize: true, uirevision: "kept" }, settings.config);
  };

  const show = (trial) => {
    document.querySelectorAll("section[data-trial]").forEach((section) => { section.hidden = section.dataset.trial !== trial; });
    choice.value = trial;
  };
  choice.addEventListener("change", () => show(choice.value));
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") show(""); });

  draw().then(() => holder.on("plotly_click", (event) => {
    const trial = [event.points[0]?.customdata ?? []].flat()[0];
    if (trial === undefined || document.querySelector(`section[data-trial="${Number(trial)}"]`) === null) return;
    show(String(trial));
    document.querySelector("aside").scrollTop = 0;
  }));
  prefersDark.addEventListener("change", draw);
})();
