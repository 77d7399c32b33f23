// ---- interactive figures: drawn when they come into view, in the colours of the theme
const palettes = readJson("palettes");
const coarsePointer = matchMedia("(pointer: coarse)").matches;
let plotly = null;
function loadPlotly() {
  if (!plotly) {
    // the library is 5 MB: it lies in the page as text and is read at the first figure
    const script = element("script", { textContent: document.getElementById("plotly-source").textContent });
    document.head.append(script);
    plotly = globalThis.Plotly;
  }
  return plotly;
}

function inTheme(value, palette) {
  if (typeof value === "string") {
    const name = /^var\(--([a-z]+)\)$/.exec(value);
    return name ? palette[name[1]] : value;
  }
  if (Array.isArray(value)) return value.map((item) => inTheme(item, palette));
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, inTheme(item, palette)]));
  }
  return value;
}

function fullLayout(layout) {
  const axis = {
    gridcolor: "var(--grid)", linecolor: "var(--muted)", tickcolor: "var(--muted)", zerolinecolor: "var(--muted)",
    zeroline: false, showline: true, exponentformat: "e", minexponent: 4, ticks: "outside", ticklen: 4, automargin: true, fixedrange: coarsePointer,
  };
  return {
    showlegend: false,
    hovermode: "closest",
    dragmode: coarsePointer ? false : "zoom",
    margin: { l: 48, r: 10, t: 8, b: 40 },
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: "var(--ink)" },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    hoverlabel: { bgcolor: "var(--ink)", bordercolor: "var(--ink)", align: "left", font: { color: "var(--paper)", size: 12 } },
    ...layout,
    legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", bgcolor: "rgba(0,0,0,0)", ...layout.legend },
    xaxis: { ...axis, ...layout.xaxis },
    yaxis: { ...axis, ...layout.yaxis },
  };
}

const drawnPlots = new Set();
const hiddenGroups = new WeakMap(); // section → names switched off in its legend
const resizes = new ResizeObserver((entries) => entries.forEach(({ target }) => {
  if (target.offsetWidth && drawnPlots.has(target)) plotly.Plots.resize(target);
}));

function paint(place, palette = palettes[isDark() ? "dark" : "light"]) {
  const { data, layout } = place.spec;
  const hidden = hiddenGroups.get(place.closest("section")) || new Set();
  const traces = data.map((trace) => ({ ...trace, visible: !hidden.has(trace.legendgroup) }));
  const config = { displayModeBar: false, responsive: false, showTips: false };
  return loadPlotly().react(place, inTheme(traces, palette), inTheme(fullLayout(layout), palette), config);
}

// a figure's place with its title; `alt` says in words what it shows
function plotPlace(spec, alt) {
  const title = element("p", { className: "plot-title", textContent: spec.title });
  const place = element("div", { className: "plot", tabIndex: 0 });
  place.setAttribute("role", "application");
  place.setAttribute("aria-roledescription", "interactive figure");
  place.setAttribute("aria-label", `${alt} Arrow keys read the points, Enter opens a point's run.`);
  place.style.height = `${spec.layout.height}px`;
  place.spec = spec;
  readByKeys(place);
  return [title, place];
}

async function drawPlot(place) {
  await paint(place);
  drawnPlots.add(place);
  resizes.observe(place);
  place.on("plotly_click", ({ points }) => openRun(points[0].customdata));
}

function openRun(runId) {
  if (typeof runId === "string") location.hash = `run-${encodeURIComponent(runId)}`;
}

// the arrow keys walk over the points: left and right within a series, up and down between them
const plainText = (markup) => new DOMParser().parseFromString(markup.replaceAll("<br>", ", "), "text/html").body.textContent;
function readByKeys(place) {
  let trace = -1, point = 0;
  const texts = (index) => { const own = place.spec.data[index].hovertext; return Array.isArray(own) ? own.flat() : null; };
  const readable = () => place.spec.data.map((_, index) => index).filter((index) => {
    return texts(index) && (!place.data || place.data[index].visible !== false);
  });
  place.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (event.key === "Escape" && trace >= 0) { plotly.Fx.unhover(place); trace = -1; return; }
    const run = trace >= 0 && place.spec.data[trace].customdata;
    if (event.key === "Enter" && run) { openRun(run[point]); return; }
    if (!step || !drawnPlots.has(place)) return;
    event.preventDefault();
    const known = readable();
    const at = known.indexOf(trace);
    trace = known[at < 0 ? 0 : (at + step[0] + known.length) % known.length];
    const own = texts(trace);
    point = at < 0 ? 0 : Math.min(own.length - 1, Math.max(0, point + step[1]));
    announce(plainText(own[point]));
    const columns = place.spec.data[trace].type === "heatmap" ? place.spec.data[trace].z[0].length : 0;
    const number = columns ? [Math.floor(point / columns), point % columns] : point;
    plotly.Fx.hover(place, [{ curveNumber: trace, pointNumber: number }]);
  });
  place.addEventListener("blur", () => { if (trace >= 0) { plotly.Fx.unhover(place); trace = -1; } });
}

const inView = new IntersectionObserver((entries) => entries.filter((entry) => entry.isIntersecting).forEach(async ({ target }) => {
  inView.unobserve(target);
  try {
    await drawPlot(target.querySelector(".plot"));
  } catch (error) { // the still figure serves where the library fails
    target.classList.remove("drawn");
    target.querySelectorAll(".plot, .plot-title").forEach((node) => node.remove());
    console.warn(`figure not drawn: ${error}`);
  }
}), { rootMargin: "500px" });
document.querySelectorAll("figure:has(> .plot-data)").forEach((figure) => {
  const spec = plotOf(JSON.parse(figure.querySelector(".plot-data").textContent), figure.clientWidth || undefined);
  const alt = figure.querySelector(".still").getAttribute("aria-label");
  figure.append(...plotPlace(spec, alt)); // takes its room at once, so that nothing moves later
  figure.classList.add("drawn");
  inView.observe(figure);
});

const repaint = (palette) => drawnPlots.forEach((place) => {
  if (place.isConnected) paint(place, palette);
  else drawnPlots.delete(place);
});
themeListeners.push(() => repaint());
addEventListener("beforeprint", () => repaint(palettes.light));
addEventListener("afterprint", () => repaint());

// ---- legends: a series can be switched off in all figures of its section
document.querySelectorAll(".legend li[data-series]").forEach((item) => {
  const section = item.closest("section");
  const button = element("button", { type: "button", className: "legend-switch", title: "Show or hide" }, ...item.childNodes);
  button.setAttribute("aria-pressed", "true");
  item.append(button);
  button.addEventListener("click", () => {
    const hidden = hiddenGroups.get(section) || new Set();
    hiddenGroups.set(section, hidden);
    const shows = hidden.delete(item.dataset.series);
    if (!shows) hidden.add(item.dataset.series);
    button.setAttribute("aria-pressed", String(shows));
    section.querySelectorAll(".plot").forEach((place) => { if (drawnPlots.has(place)) paint(place); });
  });
});
