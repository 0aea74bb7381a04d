// The front: two metrics of all networks, with a budget. Many dominated ones that would cover each other are one mark.
const CROWD = 700; // marks of dominated networks at most: a browser takes its time for each
const CELLS = [3, 5, 7, 10, 14, 20]; // pixels of a place that holds one mark, the first that are not too many
const plot = byId("front-plot");
const state = {x: objectives[1] || metricNames.find((name) => name !== first) || first, y: first, xlog: false,
  ylog: false, colour: "", rungs: false, budgetMetric: null, budget: null, shown: null, window: null};
const complete = nets.id.map((_, index) => index).filter((index) => nets.complete[index]);

const spread = (metric) => {
  const own = complete.map((index) => nets.metrics[metric][index]).filter((value) => value !== null);
  return own.length ? [own.reduce((a, b) => Math.min(a, b)), own.reduce((a, b) => Math.max(a, b))] : [0, 1];
};
const isWide = (metric) => { const [low, high] = spread(metric); return low > 0 && high > 10 * low; };
const at = (metric, index) => nets.metrics[metric][index] === null ? null : nets.metrics[metric][index] / unitOf(metric);

function isWithin(index) {
  if (state.budget === null) return true;
  const value = nets.metrics[state.budgetMetric][index];
  if (value === null || value === undefined) return false;
  return isHigher(state.budgetMetric) ? value >= state.budget : value <= state.budget;
}

// One network for each place of a few pixels, of those in the window.
const thinnings = {key: "", indices: []};
function thinned(indices) {
  if (indices.length <= CROWD) return indices;
  const key = JSON.stringify([state.x, state.y, state.xlog, state.ylog, state.window, plot.clientWidth]);
  if (thinnings.key === key) return thinnings.indices;
  const scale = [state.xlog ? Math.log10 : (v) => v, state.ylog ? Math.log10 : (v) => v];
  const places = indices.map((index) => [scale[0](at(state.x, index)), scale[1](at(state.y, index))]);
  const ranges = state.window || [0, 1].map((side) => places.reduce(([low, high], place) =>
    [Math.min(low, place[side]), Math.max(high, place[side])], [Infinity, -Infinity]));
  const shares = places.map((place) => place.map((value, side) =>
    (value - ranges[side][0]) / ((ranges[side][1] - ranges[side][0]) || 1)));
  const inside = indices.map((_, place) => place).filter((place) => shares[place].every((share) => share >= 0 && share <= 1));
  let kept = inside;
  for (const cell of CELLS) {
    if (kept.length <= CROWD) break;
    const size = [(plot.clientWidth || 1000) / cell, (plot.clientHeight || 500) / cell], seen = new Set();
    kept = inside.filter((place) => {
      const own = Math.floor(shares[place][0] * size[0]) * 100000 + Math.floor(shares[place][1] * size[1]);
      return !seen.has(own) && seen.add(own);
    });
  }
  thinnings.key = key;
  thinnings.indices = kept.map((place) => indices[place]);
  return thinnings.indices;
}

// Corners of the line that no network has passed in the two metrics shown.
function steps() {
  const sign = [isHigher(state.x) ? -1 : 1, isHigher(state.y) ? -1 : 1];
  const points = complete.map((index) => [at(state.x, index), at(state.y, index)])
    .filter((point) => point.every((value) => value !== null))
    .sort((a, b) => sign[0] * (a[0] - b[0]) || sign[1] * (a[1] - b[1]));
  const xs = [], ys = [];
  let best = Infinity;
  for (const [x, y] of points) {
    if (sign[1] * y >= best) continue;
    if (xs.length) { xs.push(x); ys.push(ys[ys.length - 1]); }
    xs.push(x); ys.push(y);
    best = sign[1] * y;
  }
  return [xs, ys];
}

