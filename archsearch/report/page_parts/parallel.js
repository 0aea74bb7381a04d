// All axes at once, on a canvas: thousands of lines, and a range to keep on each axis.
const MOST_AXES = 10;
const MOST_LINES = 1000; // of each colour; of more, every second, third, ... is drawn
const canvas = byId("parallel-plot");
const parallel = {axes: [], kept: new Map(), drag: null, colours: null};
const PAD = {top: 46, bottom: 26, side: 54};

function parallelAxes() {
  const effects = (data.importance.metrics.find((own) => own.metric === first) || {effects: []}).effects.map((effect) => effect.choice);
  const varied = choiceNames.filter((name) => nets.choices[name].options.length > 1);
  const ordered = [...effects.filter((name) => varied.includes(name)), ...varied.filter((name) => !effects.includes(name))];
  const room = Math.max(1, MOST_AXES - objectives.length);
  const chosen = new Set([...ordered.slice(0, room).map((name) => `choice ${name}`), ...objectives.map((name) => `metric ${name}`)]);
  const all = [...varied.map((name) => ({key: `choice ${name}`, name, column: nets.choices[name]})), ...metricNames.map((name) =>
    ({key: `metric ${name}`, name, metric: true, log: isWide(name) && !isHigher(name)}))];
  return all.map((axis) => ({...axis, shown: chosen.has(axis.key)}));
}

// 0 at the foot, 1 at the top; null where a network has no such value.
function heightOn(axis, index) {
  if (axis.metric) {
    const value = nets.metrics[axis.name][index];
    if (value === null) return null;
    const [low, high] = axis.ends;
    const inner = axis.log ? Math.log(value) : value;
    return high > low ? (inner - low) / (high - low) : 0.5;
  }
  const place = axis.column.values[index], last = axis.column.options.length - 1;
  return place < 0 ? null : (place + 0.5) / (last + 1);
}

function prepareAxes() {
  for (const axis of parallel.axes) {
    if (!axis.metric) continue;
    const [low, high] = spread(axis.name);
    axis.ends = axis.log ? [Math.log(low), Math.log(high)] : [low, high];
  }
  for (const axis of parallel.axes) axis.heights = nets.id.map((_, index) => heightOn(axis, index));
}

const shownAxes = () => parallel.axes.filter((axis) => axis.shown);
const passes = (index) => [...parallel.kept].every(([axis, [low, high]]) => {
  const height = axis.heights[index];
  return height !== null && height >= low && height <= high;
});

function drawParallel() {
  const axes = shownAxes(), ratio = devicePixelRatio || 1;
  const width = Math.max(canvas.parentElement.clientWidth, axes.length * 84), height = 360;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== height * ratio) {
    canvas.width = Math.round(width * ratio); canvas.height = height * ratio;
    canvas.style.width = `${width}px`; canvas.style.height = `${height}px`;
  }
  const brush = canvas.getContext("2d");
  brush.setTransform(ratio, 0, 0, ratio, 0, 0);
  brush.clearRect(0, 0, width, height);
  const xs = axes.map((_, place) => PAD.side + (axes.length > 1 ? place * (width - 2 * PAD.side) / (axes.length - 1) : 0));
  const y = (share) => height - PAD.bottom - share * (height - PAD.top - PAD.bottom);
  parallel.geometry = {axes, xs, y, height, top: PAD.top, foot: height - PAD.bottom};
  const inside = complete.filter(passes);
  const within = new Set(inside);
  const some = (indices) => indices.length <= MOST_LINES ? indices : indices.filter((_, place) => place % Math.ceil(indices.length / MOST_LINES) === 0);
  const alpha = (count) => Math.min(0.9, Math.max(0.05, 60 / (count + 1)));
  if (inside.length < complete.length) strokes(brush, some(complete.filter((index) => !within.has(index))), cssColour("line"), alpha(complete.length) * 0.8, 1);
  strokes(brush, some(inside.filter((index) => !onFront.has(index))), cssColour("rest"), alpha(inside.length), 1);
  strokes(brush, inside.filter((index) => onFront.has(index)), cssColour("front"), 0.9, 1.6);
  if (state.shown !== null && nets.complete[state.shown]) strokes(brush, [state.shown], cssColour("published"), 1, 2.6);
  for (const [place, axis] of axes.entries()) drawAxis(brush, axis, xs[place], y);
  sayKept(inside);
}

function strokes(brush, indices, colour, alpha, width) {
  const {axes, xs, y} = parallel.geometry;
  brush.strokeStyle = colour; brush.globalAlpha = alpha; brush.lineWidth = width;
  for (const index of indices) {
    brush.beginPath();
    let begun = false;
    for (let place = 0; place < axes.length; place += 1) {
      const height = axes[place].heights[index];
      if (height === null) { begun = false; continue; }
      // networks with one option would hide each other
      const shift = axes[place].metric ? 0 : ((index * 7919) % 101 / 101 - 0.5) * 0.5 / axes[place].column.options.length;
      if (begun) brush.lineTo(xs[place], y(height + shift)); else brush.moveTo(xs[place], y(height + shift));
      begun = true;
    }
    brush.stroke();
  }
  brush.globalAlpha = 1;
}

