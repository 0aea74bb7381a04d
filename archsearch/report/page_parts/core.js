// What all parts of the page share: the data, elements made without markup, numbers as short text.
const data = JSON.parse(document.getElementById("data").textContent);
const nets = data.networks;
const metricNames = Object.keys(nets.metrics);
const objectives = Object.keys(data.objectives);
const first = objectives[0];
const HIGHER = ["top1", "clip_top1", "map", "naswot", "synflow", "zen", "entropy"];
const PALETTE = ["#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#0072B2", "#D55E00", "#B8A800", "#8A8F98"];
const SYMBOLS = ["square", "triangle-up", "diamond", "triangle-down", "pentagon", "x", "triangle-left",
  "triangle-right", "star", "hexagon", "asterisk-open"];
const onFront = new Set(nets.front);

const byId = (id) => document.getElementById(id);
const cssColour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const isHigher = (metric) => metric in data.objectives
  ? data.objectives[metric] === "maximize" : HIGHER.includes(metric);

// An element with attributes and children; strings become text, never markup.
function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

// Plotly reads a few tags in its texts; names of files hold none.
function plain(text) {
  return String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

// 0.812 of accuracies; 40.7, 1.23M, 5.60G of all else; - where it is not known.
function quantity(metric, value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "-";
  if (metric.includes("top")) return value.toFixed(3);
  const short = Number(value.toPrecision(3));
  for (const [unit, suffix] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (Math.abs(short) >= unit) return Number((short / unit).toPrecision(3)) + suffix;
  }
  return short && Math.abs(short) < 1e-4 ? short.toExponential(2) : String(short);
}

const unitOf = (metric) => (data.axes[metric] || [metric, 1])[1];
const axisLabel = (metric) => (data.axes[metric] || [metric, 1])[0];
const named = (index) => `#${nets.id[index]}${nets.published[index] ? ` ${nets.published[index]}` : ""}`;
const choiceNames = Object.keys(nets.choices);

function optionOf(choice, index) {
  const column = nets.choices[choice];
  const place = column.values[index];
  return place < 0 ? null : column.options[place];
}

function choicesText(index, most) {
  const met = choiceNames.filter((name) => optionOf(name, index) !== null);
  const shown = met.slice(0, most).map((name) => `${name}=${optionOf(name, index)}`);
  return shown.join(" ") + (met.length > most ? ` and ${met.length - most} more` : "");
}

const optionText = (value) => typeof value === "boolean" ? String(value)
  : typeof value === "number" && Number.isInteger(value) ? String(value) : String(value);

function showButton(index) {
  return make("button", {type: "button", class: "link", onclick: () => show(index, true)}, `#${nets.id[index]}`);
}

function table(element, heads, rows) {
  const cell = (tag, content, number) => make(tag, {class: number ? "number" : null,
    scope: tag === "th" ? "col" : null}, content);
  const numbers = heads.map((head) => head[1] === "number");
  element.replaceChildren(
    make("thead", {}, make("tr", {}, heads.map((head, place) => cell("th", head[0], numbers[place])))),
    make("tbody", {}, rows.map((row) => make("tr", {class: row.class}, row.cells.map((content, place) => {
      const made = cell("td", content === null ? "-" : content, numbers[place]);
      if (heads[place][1] === "text") made.className = "text";
      return made;
    })))));
}

// A pressed key or button copies; where a browser forbids it, the text is marked instead.
function copyButton(text, target) {
  return make("button", {type: "button", onclick: async (event) => {
    const button = event.currentTarget;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "copied";
    } catch {
      getSelection().selectAllChildren(target);
      button.textContent = "marked: copy it";
    }
    setTimeout(() => { button.textContent = "copy"; }, 2000);
  }}, "copy");
}

function selectOf(id, names, chosen, onchange) {
  const select = byId(id);
  select.replaceChildren(...names.map(([value, label]) => make("option", {value}, label)));
  if (chosen !== null) select.value = chosen;
  select.addEventListener("change", onchange);
  return select;
}

// Colours, fonts and margins of every plot.
function layoutOf(x, y, more) {
  const axis = {gridcolor: cssColour("line"), zerolinecolor: cssColour("line"), linecolor: cssColour("line")};
  return {paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: {l: 62, r: 14, t: 34, b: 52},
    font: {family: "system-ui, Liberation Sans, Arial, sans-serif", size: 13, color: cssColour("ink")},
    hoverlabel: {bgcolor: cssColour("raised"), bordercolor: cssColour("line"), align: "left",
      font: {color: cssColour("ink"), size: 12}},
    xaxis: {...axis, ...x}, yaxis: {...axis, ...y}, showlegend: true,
    legend: {orientation: "h", y: 1.02, yanchor: "bottom", x: 0, bgcolor: "rgba(0,0,0,0)"}, ...more};
}
const CONFIG = {responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  toImageButtonOptions: {format: "svg"}};

// Draws a part when it comes near the window, and again whenever it is told to after that.
const drawn = new Map();
function drawNear(id, draw) {
  drawn.set(id, {draw, seen: false});
  const watch = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    watch.disconnect();
    drawn.get(id).seen = true;
    draw();
  }, {rootMargin: "400px"});
  watch.observe(byId(id));
}
function drawAgain(id) {
  const part = drawn.get(id);
  if (part && part.seen) part.draw();
}
