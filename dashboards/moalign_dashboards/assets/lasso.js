"use strict";
// A lasso where plotly has none, or a lame one: in three-dimensional scenes, with "drag: lasso" in the address, and on the
// triangle of weights, where plotly's cannot leave the triangle and never holds a corner. A drag draws a line round points
// as they are seen; a click still opens the point under the mouse.
(() => {
  const NEAR = 12; // pixels between a click and the point that is meant
  const STILL = 4; // pixels that a click may move
  let line = null; // [[x, y], ...] on the screen while a lasso is drawn
  let drawing = null;

  // What a lasso may be drawn on: the element, and the points with a trial and their places on the screen.
  const surfaceOf = (target) => {
    const graph = target.closest?.("#main .js-plotly-plot");
    const layout = graph?._fullLayout;
    if (!layout || target.closest(".legend, .modebar")) return null;
    const scene = layout.scene?._scene;
    if (scene?.container?.contains(target) && window.moalign.query().get("drag") === "lasso") {
      return { element: scene.container, places: () => inScene(graph, scene) };
    }
    if (layout.ternary && layout.dragmode === "lasso") return { element: graph, places: () => onTriangle(graph) };
    return null;
  };

  // The projection of the scene's own camera.
  const inScene = (graph, scene) => {
    const { projection, view, model } = scene.glplot.cameraParams;
    const times = (m, v) => [0, 1, 2, 3].map((row) => v.reduce((sum, x, column) => sum + m[4 * column + row] * x, 0));
    const box = scene.container.getBoundingClientRect();
    const found = [];
    graph._fullData.filter((trace) => trace.type === "scatter3d" && trace.visible === true && trace.customdata).forEach((trace) => {
      for (let i = 0; i < trace.x.length; i += 1) {
        const at = [trace.x[i], trace.y[i], trace.z[i]].map((value, axis) => value * scene.dataScale[axis]);
        const [x, y, , w] = times(projection, times(view, times(model, [...at, 1])));
        const place = [box.x + box.width * (0.5 + (0.5 * x) / w), box.y + box.height * (0.5 - (0.5 * y) / w)];
        found.push({ customdata: trace.customdata[i], place });
      }
    });
    return found;
  };

  const onTriangle = (graph) => [...graph.querySelectorAll(".ternarylayer g.trace path.point")].map((mark) => {
    const { trace } = mark.closest("g.trace").__data__[0];
    const box = mark.getBoundingClientRect();
    return { customdata: trace.customdata?.[mark.__data__.i], place: [box.x + box.width / 2, box.y + box.height / 2] };
  });

  const inside = ([x, y]) => {
    let odd = false;
    line.forEach(([ax, ay], i) => {
      const [bx, by] = line[(i + 1) % line.length];
      if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) odd = !odd;
    });
    return odd;
  };

  const draw = () => {
    drawing.firstChild.setAttribute("points", line.map((point) => point.join(",")).join(" "));
  };

  const begin = (event) => {
    const here = event.button === 0 && !event.shiftKey && !event.ctrlKey && !event.metaKey && surfaceOf(event.target);
    if (!here) return;
    event.stopPropagation();
    line = [[event.clientX, event.clientY]];
    drawing = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    drawing.setAttribute("class", "lasso");
    drawing.append(document.createElementNS("http://www.w3.org/2000/svg", "polygon"));
    document.body.append(drawing);
  };

  const move = (event) => {
    if (line === null) {
      const here = event.buttons === 0 && surfaceOf(event.target);
      if (here) here.element.style.cursor = "crosshair";
      return;
    }
    event.stopPropagation();
    line.push([event.clientX, event.clientY]);
    draw();
  };

  const end = (event) => {
    if (line === null) return;
    const here = surfaceOf(document.elementFromPoint(...line[0]) ?? event.target);
    drawing.remove();
    const far = line.some(([x, y]) => Math.hypot(x - line[0][0], y - line[0][1]) > STILL);
    if (here && far) {
      const chosen = window.moalign.trialsOf(here.places().filter(({ place }) => inside(place)));
      if (chosen.length) window.moalign.go(window.moalign.select(chosen));
    } else if (here) {
      const distance = ({ place: [x, y] }) => Math.hypot(x - event.clientX, y - event.clientY);
      const nearest = here.places().reduce((best, one) => (best && distance(best) <= distance(one) ? best : one), null);
      const [trial] = nearest && distance(nearest) <= NEAR ? window.moalign.trialsOf([nearest]) : [];
      const parameters = window.moalign.query();
      if (trial !== undefined) {
        parameters.set("trial", trial);
        window.moalign.go(parameters);
      }
    }
    line = null;
  };

  const options = { capture: true };
  window.addEventListener("mousedown", begin, options);
  window.addEventListener("mousemove", move, options);
  window.addEventListener("mouseup", end, options);
  window.addEventListener("dblclick", (event) => {
    if (surfaceOf(event.target) && window.moalign.query().has("trials")) window.moalign.go(window.moalign.select([]));
  }, options);
})();
