// The parts below: what choices do, growth, final results, failures, how to do it again.
const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
const SHOWN = 200; // rows of a long table

function drawImportance() {
  const entry = data.importance.metrics.find((own) => own.metric === byId("importance-metric").value);
  const body = byId("importance-table");
  byId("importance-method").textContent = `${data.importance.method}. Means are plain means over the networks with an option; in ` +
    "brackets what the model says of the option alone, other choices held: a difference from the mean over options" +
    (entry && entry.logarithmic ? ", here a factor, since the metric is modelled by its logarithm." : ".");
  if (!entry || !entry.effects.length) {
    byId("importance-note").textContent = "There is nothing to tell yet: no choice has two options among the complete networks.";
    body.replaceChildren();
    return;
  }
  byId("importance-note").textContent = entry.rest === null
    ? `${entry.networks} complete networks are too few to speak of shares, or all have the same ${entry.metric}.`
    : `Over ${entry.networks} complete networks. ${percent(Math.max(0, entry.rest))} of the variance is no choice's alone: interactions, and noise of training.`;
  const shown = entry.effects.slice(0, SHOWN);
  table(body, [["choice", ""], ["share of variance", ""], ["", "number"], [`mean ${entry.metric} by option`, "text"]],
    shown.map((effect) => ({cells: [effect.choice, shareBar(effect), shareText(effect), optionsOf(entry, effect)]})));
}

function shareBar(effect) {
  if (effect.share === null) return "-";
  const bar = make("div", {class: "share", role: "img", "aria-label": shareText(effect)},
    make("i", {style: `width:${100 * Math.min(1, effect.share)}%`}));
  if (effect.interval) bar.append(make("b", {style: `left:${100 * effect.interval[0]}%;width:${100 * (effect.interval[1] - effect.interval[0])}%`}));
  return bar;
}
const shareText = (effect) => effect.share === null ? "-" : percent(effect.share) +
  (effect.interval ? ` (${(100 * effect.interval[0]).toFixed(0)} to ${(100 * effect.interval[1]).toFixed(0)})` : "");

function optionsOf(entry, effect) {
  const change = (option) => option.effect === null ? "" : entry.logarithmic ? ` (× ${option.effect.toPrecision(3)})`
    : ` (${option.effect < 0 ? "−" : "+"}${quantity(entry.metric, Math.abs(option.effect))})`;
  return make("div", {class: "options"}, effect.options.slice(0, 40).map((option) => make("span", {},
    `${option.label} `, make("b", {}, quantity(entry.metric, option.mean)), make("small", {}, `${change(option)} n=${option.networks}`))),
    effect.options.length > 40 ? make("span", {}, `and ${effect.options.length - 40} more`) : null);
}

function drawGrowth() {
  const grown = data.growth, against = byId("growth-metric").value;
  const trace = {type: "scatter", mode: "lines", line: {shape: "hv", color: cssColour("front"), width: 2}, x: grown[against], y: grown.volume,
    text: grown.number.map((number) => `after #${number}`), hovertemplate: "%{text}: %{y:.3f}<extra></extra>", showlegend: false};
  Plotly.react("growth-plot", [trace], layoutOf({title: {text: against === "epochs" ? "epochs trained" : "worker seconds"}, rangemode: "tozero"},
    {title: {text: "hypervolume (share)"}, range: [0, 1.02]}, {hovermode: "closest"}), CONFIG);
  byId("growth-note").textContent = "The share of the box between the worst and the best values of the whole run that the networks so far dominate, " +
    "in the order of their numbers: a run's files hold no times of finishing." +
    (grown.exact ? "" : " With more than two objectives it is estimated by 10,000 random points in the box.");
}

function fillFinal() {
  const final = data.final;
  byId("final").hidden = !final;
  byId("to-final").hidden = !final;
  if (!final) return;
  const names = Object.keys(final.objectives || data.objectives), members = new Set(final.front || []);
  byId("final-note").textContent = `The front and the published designs, trained from scratch with ${(final.seeds || []).length} fresh seeds and scored on ` +
    "test once: means and standard deviations over seeds; 95 % intervals of test over seeds and videos.";
  const spreadOf = (row, name) => row.spread && Number.isFinite(row.spread[name]) ? ` ± ${row.spread[name].toFixed(3)}` : "";
  const rows = [...final.candidates].sort((a, b) => members.has(b.id) - members.has(a.id));
  table(byId("final-table"), [["network", ""], ["design", ""], ["on the front", ""], ...names.map((name) => [name, "number"]),
    [`${first} it was selected by`, "number"], ["test top-1", "number"], ["95 %", "number"], ["trainings", "number"]],
  rows.map((row) => {
    const index = nets.id.indexOf(row.id), tested = Number.isFinite(row.test_top1);
    return {cells: [index < 0 ? `#${row.id}` : showButton(index), row.published || "", members.has(row.id) ? "yes" : "",
      ...names.map((name) => quantity(name, row.metrics[name]) + spreadOf(row, name)), quantity(first, row.selected[first]),
      tested ? row.test_top1.toFixed(3) : "-", tested && row.test_interval ? row.test_interval.map((end) => end.toFixed(3)).join(" to ") : "-",
      String(row.trained) + (row.failed && row.failed.length ? `, ${row.failed.length} failed` : "")]};
  }));
}

