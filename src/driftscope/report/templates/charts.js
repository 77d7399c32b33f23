// ---- numbers as the whole project writes them
function numberText(value, decimals, signed) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const text = value.toFixed(decimals);
  const zero = Number(text) === 0;
  return (signed && value > 0 && !zero ? "+" : "") + (zero ? text.replace("-", "") : text).replace("-", "−");
}
const chartShared = readJson("chart-shared");
const metricOf = (key) => chartShared.metrics[key] || { heading: key, decimals: 3, signed: false, unit: "", floor: null };
const withUnit = (value, key) => `${numberText(value, metricOf(key).decimals, metricOf(key).signed)} ${metricOf(key).unit}`.trim();
const markup = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

// ---- a panel of chart data (driftscope.analysis.chart) as what plotly draws
function plotOf({ panel, styles }, width = 360) {
  const axis = (one) => ({ title: { text: one.title || (one.metric ? metricOf(one.metric).heading : "") } });
  const xaxis = axis(panel.x), yaxis = {};
  const isNames = panel.y.scale === "names", isFrontier = Boolean(panel.x.metric) && !isNames;
  if (panel.x.scale === "log") {
    const shown = spacedRates(panel.x.ticks, Math.min(width, 620) - 70);
    Object.assign(xaxis, { type: "log", tickvals: shown, ticktext: shown.map(tickText), tickangle: 0, showgrid: false });
  } else if (panel.x.limits) Object.assign(xaxis, { range: panel.x.limits, zeroline: isNames });
  else if (!isFrontier) Object.assign(xaxis, { showgrid: false, nticks: 8 });
  if (isFrontier) Object.assign(yaxis, axis(panel.y));
  const metric = metricOf(panel.y.metric);
  if (metric.unit === "%" && metric.floor === 0) yaxis.rangemode = "tozero";
  if (panel.y.limits) Object.assign(yaxis, { range: panel.y.limits, rangemode: "normal" });
  if (isNames && width < 480) { // names leave half of a phone's width to the bars and what stands below
    xaxis.title = { text: inLines(xaxis.title.text, 18), standoff: 8 };
  }
  if (isNames) Object.assign(yaxis, { type: "category", categoryarray: panel.y.names.map(markup), showgrid: false });
  const layout = { height: isNames ? 110 + (panel.x.metric ? 24 : 34) * panel.y.names.length : isFrontier ? 360 : 280, xaxis, yaxis };
  layout.height += 16 * (xaxis.title.text.split("<br>").length - 1);
  const bars = (panel.marks || []).some((one) => one.kind === "bars");
  if (isNames || isFrontier) {
    const names = new Set((panel.marks || []).map((one) => one.name).filter(Boolean));
    layout.height += 29 * (legendRows([...names], width) - 1);
    Object.assign(layout, { showlegend: true, barmode: "group", bargap: 0.25, annotations: labels(panel, width) });
    layout.legend = { maxheight: 1, ...(bars && { traceorder: "reversed" }), ...(layout.annotations.length && { itemclick: false, itemdoubleclick: false }) };
  }
  if (panel.heat) return heatPlot(panel);
  const marks = panel.marks || [];
  const ordered = bars ? [...marks].reverse() : marks; // plotly draws from below
  return { title: panel.title, layout, data: [...levelTrace(panel, marks), ...ordered.map((one) => trace(panel, one, styles))] };
}

// a text in lines of so many letters, where its words allow
function inLines(text, letters) {
  const lines = [""];
  text.split(" ").forEach((word) => {
    if (lines.at(-1) && lines.at(-1).length + word.length >= letters) lines.push(word);
    else lines.push(`${lines.pop()} ${word}`.trim());
  });
  return lines.join("<br>");
}

function rateText(rate) {
  if (rate >= 0.01 && rate < 1000) return String(Number(rate.toPrecision(6)));
  return rate.toExponential(6).replace(/\.?0+e/, "e").replace("e+", "e");
}

// the rates whose labels do not run into the one before, on an axis so many pixels long
const tickText = (rate) => rateText(Number(rate.toPrecision(3)));
function spacedRates(rates, pixels) {
  const perDecade = pixels / Math.max(Math.log10(rates.at(-1) / rates[0]) * 1.15, 0.3);
  const room = (one, other) => 3.6 * (tickText(one).length + tickText(other).length) + 6;
  return rates.reduce((shown, rate) => {
    const last = shown.at(-1);
    return last && Math.log10(rate / last) * perDecade < room(last, rate) ? shown : [...shown, rate];
  }, []);
}

function levelTrace(panel, marks) {
  if (panel.level === undefined || panel.level === null) return [];
  const xs = panel.x.ticks || marks.flatMap((one) => one.x);
  return [{ mode: "lines", x: [Math.min(...xs), Math.max(...xs)], y: [panel.level, panel.level], hoverinfo: "skip",
    line: { color: "var(--muted)", dash: "5px,4px", width: 1 } }];
}

