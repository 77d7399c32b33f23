// ---- attention maps
const overlayData = document.getElementById("overlay-data") ? readJson("overlay-data") : null;
if (overlayData) startViewer(document.getElementById("viewer"), overlayData.runs.filter((run) => run.listed));

// a viewer of some runs' maps in an element that holds its controls
function startViewer(viewer, runs) {
  const data = overlayData;
  const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const colours = bytes(data.colours);
  const unpacked = new Map();
  const mapsOf = (key) => {
    if (!unpacked.has(key)) {
      const packed = data.maps[key];
      unpacked.set(key, {
        shape: packed.shape,
        values: bytes(packed.values),
        tops: new Float32Array(bytes(packed.tops).buffer),
      });
    }
    return unpacked.get(key);
  };
  const control = (name) => viewer.querySelector(`[data-control="${name}"]`);
  const runA = control("run-a"), runB = control("run-b"); // absent where there is one run
  const layer = control("layer"), head = control("head");
  const blend = control("blend"), strength = control("strength");
  const place = control("maps");
  const pictures = new Map();

  // weights of one image and layer: one head, or the mean of heads (head 0)
  function weights(maps, image, layerIndex, headNumber) {
    const [, layers, heads, rows, columns] = maps.shape;
    const size = rows * columns;
    const out = new Float32Array(size);
    const chosen = headNumber ? [headNumber - 1] : [...Array(heads).keys()];
    for (const one of chosen) {
      const map = (image * layers + layerIndex) * heads + one;
      const scale = maps.tops[map] / 255 / chosen.length;
      for (let at = 0; at < size; at += 1) out[at] += scale * maps.values[map * size + at];
    }
    return out;
  }

  function mix(before, after, share) {
    return before.map((value, at) => (1 - share) * value + share * after[at]);
  }

  // the fewest patches that hold half of the attention: the map in words
  function halfMass(map) {
    const sorted = Float32Array.from(map).sort().reverse();
    const total = sorted.reduce((sum, value) => sum + value, 0);
    let held = 0, count = 0;
    while (held < total / 2 && count < sorted.length) held += sorted[count++];
    return `half of the attention lies on ${count} of ${map.length} patches`;
  }

  function draw(canvas, picture, map, top, columns, overlay) {
    const context = canvas.getContext("2d");
    const { width, height } = canvas;
    context.clearRect(0, 0, width, height);
    context.imageSmoothingEnabled = picture.naturalWidth > 96;
    context.filter = map ? "grayscale(1)" : "none";
    context.drawImage(picture, 0, 0, width, height);
    context.filter = "none";
    if (!map) return;
    const rows = map.length / columns;
    for (let at = 0; at < map.length; at += 1) {
      const share = top > 0 ? Math.min(1, map[at] / top) : 0;
      const colour = 3 * Math.round(255 * share);
      const column = at % columns, row = Math.floor(at / columns);
      const x = Math.round((column * width) / columns), right = Math.round(((column + 1) * width) / columns);
      const y = Math.round((row * height) / rows), bottom = Math.round(((row + 1) * height) / rows);
      context.globalAlpha = overlay * (0.45 + 0.55 * share); // the image stays visible where little is looked at
      context.fillStyle = `rgb(${colours[colour]},${colours[colour + 1]},${colours[colour + 2]})`;
      context.fillRect(x, y, right - x, bottom - y);
    }
    context.globalAlpha = 1;
  }

  function loaded(key) {
    if (!pictures.has(key)) {
      pictures.set(key, Promise.all(data.images[key].map((uri) => new Promise((resolve, reject) => {
        const picture = new Image();
        picture.onload = () => resolve(picture);
        picture.onerror = reject;
        picture.src = uri;
      }))));
    }
    return pictures.get(key);
  }

  function panel(row, title) {
    const figure = document.createElement("figure");
    const canvas = document.createElement("canvas");
    canvas.setAttribute("role", "img");
    const caption = document.createElement("figcaption");
    const detail = document.createElement("small");
    caption.append(title.replaceAll("-", "\u2011"), detail); // no break within a rate
    figure.append(canvas, caption);
    row.append(figure);
    return { canvas, detail, title };
  }

  let rows = [];
  async function build() {
    const first = runs[runA ? Number(runA.value) : 0];
    const second = runB && runB.value !== "" ? runs[Number(runB.value)] : null;
    const beside = second && second.images === first.images && second !== first ? second : null;
    const shown = await loaded(first.images);
    const maps = mapsOf(first.pretrained);
    layer.max = maps.shape[1];
    head.max = maps.shape[2];
    place.replaceChildren();
    if (second && second !== first && !beside) {
      const note = document.createElement("p");
      note.className = "note";
      note.textContent = "These two were read on different images, so they cannot stand side by side.";
      place.append(note);
    }
    rows = shown.map((picture, image) => {
      const row = document.createElement("div");
      row.className = "map-row";
      row.style.setProperty("--columns", beside ? 4 : 3);
      const panels = [panel(row, "image"), panel(row, "pretrained"), panel(row, first.column)];
      if (beside) panels.push(panel(row, beside.column));
      for (const { canvas } of panels) {
        const zoom = Math.max(1, Math.round(280 / picture.naturalWidth));
        canvas.width = picture.naturalWidth * zoom;
        canvas.height = picture.naturalHeight * zoom;
      }
      place.append(row);
      return { picture, image, panels, first, beside };
    });
    redraw();
  }

  function redraw() {
    const layerNumber = Number(layer.value), headNumber = Number(head.value);
    const share = Number(blend.value) / 100, overlay = Number(strength.value) / 100;
    control("layer-value").textContent = `${layerNumber} of ${layer.max}`;
    control("head-value").textContent = headNumber ? `${headNumber} of ${head.max}` : "mean of all";
    control("blend-value").textContent = share === 1 ? "adapted" : share === 0 ? "pretrained" : `${blend.value} % adapted`;
    control("strength-value").textContent = `${strength.value} %`;
    const where = `layer ${layerNumber}, ${headNumber ? `head ${headNumber}` : "mean of heads"}`;
    for (const { picture, image, panels, first, beside } of rows) {
      const columns = mapsOf(first.pretrained).shape[4];
      const read = (key) => weights(mapsOf(key), image, layerNumber - 1, headNumber);
      const before = read(first.pretrained);
      const afters = [first, beside].filter(Boolean).map((run) => read(run.adapted));
      const top = Math.max(...before, ...afters.flatMap((map) => [...map]));
      draw(panels[0].canvas, picture, null);
      panels[0].canvas.setAttribute("aria-label", `Probe image ${image + 1}`);
      [before, ...afters.map((after) => mix(before, after, share))].forEach((map, at) => {
        const { canvas, detail, title } = panels[at + 1];
        draw(canvas, picture, map, top, columns, overlay);
        detail.textContent = halfMass(map);
        canvas.setAttribute("aria-label", `Attention on image ${image + 1}, ${title}, ${where}: ${halfMass(map)}`);
      });
    }
  }

  for (const select of [runA, runB]) if (select) select.addEventListener("change", build);
  for (const slider of [layer, head, blend, strength]) slider.addEventListener("input", redraw);
  // start with the same rate under another method beside it, where there is one
  const start = runs[0];
  const other = runs.findIndex((run) => run !== start && run.images === start.images && run.pair === start.pair);
  if (runB && other > 0) runB.value = String(other);
  build();
}