function fillOthers() {
  const states = data.counts.states;
  const stopped = new Map();
  for (const rung of data.rungs) stopped.set(rung[1], (stopped.get(rung[1]) || 0) + 1);
  const after = [...stopped].map(([epochs, count]) => `${count} after ${epochs} epochs`).join(", ");
  byId("others-note").textContent = `${states.stopped} stopped${after ? ` (${after})` : ""}, ${states.infeasible} infeasible, ` +
    `${states.failed} failed, ${states.running} under way; ${data.counts.duplicates} trials were answered from known ones.`;
  const gone = nets.id.map((_, index) => index).filter((index) => ["failed", "infeasible"].includes(nets.state[index])
    || (nets.state[index] === "complete" && !nets.complete[index]));
  gone.sort((a, b) => (nets.state[a] < nets.state[b] ? -1 : nets.state[a] > nets.state[b] ? 1 : a - b));
  if (!gone.length) return;
  const rows = gone.slice(0, SHOWN).map((index) => ({cells: [showButton(index), nets.state[index],
    nets.reason[index] || (nets.state[index] === "complete" ? "an objective is not a number" : "-"), choicesText(index, 12)]}));
  table(byId("others-table"), [["network", ""], ["state", ""], ["reason", "text"], ["choices", "text"]], rows);
  if (gone.length > SHOWN) byId("others-note").textContent += ` The first ${SHOWN} of ${gone.length} are listed.`;
}

function fillReproduce() {
  const again = data.reproduce, body = byId("reproduce-body");
  const facts = [["data set", `${data.data.name ?? "-"}, ${data.data.classes.length} classes`],
    ["digest of the clips", make("code", {}, data.data.digest ?? "-")],
    ...Object.entries(again.digests).filter(([, digest]) => digest).map(([name, digest]) => [`digest of the ${name}`, make("code", {}, digest)]),
    ["written with", Object.entries(again.versions).map(([name, text]) => `${name} ${text}`).join(", ")]];
  const commands = make("pre", {tabindex: 0, "aria-label": "Commands"}, again.commands.join("\n"));
  body.append(make("dl", {}, facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])),
    make("p", {class: "note"}, "Versions are those of the machine that wrote this page. Save the two files below, and put your data set's folder in place of DATA. " +
      "A search in fixed order is a function of these; one that is asynchronous also of who finishes first."),
    make("p", {}, copyButton(again.commands.join("\n"), commands)), commands);
  for (const [name, text] of Object.entries(again.files)) {
    const shown = make("pre", {tabindex: 0, "aria-label": name}, text);
    body.append(make("details", {}, make("summary", {}, name), make("p", {}, copyButton(text, shown)), shown));
  }
  body.append(make("details", {}, make("summary", {}, "classes"), make("p", {}, data.data.classes.join(", "))));
}

function fillHead() {
  document.title = `${data.name}: a search`;
  byId("title").textContent = data.name;
  const states = Object.entries(data.counts.states).filter(([, count]) => count).map(([state, count]) => `${count} ${state}`).join(", ");
  const aims = objectives.map((name) => `${name} ${data.objectives[name] === "maximize" ? "up" : "down"}`).join(", ");
  byId("summary").textContent = `${aims}; ${states || "no trials yet"}; ${data.counts.epochs} epochs, ${Math.round(data.counts.seconds)} worker seconds` +
    `${data.data.name ? ` on ${data.data.name}` : ""}; ${nets.front.length} on the front.`;
  const notices = {shared: "The values on this page are read off shared weights: they rank networks, and are no results of trainings. `archsearch finalize` trains the front.",
    table: "The values on this page come from a table of earlier trainings: nothing was trained in this run."};
  byId("notice").hidden = !notices[data.values];
  byId("notice").textContent = notices[data.values] || "";
}
