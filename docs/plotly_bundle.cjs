// Makes moalign/templates/plotly.min.js: plotly.js with the kinds of traces that moalign draws, by plotly's own recipe
// (CUSTOM_BUNDLE.md and esbuild-config.js of its repository). After an update of plotly, in an empty folder:
//
//     npm install plotly.js@VERSION esbuild@0.28 esbuild-plugin-glsl@1 esbuild-plugin-environment@0.5 \
//         esbuild-plugin-inline-css@0.0.1 stream-browserify@3 buffer@6
//     NODE_PATH=node_modules node .../docs/plotly_bundle.cjs .../moalign/templates/plotly.min.js
//
// VERSION is plotly.offline.get_plotlyjs_version(). "Strict" traces bring their shaders' code along, so that pages
// need not allow 'unsafe-eval'.
const fs = require("fs");
const path = require("path");
const esbuild = require("esbuild");
const { environmentPlugin } = require("esbuild-plugin-environment");
const { glsl } = require("esbuild-plugin-glsl");
const css = require("esbuild-plugin-inline-css");

const KINDS = ["bar", "contour", "mesh3d", "parcoords", "scatter", "scatter3d", "scattergl", "scatterternary"];
const STRICT = ["parcoords", "scattergl"];

const home = path.join(process.cwd(), "node_modules", "plotly.js");
const { version } = JSON.parse(fs.readFileSync(path.join(home, "package.json")));
const modules = KINDS.map((kind) => (STRICT.includes(kind) ? `src/traces/${kind}/strict` : `lib/${kind}`));
const required = modules.map((name) => `require("plotly.js/${name}")`).join(", ");
const licence = fs.readFileSync(path.join(home, "LICENSE"), "utf-8").trim().split("\n").map((line) => `* ${line}`.trimEnd());
const head = [`/**`, `* plotly.js v${version}`, `* traces: ${KINDS.join(", ")}`, `*`, ...licence, `*/`].join("\n");

esbuild.build({
  stdin: {
    contents: `const Plotly = require("plotly.js/lib/core"); Plotly.register([${required}]); module.exports = Plotly;`,
    resolveDir: process.cwd(),
  },
  outfile: process.argv[2],
  banner: { js: head },
  format: "iife", // compiled while it is still being fetched
  globalName: "Plotly",
  bundle: true,
  minify: true,
  target: "es2016",
  charset: "utf8",
  legalComments: "eof",
  plugins: [css(), glsl({ minify: true }), environmentPlugin({ NODE_DEBUG: false })],
  alias: { regl: "@plotly/regl", stream: "stream-browserify" },
  define: { global: "window", "define.amd": "false" },
}).catch(() => process.exit(1));
