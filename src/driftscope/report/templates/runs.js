// ---- the pages of single runs, built when they are opened (#run-ID)
const runSources = new Map([...document.querySelectorAll("script.run-data")].map((node) => [node.dataset.run, node]));
const runOrder = [...runSources.keys()];
const runView = document.getElementById("run-view");
const reportView = document.getElementById("report-view");
const runPicker = document.getElementById("run-picker");
const sharedByRuns = readJson("run-shared");
let reportScroll = 0;

function numberText(value, decimals, signed) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const text = value.toFixed(decimals);
  const zero = Number(text) === 0;
  return (signed && value > 0 && !zero ? "+" : "") + (zero ? text.replace("-", "") : text).replace("-", "−");
}
function cellText(value, column) {
  if (value === null || value === undefined) return "–";
  if (column.kind === "text") return String(value);
  return column.kind === "count" ? value.toLocaleString("en") : numberText(value, column.decimals, column.signed);
}
const withUnit = (value, measure) => `${numberText(value, measure.decimals, measure.signed)} ${measure.unit}`.trim();
const heading = (measure) => (measure.unit ? `${measure.title}, ${measure.unit}` : measure.title);
const markup = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
const csvCell = (value) => (/[",\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);

// a table with the tools that every table of the page has; `values` are columns by key
function tableBlock(name, title, columns, values) {
  const shown = columns.filter((column) => values[column.key] && values[column.key].some((value) => value !== null));
  const block = document.getElementById("table-tools").content.firstElementChild.cloneNode(true);
  block.dataset.name = name;
  const side = (column) => (column.kind === "text" ? "word" : "number");
  const head = element("tr", {}, ...shown.map((column) => {
    const cell = element("th", { scope: "col", className: side(column) });
    cell.append(element("button", { type: "button", className: "sort", textContent: column.heading }));
    return cell;
  }));
  const count = values[shown[0].key].length;
  const rows = Array.from({ length: count }, (_, row) => element("tr", {}, ...shown.map((column, at) => {
    const value = values[column.key][row];
    const cell = element(at ? "td" : "th", { className: side(column), textContent: cellText(value, column) });
    if (!at) cell.scope = "row";
    cell.dataset.value = value ?? "";
    return cell;
  })));
  const table = element("table", { className: "sortable" }, element("caption", { textContent: title }),
    element("thead", {}, head), element("tbody", {}, ...rows));
  const scroll = block.querySelector(".scroll");
  scroll.setAttribute("aria-label", title);
  scroll.append(table);
  const lines = [shown.map((column) => column.key)];
  for (let row = 0; row < count; row += 1) lines.push(shown.map((column) => csvCell(String(values[column.key][row] ?? ""))));
  block.querySelector(".csv").textContent = JSON.stringify(lines.map((line) => line.join(",")).join("\n") + "\n");
  enlivenTable(block);
  return block;
}

function factsList(facts) {
  return element("dl", { className: "facts" }, ...Object.entries(facts).map(([name, value]) =>
    element("div", {}, element("dt", { textContent: name }), element("dd", { textContent: value }))));
}

function figures(kind, specs) {
  const grid = element("div", { className: `pictures ${kind}` });
  specs.forEach(({ spec, alt }) => grid.append(element("figure", { className: "picture drawn" }, ...plotPlace(spec, alt))));
  return grid;
}

function part(title, ...children) {
  return element("section", {}, element("h3", { textContent: title }), ...children);
}

function lineSpec(measure, x, y, xTitle, words) {
  const ends = [xTitle === "layer" ? x[0] : 0, Math.max(...x)];
  const level = measure.reference === null ? [] : [{
    mode: "lines", x: ends, y: [measure.reference, measure.reference], hoverinfo: "skip",
    line: { color: "var(--muted)", dash: "5px,4px", width: 1 },
  }];
  return {
    title: heading(measure),
    data: [...level, {
      mode: "lines+markers", x, y, hoverinfo: "text", line: { color: sharedByRuns.blue, width: 2 }, marker: { color: sharedByRuns.blue, size: 7 },
      hovertext: x.map((_, at) => `<b>${markup(words(at))}</b><br>${withUnit(y[at], measure)}`),
    }],
    layout: { height: 230, xaxis: { title: { text: xTitle }, showgrid: false, nticks: 8 }, yaxis: { nticks: 6 } },
  };
}

function historyFigures(run) {
  const { history } = run;
  const time = history.step ? "step" : "epoch";
  if (!history[time] || history[time].length < 2) return null;
  const times = [0, ...history[time]];
  const words = (at) => at === 0 ? "before training" : [history.epoch && `epoch ${history.epoch[at - 1]}`, history.step && `step ${history.step[at - 1]}`].filter(Boolean).join(", ");
  return figures("panels", run.measures.filter((measure) => history[measure.key]).map((measure) => ({
    // where the pretrained level is unknown the line begins at the first probe
    spec: lineSpec(measure, times, [measure.reference, ...history[measure.key]], time, words),
    alt: `${heading(measure)} over training, ${history[time].length} probes, at the end ${withUnit(history[measure.key].at(-1), measure)}.`,
  })));
}

function layerFigures(run) {
  const { layers } = run;
  return figures("panels", run.measures.filter((measure) => layers[measure.key]).map((measure) => ({
    spec: lineSpec(measure, layers.layer, layers[measure.key], "layer", (at) => `layer ${layers.layer[at]}`),
    alt: `${heading(measure)} at each layer. The numbers are in the table of layers.`,
  })));
}

function headMap(run) {
  const values = run.heads.flat().filter((value) => value !== null);
  const limit = Math.max(...values.map(Math.abs)) || 1;
  const colours = sharedByRuns.diverging;
  const z = run.heads[0].map((_, head) => run.heads.map((layer) => layer[head])); // rows are heads
  const words = z.map((row, head) => row.map((value, layer) => `<b>layer ${layer + 1}, head ${head + 1}</b><br>${numberText(value, 1, true)} %`));
  const names = (count) => Array.from({ length: count }, (_, at) => String(at + 1));
  return figures("wide", [{
    spec: {
      title: "Δ attention entropy, %, by layer and head",
      data: [{
        type: "heatmap", z, x: names(run.heads.length), y: names(z.length), hovertext: words, hoverinfo: "text",
        zmin: -limit, zmax: limit, xgap: 1, ygap: 1, colorscale: colours.map((colour, at) => [at / (colours.length - 1), colour]),
        colorbar: { thickness: 12, outlinewidth: 0, nticks: 5, tickprefix: "" },
      }],
      layout: {
        height: Math.max(200, 70 + 26 * z.length),
        xaxis: { title: { text: "layer" }, type: "category", showgrid: false, showline: false },
        yaxis: { title: { text: "head" }, type: "category", autorange: "reversed", showgrid: false, showline: false },
      },
    },
    alt: `Map of the percent change of attention entropy, ${run.heads.length} layers by ${z.length} heads; the largest change is ${numberText(limit, 1)} %.`,
  }]);
}

const SHOWN_CLASSES = 15;
function forgottenClasses(run) {
  const { classes } = run;
  const drops = classes.class.map((name, at) => ({ name, before: classes.pretrained_pct[at], after: classes.adapted_pct[at], count: classes.num_images[at] }))
    .filter(({ before, after }) => before !== null && after !== null && after < before)
    .sort((one, other) => (other.before - other.after) - (one.before - one.after));
  if (!drops.length) return element("p", { textContent: "No class is recognised less often than before." });
  const shown = drops.slice(0, SHOWN_CLASSES).reverse();
  const text = ({ name, before, after, count }) => `<b>${markup(name)}</b><br>${numberText(before, 1)} % before, ${numberText(after, 1)} % after<br>${count} images`;
  const mark = (key, name, colour) => ({
    mode: "markers", name, x: shown.map((one) => one[key]), y: shown.map((one) => markup(one.name)),
    hovertext: shown.map(text), hoverinfo: "text", marker: { color: colour, size: 10, symbol: key === "before" ? "circle-open" : "circle", line: { width: 2 } },
  });
  const joins = { mode: "lines", hoverinfo: "skip", showlegend: false, line: { color: "var(--muted)", width: 1 }, x: [], y: [] };
  shown.forEach((one) => { joins.x.push(one.before, one.after, null); joins.y.push(markup(one.name), markup(one.name), null); });
  return figures("wide", [{
    spec: {
      title: drops.length > SHOWN_CLASSES ? `The ${SHOWN_CLASSES} most forgotten of ${drops.length} classes that lost` : "Classes that lost, the most forgotten first",
      data: [joins, mark("before", "before", "var(--muted)"), mark("after", "after", sharedByRuns.vermilion)],
      layout: { height: 100 + 24 * shown.length, showlegend: true, xaxis: { title: { text: "accuracy, %" }, range: [-3, 103] }, yaxis: { type: "category", showgrid: false } },
    },
    alt: `Accuracy before and after of the most forgotten classes: ${drops.slice(0, 5).map(({ name, before, after }) => `${name} from ${numberText(before, 0)} to ${numberText(after, 0)} %`).join("; ")}.`,
  }]);
}

function classesPart(run) {
  const { columns } = sharedByRuns;
  const flows = run.num_lost === null ? [] : [element("p", { className: "note", textContent:
    `${run.num_lost.toLocaleString("en")} images that the pretrained model got right are now wrong, ${run.num_gained.toLocaleString("en")} the other way.` })];
  if (run.flows.class.length) flows.push(tableBlock("flows", "Where the lost images went", columns.flows, run.flows));
  return part(`What was forgotten on ${run.transfer}`, forgottenClasses(run), ...flows,
    folded("Every class", tableBlock("classes", `Accuracy by class of ${run.transfer}`, columns.classes, run.classes)));
}

function folded(summary, ...children) {
  return element("details", {}, element("summary", { textContent: summary }), ...children);
}

function attentionPart(runId, run) {
  const own = overlayData ? overlayData.runs.filter((run) => run.run_id === runId) : [];
  if (!own.length) return run.has_maps ? [part("Attention before and after", element("p", { className: "note", textContent:
    "The maps of this run are left out to keep this file small; they are in its folder, and driftscope compare shows them." }))] : [];
  const viewer = element("div", { className: "viewer" }, document.getElementById("run-viewer").content.cloneNode(true));
  return [part("Attention before and after", viewer), () => startViewer(viewer, own)];
}

function buildRun(runId, run) {
  const [attention, startAttention] = attentionPart(runId, run);
  const numbers = element("dl", { className: "numbers" }, ...run.numbers.map(([name, value, detail, explanation]) =>
    element("div", { title: explanation }, element("dt", { textContent: name }), element("dd", {}, value, element("small", { textContent: detail })))));
  const history = historyFigures(run);
  const parts = [
    numbers,
    history && part("Over training", history),
    run.layers.layer && part("Layer by layer", layerFigures(run),
      folded("The numbers", tableBlock("run-layers", "Layer by layer", sharedByRuns.columns.layers, run.layers))),
    run.heads.length && part("Head by head", headMap(run)),
    run.classes.class.length && classesPart(run),
    attention,
    part("Configuration", factsList(run.spec)),
    part("Provenance", factsList(run.provenance)),
  ].filter(Boolean);
  runView.querySelector(".run-body").replaceChildren(...parts);
  runView.querySelectorAll(".plot").forEach(drawPlot);
  if (startAttention) startAttention();
}

let shownHash = "";
function showRun(runId) {
  shownHash = `#run-${encodeURIComponent(runId)}`;
  if (reportView.hidden === false) reportScroll = scrollY;
  reportView.hidden = true;
  runView.hidden = false;
  const run = JSON.parse(runSources.get(runId).textContent);
  const title = document.getElementById("run-title");
  title.textContent = run.label;
  const at = runOrder.indexOf(runId);
  [["run-before", at - 1], ["run-after", at + 1]].forEach(([id, index]) => {
    const link = document.getElementById(id);
    link.hidden = !(index in runOrder);
    if (!link.hidden) link.href = `#run-${encodeURIComponent(runOrder[index])}`;
  });
  buildRun(runId, run);
  scrollTo(0, 0);
  title.focus({ preventScroll: true });
}

function showReport() {
  if (runView.hidden) return;
  runView.hidden = true;
  runView.querySelector(".run-body").replaceChildren();
  reportView.hidden = false;
  const link = [...document.querySelectorAll("#runs ~ .table-block a")].find((one) => one.hash === shownHash);
  if (link) link.focus({ preventScroll: true });
  const target = document.getElementById(location.hash.slice(1));
  if (target && location.hash !== "#runs") target.scrollIntoView();
  else scrollTo({ top: reportScroll, behavior: "instant" });
}

function route() {
  const [, name] = /^#run-(.+)$/.exec(location.hash) || [];
  let runId;
  try { runId = name && decodeURIComponent(name); } catch { /* no run has such a name */ }
  if (runId && runSources.has(runId)) showRun(runId);
  else showReport();
}
addEventListener("hashchange", route);
if (runPicker) runPicker.addEventListener("change", () => openRun(runPicker.value));
route();