function trace(panel, marks, styles) {
  const [colour, symbol, dash] = (marks.name && styles[marks.name]) || ["var(--muted)", "circle", "solid"];
  const single = Boolean(marks.is_single);
  const out = { x: marks.x, y: marks.y, hoverinfo: "text", hovertext: hoverTexts(panel, marks), customdata: marks.run_ids, name: markup(marks.name || ""), legendgroup: marks.name };
  if (panel.y.scale === "names") out.y = marks.y.map((name) => name === null ? null : markup(name));
  if (!marks.name) return { ...out, mode: "lines", hoverinfo: "skip", hovertext: undefined, showlegend: false, line: { color: colour, width: 1 } };
  const bars = marks.kind === "bars";
  if (marks.x_ends) out.error_x = errors(marks.x, marks.x_ends, bars ? "var(--ink)" : colour, 0);
  if (marks.y_ends) out.error_y = errors(marks.y, marks.y_ends, colour, panel.x.metric ? 0 : 3);
  if (bars) return { ...out, type: "bar", orientation: "h", marker: { color: colour } };
  if (marks.kind === "dots") {
    if (single) { // beside the mean, not under it
      const beside = panel.x.ticks ? (panel.x.ticks.at(-1) / panel.x.ticks[0]) ** 0.025 : 1;
      return { ...out, mode: "markers", x: marks.x.map((x) => beside * x * sideways(panel, marks.name)), marker: { color: colour, size: 6, opacity: 0.5 } };
    }
    const ringed = marks.ringed || marks.x.map(() => false);
    return { ...out, mode: "markers", marker: { color: colour, symbol, opacity: 1, size: ringed.map((on) => on ? 12 : 9),
      line: { color: ringed.map((on) => on ? "var(--ink)" : symbol.endsWith("-open") ? colour : "var(--paper)"), width: ringed.map((on) => on || symbol.endsWith("-open") ? 2 : 1) } } };
  }
  if (single) return { ...out, mode: "lines", line: { color: colour, width: 1 }, opacity: 0.45 };
  if (panel.x.ticks) out.x = marks.x.map((x) => x * sideways(panel, marks.name));
  return { ...out, mode: "lines+markers", line: { color: colour, dash, width: 2 },
    marker: { color: colour, symbol, size: panel.x.scale === "log" ? 9 : 7, line: { color: "var(--paper)", width: 1 } } };
}

// as many rows as the names of a legend fill; a letter is about 6.5 px wide
function legendRows(names, width) {
  let rows = 1, used = 0;
  for (const name of names) {
    const own = 52 + 6.5 * name.length;
    if (used && used + own > width - 60) { rows += 1; used = 0; }
    used += own;
  }
  return rows;
}

// what stands beside points, with a line that leads to it where it stands far off
function labels(panel, width) {
  const off = (at) => at === chartShared.label_still ? Infinity : Math.abs(chartShared.label_widths[at] - (Math.min(width, 760) - 70));
  const size = chartShared.label_widths.reduce((best, _, at) => off(at) < off(best) ? at : best, 0);
  return (panel.marks || []).flatMap((one) => (one.label_offsets || []).map((places) => places[size]).flatMap((offset, at) => offset ? [{
    x: one.x[at], y: one.y[at], ax: offset[0], ay: -offset[1], text: markup(one.labels[at]).replaceAll("\n", "<br>"),
    xanchor: offset[0] > 1 ? "left" : offset[0] < -1 ? "right" : "center", yanchor: "middle", align: offset[0] < -1 ? "right" : "left",
    showarrow: true, arrowhead: 0, arrowwidth: 0.8, arrowcolor: Math.hypot(...offset) > chartShared.leads ? "var(--muted)" : "rgba(0,0,0,0)",
    standoff: 4, borderpad: 0, font: { size: 11, color: "var(--ink)" },
  }] : []));
}

// the marks of one rate stand side by side, as in the still figures (report.drawing)
function sideways(panel, name) {
  const names = [...new Set(panel.marks.map((one) => one.name).filter(Boolean))];
  return panel.x.ticks ? 10 ** (Math.min(0.03, 0.2 / names.length) * (names.indexOf(name) - (names.length - 1) / 2)) : 1;
}

function errors(values, ends, color, width) {
  const side = (sign, end) => ends.map((pair, at) => pair && sign * (pair[end] - values[at]));
  return { array: side(1, 1), arrayminus: side(-1, 0), symmetric: false, color, thickness: width ? 1.2 : 1, width };
}

// a point's own text, its first line bold; by default its place and value
function hoverTexts(panel, marks) {
  const texts = marks.hover || marks.x.map((x, at) => `${panel.x.title} ${x}\n${withUnit(marks.y[at], panel.y.metric)}`);
  return texts.map(bold);
}
function bold(text) {
  const [first, ...more] = text.split("\n").map(markup);
  return [`<b>${first}</b>`, ...more].join("<br>");
}

function heatPlot(panel) {
  const { rows, columns, values, hover, limits } = panel.heat;
  const colours = limits[0] < 0 && chartShared.diverging;
  return {
    title: panel.title,
    data: [{
      type: "heatmap", z: values, x: columns, y: rows, hovertext: hover.map((row) => row.map(bold)), hoverinfo: "text",
      zmin: limits[0], zmax: limits[1], xgap: 1, ygap: 1, colorscale: colours ? colours.map((colour, at) => [at / (colours.length - 1), colour]) : "Cividis",
      colorbar: { thickness: 12, outlinewidth: 0, nticks: 5, tickprefix: "" },
    }],
    layout: {
      height: Math.max(200, 70 + 26 * rows.length),
      xaxis: { title: { text: panel.x.title }, type: "category", showgrid: false, showline: false },
      yaxis: { title: { text: panel.y.title }, type: "category", autorange: "reversed", showgrid: false, showline: false },
    },
  };
}
