// ---- the pages of single runs, built when they are opened (#run-ID)
const runSources = new Map([...document.querySelectorAll("script.run-data")].map((node) => [node.dataset.run, node]));
const runOrder = [...runSources.keys()];
const runView = document.getElementById("run-view");
const reportView = document.getElementById("report-view");
const runPicker = document.getElementById("run-picker");
const sharedByRuns = readJson("run-shared");
let reportScroll = 0;

function cellText(value, column) {
  if (value === null || value === undefined) return "–";
  if (column.kind === "text") return String(value);
  return column.kind === "count" ? value.toLocaleString("en") : numberText(value, column.decimals, column.signed);
}
const csvCell = (value) => (/[",\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);

// a table with the tools that every table of the page has; `values` are columns by key
function tableBlock(name, title, columns, values) {
  const shown = columns.filter((column) => values[column.key] && values[column.key].some((value) => value !== null));
  const block = document.getElementById("table-tools").content.firstElementChild.cloneNode(true);
  block.dataset.name = name;
  const side = (column) => (column.kind === "text" ? "word" : "number");
  const head = element("tr", {}, ...shown.map((column) => {
    const cell = element("th", { scope: "col", className: side(column) });
    cell.dataset.key = column.key;
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
  const table = element("table", { className: "sortable" }, element("caption", {}, element("span", { textContent: title })),
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
    element("div", { className: value.length > 60 ? "wide-fact" : "" }, element("dt", { textContent: name }), element("dd", { textContent: value }))));
}

function figures(kind, panels) {
  const grid = element("div", { className: `pictures ${kind}` });
  panels.forEach((panel) => grid.append(element("figure", { className: "picture drawn" }, ...plotPlace(plotOf({ panel, styles: chartShared.styles }), panel.words))));
  return grid;
}

function part(title, ...children) {
  return element("section", {}, element("h3", { textContent: title }), ...children);
}

// the run's numbers as panels, in the words of driftscope.analysis.chart
function linePanel(key, title, x, y, hover, words) {
  const { heading, unchanged } = metricOf(key);
  return { title: heading, x: { title }, y: { metric: key }, level: unchanged, marks: [{ x, y, hover, name: "run" }], words: `${heading} ${words}` };
}

function historyFigures(run) {
  const { history } = run;
  const time = history.step ? "step" : "epoch";
  if (!history[time] || history[time].length < 2) return null;
  const times = [0, ...history[time]];
  const when = (at) => at === 0 ? "before training" : ["epoch", "step"].filter((key) => history[key]).map((key) => `${key} ${history[key][at - 1]}`).join(", ");
  return figures("panels", run.measures.filter((key) => history[key]).map((key) => {
    // where the pretrained level is unknown the line begins at the first probe
    const y = [metricOf(key).unchanged, ...history[key]];
    return linePanel(key, time, times, y, times.map((_, at) => `${when(at)}\n${withUnit(y[at], key)}`),
      `over training, ${history[time].length} probes, at the end ${withUnit(y.at(-1), key)}.`);
  }));
}

function layerFigures(run) {
  const { layers } = run;
  return figures("panels", run.measures.filter((key) => layers[key]).map((key) =>
    linePanel(key, "layer", layers.layer, layers[key], undefined, "at each layer. The numbers are in the table of layers.")));
}

function headMap(run) {
  const values = run.heads[0].map((_, head) => run.heads.map((layer) => layer[head])); // rows are heads
  const limit = Math.max(...run.heads.flat().map(Math.abs)) || 1; // the absolute of null is 0
  const names = (count) => Array.from({ length: count }, (_, at) => String(at + 1));
  const { heading } = metricOf("delta_entropy_pct");
  return figures("wide", [{
    title: `${heading}, by layer and head`, x: { title: "layer" }, y: { title: "head" },
    heat: {
      rows: names(values.length), columns: names(run.heads.length), values, limits: [-limit, limit],
      hover: values.map((row, head) => row.map((value, layer) => `layer ${layer + 1}, head ${head + 1}\n${withUnit(value, "delta_entropy_pct")}`)),
    },
    words: `Map of the percent change of attention entropy, ${run.heads.length} layers by ${values.length} heads; the largest change is ${withUnit(limit, "delta_entropy_pct")}.`,
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
  const names = shown.map((one) => one.name);
  const hover = shown.map(({ name, before, after, count }) => `${name}\n${withUnit(before, "pretrained_pct")} before, ${withUnit(after, "adapted_pct")} after\n${count} images`);
  const joins = { x: shown.flatMap((one) => [one.before, one.after, null]), y: shown.flatMap((one) => [one.name, one.name, null]) };
  const marks = (key) => ({ kind: "dots", name: key, x: shown.map((one) => one[key]), y: names, hover });
  return figures("wide", [{
    title: drops.length > SHOWN_CLASSES ? `The ${SHOWN_CLASSES} most forgotten of ${drops.length} classes that lost` : "Classes that lost, the most forgotten first",
    x: { metric: "accuracy_pct", limits: [-3, 103] }, y: { scale: "names", names },
    marks: [joins, marks("before"), marks("after")],
    words: `Accuracy before and after of the most forgotten classes: ${drops.slice(0, 5).map(({ name, before, after }) => `${name} from ${withUnit(before, "pretrained_pct")} to ${withUnit(after, "adapted_pct")}`).join("; ")}.`,
  }]);
}

function classesPart(run) {
  const { columns } = sharedByRuns;
  const flows = run.num_lost === null ? [] : [element("p", { className: "note", textContent:
    `Right before and wrong now: ${run.num_lost.toLocaleString("en")} images; the other way: ${run.num_gained.toLocaleString("en")}.` })];
  if (run.flows.class.length) flows.push(tableBlock("flows", "Where the lost images went", columns.flows, run.flows));
  return part(`What was forgotten on ${run.transfer}`, forgottenClasses(run), ...flows,
    folded("Every class", tableBlock("classes", `Accuracy by class of ${run.transfer}`, columns.classes, run.classes)));
}

function folded(summary, ...children) {
  return element("details", {}, element("summary", { textContent: summary }), ...children);
}

// no line breaks before a percent sign, as in the page's own sentences
const unsplit = (sentence) => sentence.replaceAll(" %", "\u00a0%");

// a command whose options stay in one line with what they are given, as the page's own are
function unbroken(command) {
  return command.split(/(?<!\S)(--[\w-]+(?: [A-Z]+)?)/).map((part, at) => (
    at % 2 ? element("span", { className: "unbroken", textContent: part }) : part));
}

// the verdict and what to do; what stands between backticks is code
function advicePart({ outcome, verdict, steps }) {
  const words = (text) => text.split("`").map((part, at) => (at % 2 ? element("code", {}, ...unbroken(part)) : part));
  return element("div", { className: "advice" }, element("p", { className: `verdict ${outcome}`, textContent: unsplit(verdict) }),
    element("ul", {}, ...steps.map((step) => element("li", {}, ...words(step)))));
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
    ...(run.advice ? [advicePart(run.advice)] : []),
    ...run.said.map(([word, sentence]) => element("p", {}, element("strong", { textContent: word }), ` ${unsplit(sentence)}`)),
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