// What stands beside the pointer, made only when it is there.
function tipLines(index) {
  const lines = [metricNames.slice(0, 8).map((name) => `${name} ${quantity(name, nets.metrics[name][index])}`).join(", ")];
  const texts = choiceNames.filter((name) => optionOf(name, index) !== null).map((name) => `${name} ${optionOf(name, index)}`);
  for (let place = 0; place < Math.min(24, texts.length); place += 4) lines.push(texts.slice(place, place + 4).join(", "));
  if (texts.length > 24) lines.push(`and ${texts.length - 24} more choices`);
  return lines;
}
function showTip(event) {
  const tip = byId("tip"), {customdata, data: trace} = event.points[0], pointer = event.event;
  if (customdata === undefined) return;
  const read = trace.meta === "rungs" ? data.rungs.find((rung) => rung[0] === customdata) : null;
  tip.replaceChildren(make("b", {}, named(customdata)), ...(read ? [make("div", {}, `stopped after ${read[1]} epochs`)] : []),
    ...tipLines(customdata).map((line) => make("div", {}, line)));
  tip.hidden = false;
  const left = Math.min(pointer.clientX + 14, innerWidth - tip.offsetWidth - 8);
  const below = pointer.clientY + 16 + tip.offsetHeight < innerHeight;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${below ? pointer.clientY + 16 : Math.max(4, pointer.clientY - tip.offsetHeight - 12)}px`;
}

function coloursOf(indices, plainColour) {
  if (!state.colour) return plainColour;
  const column = nets.choices[state.colour];
  return indices.map((index) => column.values[index] < 0 ? cssColour("rest") : optionColour(column, column.values[index]));
}
function optionColour(column, place) {
  if (column.options.length <= PALETTE.length) return PALETTE[place];
  const share = place / (column.options.length - 1);
  return `hsl(${Math.round(255 - 215 * share)}, 75%, ${Math.round(45 + 12 * share)}%)`;
}

function marks(indices, name, marker, more) {
  return {type: "scatter", mode: "markers", name, x: indices.map((index) => at(state.x, index)),
    y: indices.map((index) => at(state.y, index)), customdata: indices, hoverinfo: "none", marker, ...more};
}

function frontTraces() {
  const ground = cssColour("ground");
  const usable = complete.filter((index) => at(state.x, index) !== null && at(state.y, index) !== null
    && (!state.xlog || at(state.x, index) > 0) && (!state.ylog || at(state.y, index) > 0));
  const published = usable.filter((index) => nets.published[index]);
  const cloud = usable.filter((index) => !nets.published[index] && !onFront.has(index));
  const thin = thinned(cloud), shown = thin.filter(isWithin), beyond = thin.filter((index) => !isWithin(index));
  const members = usable.filter((index) => onFront.has(index) && !nets.published[index]);
  const faint = (indices, opacity) => indices.map((index) => isWithin(index) ? 1 : opacity);
  const [xs, ys] = steps();
  noteDrawn(cloud.length, shown.length + beyond.length);
  return [
    marks(beyond, "outside the budget", {size: 5, color: cssColour("line")}, {showlegend: beyond.length > 0}),
    marks(shown, "dominated", {size: 6, color: coloursOf(shown, cssColour("rest")), opacity: 0.75}, {}),
    ...(state.rungs ? [rungMarks()] : []),
    {type: "scatter", mode: "lines", name: "front", x: xs, y: ys, line: {color: cssColour("front"), width: 1.5}, showlegend: false,
      hoverinfo: "skip"},
    marks(members, "front", {size: 9, color: coloursOf(members, cssColour("front")), opacity: faint(members, 0.25),
      line: {color: ground, width: 1}}, {}),
    marks(published, "published design (hollow: dominated)", {size: 10, opacity: faint(published, 0.3),
      symbol: published.map((_, place) => SYMBOLS[place % SYMBOLS.length]),
      color: published.map((index) => onFront.has(index) ? cssColour("published") : ground),
      line: {color: cssColour("published"), width: 1.6}},
    {mode: "markers+text", textfont: {size: 11, color: cssColour("published")}, ...publishedTexts(published)}),
  ];
}

function publishedTexts(published) {
  return {text: published.map((index) => plain(nets.published[index])), textposition: published.map((_, place) => place % 2 ? "bottom right" : "top right")};
}

function rungMarks() {
  const read = data.rungs.filter((rung) => [state.x, state.y].every((name) => Number.isFinite(rung[2][name])));
  return {type: "scatter", mode: "markers", name: "stopped, as last read", customdata: read.map((rung) => rung[0]),
    x: read.map((rung) => rung[2][state.x] / unitOf(state.x)), y: read.map((rung) => rung[2][state.y] / unitOf(state.y)),
    hoverinfo: "none", meta: "rungs", marker: {symbol: "x-thin-open", size: 6, color: cssColour("soft")}};
}

function drawFront() {
  const axis = (metric, log) => ({title: {text: plain(axisLabel(metric))}, type: log ? "log" : "linear",
    ...(log ? {dtick: isDecades(metric) ? 1 : "D2", tickformat: "~r"} : {})});
  const layout = layoutOf(axis(state.x, state.xlog), axis(state.y, state.ylog), {hovermode: "closest", annotations: notes(),
    uirevision: [state.x, state.y, state.xlog, state.ylog].join()});
  return Plotly.react(plot, frontTraces(), layout, CONFIG);
}
const isDecades = (metric) => { const [low, high] = spread(metric); return high > 200 * low; };

// The network that is shown, framed; a note is drawn without the marks being drawn again.
function notes() {
  if (!complete.length) return [{text: "no complete network yet", showarrow: false, x: 0.5, y: 0.5, xref: "paper", yref: "paper", font: {size: 16}}];
  const x = state.shown === null ? null : at(state.x, state.shown), y = state.shown === null ? null : at(state.y, state.shown);
  if (x === null || y === null || !nets.complete[state.shown] || (state.xlog && x <= 0) || (state.ylog && y <= 0)) return [];
  return [{text: "\u00a0", showarrow: false, width: 15, height: 15, borderwidth: 2.5, borderpad: 1, bordercolor: cssColour("ink"),
    x: state.xlog ? Math.log10(x) : x, y: state.ylog ? Math.log10(y) : y, captureevents: false}];
}

function noteDrawn(all, shown) {
  const thin = shown < all ? `${shown} of ${all} dominated networks are drawn, one for each few pixels of the window: zoom in to see the others. ` : "";
  const missing = complete.length === nets.id.length ? "" : `${complete.length} of ${nets.id.length} candidates were trained to the end. `;
  byId("front-note").replaceChildren(`${thin}${missing}Drag to zoom, double-click to zoom out, click a mark to see its network.`,
    ...(state.colour ? colourLegend() : []));
}
function colourLegend() {
  const column = nets.choices[state.colour];
  const step = Math.max(1, Math.ceil(column.options.length / 10));
  return [make("span", {class: "legend"}, ` ${state.colour}: `, column.options.flatMap((option, place) => place % step ? [] :
    [make("i", {style: `background:${optionColour(column, place)}`}), `${option} `]))];
}

// ---- the budget
function budgetEnds() {
  const [low, high] = spread(state.budgetMetric);
  return isWide(state.budgetMetric) ? [Math.log(low), Math.log(high), Math.exp] : [low, high, (value) => value];
}
function setBudget(value, fromField) {
  state.budget = value;
  if (!fromField) byId("budget").value = value === null ? "" : Number((value / unitOf(state.budgetMetric)).toPrecision(4));
  const [low, high, out] = budgetEnds();
  const inner = out === Math.exp ? Math.log(Math.max(value, 1e-300)) : value;
  byId("budget-slider").value = value === null ? (isHigher(state.budgetMetric) ? 0 : 1000) : 1000 * (inner - low) / ((high - low) || 1);
  byId("budget-sign").textContent = isHigher(state.budgetMetric) ? "at least" : "at most";
  sayBest();
  soon(drawFront);
  soon(frontTable);
}
function sayBest() {
  const line = byId("budget-best");
  const [metric, label] = [state.budgetMetric, state.budgetMetric];
  if (state.budget === null) { line.replaceChildren(""); return; }
  const target = metric === first && objectives[1] ? objectives[1] : first;
  const sign = isHigher(target) ? -1 : 1;
  const inside = complete.filter(isWithin).sort((a, b) => sign * (nets.metrics[target][a] - nets.metrics[target][b]));
  if (!inside.length) { line.replaceChildren("No network is within the budget."); return; }
  const best = inside[0];
  const word = isHigher(metric) ? "at least" : "at most";
  line.replaceChildren(`${inside.length} of ${complete.length} networks have ${word} ${quantity(metric, state.budget)} ${label}; the best by ${target}: `,
    showButton(best), ` ${nets.published[best] || ""} with `,
    objectives.map((name) => `${name} ${quantity(name, nets.metrics[name][best])}`).join(", "), ".");
}

// Once a frame at most, however often it is asked for.
const pending = new Set();
function soon(work) {
  if (pending.has(work)) return;
  pending.add(work);
  requestAnimationFrame(() => { pending.delete(work); work(); });
}

function frontTable() {
  const published = Object.keys(nets.published).map(Number).filter((index) => !onFront.has(index));
  const heads = [["network", ""], ...objectives.map((name) => [name, "number"]),
    ...(objectives.includes("params") || !nets.metrics.params ? [] : [["params", "number"]]),
    ["design", ""], ["dominated by", ""], ["choices", "text"]];
  const metrics = heads.filter((head) => head[1] === "number").map((head) => head[0]);
  const rows = [...nets.front, ...published].map((index, place) => ({
    class: [isWithin(index) ? "" : "off", place === nets.front.length ? "below" : ""].join(" ").trim() || null,
    cells: [showButton(index), ...metrics.map((name) => quantity(name, (nets.metrics[name] || [])[index])),
      nets.published[index] || "", index in nets.dominated_by ? showButton(nets.dominated_by[index]) :
        nets.complete[index] ? "" : nets.state[index], choicesText(index, 12)]}));
  table(byId("front-table"), heads, rows);
  byId("front-table-head").textContent = `The front as a table: ${nets.front.length} networks` +
    (published.length ? `, and below the line ${published.length} published designs off it` : "");
}

function startFront() {
  state.budgetMetric = objectives.find((name) => !isHigher(name)) || metricNames[0];
  const names = metricNames.map((name) => [name, name]);
  const axisChanged = (side) => () => {
    state[side] = byId(`${side}-metric`).value;
    state[`${side}log`] = byId(`${side}-log`).checked = side === "x" ? isWide(state.x) && !isHigher(state.x) : false;
    state.window = null;
    soon(drawFront);
  };
  for (const side of ["x", "y"]) {
    selectOf(`${side}-metric`, names, state[side], axisChanged(side));
    byId(`${side}-log`).addEventListener("change", (event) => {
      state[`${side}log`] = event.target.checked; state.window = null; soon(drawFront);
    });
  }
  state.xlog = byId("x-log").checked = isWide(state.x) && !isHigher(state.x);
  selectOf("colour", [["", "by place"], ...choiceNames.map((name) => [name, name])], "", (event) => {
    state.colour = event.target.value; soon(drawFront);
  });
  byId("rungs-label").textContent = `readings of ${data.rungs.length} stopped`;
  byId("show-rungs").disabled = !data.rungs.length;
  byId("show-rungs").addEventListener("change", (event) => { state.rungs = event.target.checked; soon(drawFront); });
  selectOf("budget-metric", names, state.budgetMetric, (event) => { state.budgetMetric = event.target.value; setBudget(null); });
  byId("budget-slider").addEventListener("input", (event) => {
    const [low, high, out] = budgetEnds();
    setBudget(out(low + (high - low) * event.target.value / 1000));
  });
  byId("budget").addEventListener("input", (event) => {
    const value = event.target.value === "" ? null : Number(event.target.value) * unitOf(state.budgetMetric);
    if (value === null || Number.isFinite(value)) setBudget(value, true);
  });
  byId("budget-clear").addEventListener("click", () => setBudget(null));
  drawFront();
  frontTable();
  plot.on("plotly_hover", showTip);
  plot.on("plotly_unhover", () => { byId("tip").hidden = true; });
  plot.on("plotly_click", (event) => show(event.points[0].customdata, false));
  plot.on("plotly_relayout", (event) => {
    if (!Object.keys(event).some((key) => key.includes("range"))) return;
    const {xaxis, yaxis} = plot._fullLayout;
    state.window = "xaxis.autorange" in event ? null : [[...xaxis.range], [...yaxis.range]];
    if (complete.length > CROWD) soon(drawFront);
  });
}
