// One network: stage by stage beside a published design, its curve, its YAML.
const KIND_CLASS = {"2d": "kind-2d", "3d": "kind-3d", "2+1d": "kind-21d", separable: "kind-separable"};

function show(index, jump) {
  state.shown = index;
  const nearest = data.nearest[index];
  const chosen = byId("beside").value;
  const beside = chosen === "" ? (nearest ? nearest[0] : null) : Number(chosen);
  byId("network-head").textContent = `Network ${named(index)}`;
  byId("find-text").value = nets.id[index];
  byId("network-fault").hidden = true;
  byId("network-body").dataset.network = nets.id[index];
  byId("network-body").replaceChildren(facts(index), records(index), ...compared(index, beside), ...yamlOf(index));
  if (plot.data) Plotly.relayout(plot, {annotations: notes()});
  drawAgain("curves-plot");
  if (jump) {
    byId("network-head").focus({preventScroll: true});
    byId("network").scrollIntoView({block: "start"});
  }
}

function facts(index) {
  return make("div", {class: "facts"}, metricNames.filter((name) => nets.metrics[name][index] !== null).map((name) =>
    make("span", {}, `${name} `, make("b", {}, quantity(name, nets.metrics[name][index])))));
}

function records(index) {
  const by = nets.dominated_by[index];
  const rows = [["state", nets.state[index] + (nets.reason[index] ? `: ${nets.reason[index]}` : "")],
    ["place", onFront.has(index) ? "on the front" : by === undefined ? "-" : make("span", {}, "dominated by ", showButton(by))],
    ["trained", `${nets.epochs[index]} epochs` + (nets.seconds[index] ? `, ${Math.round(nets.seconds[index])} worker seconds` : "")],
    ["folder", nets.hash[index] ? make("code", {}, `candidates/${nets.hash[index]}`) : "-"],
    ["choices", choicesText(index, 60) || "-"]];
  if (nets.inherited[index]) rows.push(["began with", make("code", {}, `candidates/${nets.inherited[index]}`)]);
  const rung = data.rungs.find((entry) => entry[0] === index);
  if (rung) rows.push(["last read", `after ${rung[1]} epochs: ` + Object.entries(rung[2]).map(([name, value]) =>
    `${name} ${quantity(name, value)}`).join(", ")]);
  return make("dl", {}, rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

function compared(index, beside) {
  const own = data.drawn.networks[index], design = beside === null ? null : data.designs[beside];
  const other = beside === null ? null : data.drawn.designs[beside];
  if (!own) {
    const why = data.drawn.fault ? `: the space cannot be read here (${data.drawn.fault})` : "";
    return [make("p", {class: "note"}, `Its stages are not on this page${why}.`)];
  }
  const found = [make("h3", {}, design ? `Stage by stage, beside ${design.name}` : "Stage by stage")];
  if (design) found.push(differences(index, design));
  found.push(make("div", {class: "scroll"}, stageGrid(index, own, design, other)), kindLegend());
  return found;
}

function differences(index, design) {
  const names = [...new Set([...choiceNames, ...Object.keys(design.choices)])];
  const theirs = (name) => name in design.choices ? optionText(design.choices[name]) : null;
  const rows = names.map((name) => [name, nets.choices[name] ? optionOf(name, index) : null, theirs(name)])
    .filter(([, left, right]) => !sameOption(left, right));
  if (!rows.length) return make("p", {}, "The same choices.");
  return make("p", {}, `${rows.length} of ${names.length} choices differ: `,
    rows.map(([name, left, right]) => `${name} ${left ?? "-"} (${right ?? "-"})`).join(", "), ".");
}
const sameOption = (left, right) => left === right || (left !== null && right !== null && left !== "" && Number(left) === Number(right));

function stageGrid(index, own, design, other) {
  const left = new Map(own[1].map((row) => [data.drawn.stages[row[0]].name, row]));
  const right = new Map((other ? other[1] : []).map((row) => [data.drawn.stages[row[0]].name, row]));
  const channels = (row) => Number(data.drawn.sizes[row[1]].split("x")[0]);
  const widest = Math.max(...[...left.values(), ...right.values()].map(channels));
  const grid = make("div", {class: "stages", role: "table", "aria-label": "Stages of both networks"});
  const head = [make("span", {class: "head"}, "stage"), make("span", {class: "head"}, named(index)),
    make("span", {class: "head"}, design ? design.name : "")];
  grid.append(make("div", {role: "row", style: "display:contents"}, head));
  for (const name of new Set([...left.keys(), ...right.keys()])) {
    const rows = [left.get(name), right.get(name)];
    const cells = rows.map((row, side) => stageCell(row, rows[1 - side], other !== null, widest, channels));
    grid.append(make("div", {role: "row", style: "display:contents"}, make("span", {class: "name", role: "rowheader"}, name),
      cells[0], other ? cells[1] : make("span")));
  }
  return grid;
}

// A bar as wide as the stage has channels, in as many pieces as it has blocks; below it what it is and costs.
function stageCell(row, against, isBeside, widest, channels) {
  if (!row) return make("div", {class: "stage differs", role: "cell"}, "no such stage");
  const stage = data.drawn.stages[row[0]], twin = against ? data.drawn.stages[against[0]] : null;
  const differs = isBeside && (!twin || row[0] !== against[0]);
  const bar = make("div", {class: "bar", style: `width:${Math.max(2, 100 * channels(row) / widest)}%`},
    Array.from({length: Math.min(stage.depth || 1, 24)}, () => make("i", {class: KIND_CLASS[stage.conv] || "kind-none"})));
  const words = wordsOf(stage, isBeside ? twin : stage);
  const size = data.drawn.sizes[row[1]].replaceAll("x", " × ");
  const cost = `${size}; ${quantity("gmacs", row[2] / 1e9)} gmacs, ${quantity("params", row[3])} params`;
  return make("div", {class: differs ? "stage differs" : "stage", role: "cell"}, bar, make("div", {}, words),
    make("div", {class: "cost"}, cost));
}

// `residual 2+1d, width 64, depth 2`, marked where the other network's stage differs.
function wordsOf(stage, twin) {
  const plainWords = {kind: stage.kind, conv: stage.conv, width: stage.width, depth: stage.depth, gate: stage.gate};
  const words = [];
  const add = (text, differs) => words.push(words.length ? ", " : "", differs ? make("mark", {}, text) : text);
  for (const [name, value] of Object.entries(plainWords)) {
    const differs = !twin || JSON.stringify(twin[name]) !== JSON.stringify(value);
    if (value === undefined && !(differs && name === "gate")) continue;
    if (name === "gate") add(value ? "gate" : "no gate", differs);
    else add(name === "kind" || name === "conv" ? String(value) : `${name} ${value}`, differs);
  }
  for (const name of new Set([...Object.keys(stage.fields), ...Object.keys(twin ? twin.fields : {})])) {
    if (name in plainWords || !twin || JSON.stringify(stage.fields[name]) === JSON.stringify(twin.fields[name])) continue;
    add(`${name} ${stage.fields[name] === undefined ? "by default" : JSON.stringify(stage.fields[name]).replaceAll('"', "")}`, true);
  }
  return words;
}

function kindLegend() {
  return make("p", {class: "note legend"}, "A bar is as wide as its stage's output has channels, in a piece for each block. ",
    Object.entries(KIND_CLASS).flatMap(([kind, name]) => [make("i", {class: name}), `${kind} `]),
    make("i", {class: "kind-none"}), "no such kind. Marked: what differs.");
}

function yamlOf(index) {
  const own = data.drawn.networks[index];
  if (!own) return [];
  const text = `${data.drawn.heads[own[0]]}stages:\n${own[1].map((row) => data.drawn.stages[row[0]].yaml).join("")}`;
  const shown = make("pre", {tabindex: 0, "aria-label": "Spec as YAML"}, text);
  return [make("details", {}, make("summary", {}, "its spec, for `archsearch show`, `train` or `surgery`"),
    make("p", {}, copyButton(text, shown)), shown)];
}

function drawCurves() {
  const metric = byId("curve-metric").value;
  const wanted = (byId("curve-front").checked ? nets.front.filter((index) => index !== state.shown) : []);
  const traces = wanted.flatMap((index) => curveTraces(index, metric, {color: cssColour("rest"), width: 1}, false));
  if (state.shown !== null) traces.push(...curveTraces(state.shown, metric, {color: cssColour("published"), width: 2.5}, true));
  const layout = layoutOf({title: {text: "epoch"}, rangemode: "tozero"}, {title: {text: metric === "loss" ? "loss" : "top-1"}}, {hovermode: "closest"});
  Plotly.react("curves-plot", traces, layout, CONFIG);
  const none = state.shown !== null && !data.curves[state.shown] ? `${named(state.shown)} has no curve on this page. ` : "";
  const broken = data.curves_of.broken.length ? `Could not be read: ${data.curves_of.broken.join(", ")}. ` : "";
  byId("curves-note").textContent = `${none}${broken}The page has ${Object.keys(data.curves).length} curves: of the front, of published ` +
    `designs and of the best ${data.curves_of.best} by ${first}, where the run's folder has them. ` +
    "Validation is one view of each video; dashed is training.";
}

function curveTraces(index, metric, line, isShown) {
  const curve = data.curves[index];
  if (!curve) return [];
  const parts = [[`val_${metric}`, "solid", "validation"], ...(byId("curve-train").checked ? [[`train_${metric}`, "dash", "training"]] : [])];
  return parts.filter(([name]) => curve[name]).map(([name, dash, word]) => ({type: "scatter", mode: "lines", name: `${plain(named(index))} ${word}`,
    x: curve[name].map((_, epoch) => epoch + 1), y: curve[name], line: {...line, dash}, showlegend: isShown,
    hovertemplate: `${plain(named(index))} ${word}: %{y:.4g} in epoch %{x}<extra></extra>`}));
}

function startNetwork() {
  selectOf("beside", [["", "the nearest published design"], ...data.designs.map((design, place) => [String(place), design.name])],
    "", () => { if (state.shown !== null) show(state.shown, false); });
  byId("find").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = byId("find-text").value.trim().replace(/^#/, "");
    const index = nets.id.findIndex((id, place) => String(id) === text || (text.length > 3 && nets.hash[place].startsWith(text))
      || (text !== "" && (nets.published[place] || "").split(" = ").includes(text)));
    byId("network-fault").hidden = index >= 0;
    byId("network-fault").textContent = `There is no network '${text}' in this run.`;
    if (index >= 0) show(index, false);
  });
  for (const id of ["curve-metric", "curve-train", "curve-front"]) byId(id).addEventListener("change", () => drawAgain("curves-plot"));
  const start = nets.front.length ? nets.front[nets.front.length - 1] : nets.id.length ? 0 : null;
  if (start !== null) show(start, false);
  else byId("network-body").replaceChildren(make("p", {}, "The run has no candidate yet."));
  drawNear("curves-plot", drawCurves);
}
