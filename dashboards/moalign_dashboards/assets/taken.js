"use strict";
// What is taken away, pictures, copies and sheets of paper, and the one thing that is left behind: a vote.
(() => {
  const PAPER = 660; // pixels of a plot on a sheet of A4 or letter

  const image = (format) => {
    document.querySelectorAll("#main .js-plotly-plot").forEach((plot, position) => {
      const { width, height } = plot.getBoundingClientRect();
      window.Plotly.downloadImage(plot, { format, width, height, scale: 2, filename: `moalign-${position + 1}` });
    });
  };

  // Paper is narrower than most windows. Plots are drawn anew for it, but for those that a graphics card draws too late.
  const drawnFor = (width) => {
    document.querySelectorAll("#main .js-plotly-plot").forEach((plot) => {
      const now = plot._fullLayout?.width;
      const look = width ? { width: `${now}px`, zoom: Math.min(1, width / now) } : { width: "", zoom: "" };
      if (plot.querySelector("canvas")) Object.assign(plot.closest(".graph").style, look);
      else if (now) window.Plotly.relayout(plot, width ? { width, autosize: false } : { width: null, autosize: true });
    });
  };
  window.addEventListener("beforeprint", () => drawnFor(PAPER));
  window.addEventListener("afterprint", () => drawnFor(null));

  const copy = (button) => {
    const said = (word) => { button.textContent = word; setTimeout(() => { button.textContent = "copy"; }, 1200); };
    const done = navigator.clipboard?.writeText(button.dataset.copy) ?? Promise.reject(); // absent without https
    done.then(() => said("copied")).catch(() => {
      window.getSelection().selectAllChildren(button.parentElement.querySelector("code"));
      said(document.execCommand("copy") ? "copied" : "selected");
    });
  };

  const vote = (button) => {
    const row = button.closest("[data-pair]");
    const note = row.querySelector(".outcome");
    fetch("/vote", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ ...JSON.parse(row.dataset.pair), choice: button.dataset.vote }),
    })
      .then((answer) => answer.json())
      .then((line) => {
        if (line.error !== undefined) { note.textContent = line.error; return; }
        row.querySelectorAll("[data-vote]").forEach((other) => { other.disabled = true; });
        button.classList.add("chosen");
        note.textContent = `left was trial ${line.left}, right was trial ${line.right}`;
      })
      .catch((error) => { note.textContent = `not recorded: ${error}`; });
  };

  document.addEventListener("click", ({ target }) => {
    const at = (name) => target.closest?.(`[data-${name}]`);
    if (at("copy")) copy(at("copy"));
    if (at("image")) image(at("image").dataset.image);
    if (at("vote")) vote(at("vote"));
  });
})();