function drawAxis(brush, axis, x, y) {
  brush.strokeStyle = cssColour("soft"); brush.lineWidth = 1;
  brush.beginPath(); brush.moveTo(x, y(0)); brush.lineTo(x, y(1)); brush.stroke();
  const kept = parallel.kept.get(axis);
  if (kept) {
    brush.fillStyle = cssColour("published"); brush.globalAlpha = 0.35;
    brush.fillRect(x - 7, y(kept[1]), 14, y(kept[0]) - y(kept[1]));
    brush.globalAlpha = 1;
  }
  brush.font = "12px system-ui, Liberation Sans, Arial, sans-serif"; brush.textAlign = "center";
  brush.fillStyle = cssColour("ink");
  const short = axis.name.length > 14 ? `…${axis.name.slice(-13)}` : axis.name;
  brush.fillText(short, x, parallel.geometry.top - 26);
  brush.fillStyle = cssColour("soft");
  const halo = (text, at) => {
    brush.lineWidth = 3; brush.strokeStyle = cssColour("ground");
    brush.strokeText(text, x, at); brush.fillText(text, x, at);
  };
  if (axis.metric) {
    const [low, high] = spread(axis.name);
    halo(quantity(axis.name, high), y(1) - 6); halo(quantity(axis.name, low), y(0) + 15);
    return;
  }
  const {options} = axis.column, step = Math.ceil(options.length / 12);
  options.forEach((option, place) => { if (place % step === 0) halo(option.length > 12 ? `${option.slice(0, 11)}…` : option, y((place + 0.5) / options.length) + 4); });
}

function sayKept(inside) {
  byId("parallel-names").replaceChildren(...[...parallel.kept.keys()].map((axis) => make("button", {type: "button",
    onclick: () => { parallel.kept.delete(axis); soon(drawParallel); }}, `forget the range of ${axis.name}`)));
  const note = byId("parallel-note");
  if (!parallel.kept.size) { note.textContent = `${complete.length} complete networks; blue ones are on the front, the orange one is shown above.` +
    (complete.length > MOST_LINES ? ` Of the others ${MOST_LINES} at most are drawn; a range counts all.` : ""); return; }
  const sign = isHigher(first) ? -1 : 1;
  const best = [...inside].sort((a, b) => sign * (nets.metrics[first][a] - nets.metrics[first][b]));
  note.replaceChildren(`${inside.length} of ${complete.length} networks pass`, ...(best.length ? ["; the best by ", first, ": ", ...best.slice(0, 5).flatMap((index) =>
    [showButton(index), ` ${quantity(first, nets.metrics[first][index])}  `])] : ["."]));
}

// ---- ranges
function placeOf(event) {
  const box = canvas.getBoundingClientRect(), {xs, axes, foot, top} = parallel.geometry;
  const x = event.clientX - box.left, share = (foot - (event.clientY - box.top)) / (foot - top);
  const nearest = xs.reduce((best, own, place) => Math.abs(own - x) < Math.abs(xs[best] - x) ? place : best, 0);
  return Math.abs(xs[nearest] - x) > 34 ? null : {axis: axes[nearest], share, above: share > 1.06};
}
function startDrag(event) {
  const place = placeOf(event);
  if (!place) return;
  if (place.above) { parallel.kept.delete(place.axis); soon(drawParallel); return; }
  parallel.drag = {axis: place.axis, from: Math.min(1, Math.max(0, place.share))};
  canvas.setPointerCapture(event.pointerId);
  event.preventDefault();
}
function moveDrag(event) {
  if (!parallel.drag) return;
  const {foot, top} = parallel.geometry, box = canvas.getBoundingClientRect();
  const share = Math.min(1, Math.max(0, (foot - (event.clientY - box.top)) / (foot - top)));
  const {axis, from} = parallel.drag;
  if (Math.abs(share - from) > 0.01) parallel.kept.set(axis, [Math.min(from, share), Math.max(from, share)]);
  soon(drawParallel);
}
function startParallel() {
  parallel.axes = parallelAxes();
  prepareAxes();
  byId("parallel-axes").replaceChildren(...parallel.axes.slice(0, 80).map((axis) => make("label", {}, make("input", {type: "checkbox", checked: axis.shown,
    onchange: (event) => { axis.shown = event.target.checked; parallel.kept.delete(axis); soon(drawParallel); }}), axis.name)));
  canvas.addEventListener("pointerdown", startDrag);
  canvas.addEventListener("pointermove", moveDrag);
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { parallel.drag = null; });
  drawNear("parallel-plot", drawParallel);
  addEventListener("resize", () => soon(() => drawAgain("parallel-plot")));
}
