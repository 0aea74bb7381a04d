// In the order of the page; what lies below the window is drawn when it comes near.
fillHead();
startFront();
startNetwork();
selectOf("importance-metric", data.importance.metrics.map((entry) => [entry.metric, entry.metric]), null, drawImportance);
drawImportance();
startParallel();
byId("growth-metric").addEventListener("change", () => drawAgain("growth-plot"));
drawNear("growth-plot", drawGrowth);
fillFinal();
fillOthers();
fillReproduce();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  drawFront();
  for (const id of ["curves-plot", "parallel-plot", "growth-plot"]) drawAgain(id);
});
document.documentElement.dataset.ready = "yes";
