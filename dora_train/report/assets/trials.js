// The objective over the trials of a search.

class Trials extends Chart {
  /**
   * @param search {grid, objective, optimizer, runs, values, best}: a trial each; runs and values may be null
   * @param ended(run) -> whether it is complete; @param tell(run or null, x, y); @param open(run)
   */
  constructor(search, ended, tell, open) {
    super(`${search.grid}: ${search.objective.replace(".", " ")} by trial, ${search.optimizer}`, `${search.objective} by trial`);
    Object.assign(this, { ...search, ended, tell, length: search.runs.length });
    this.canvas.addEventListener("pointermove", (event) => this.tell(this.nearest(event), event.clientX, event.clientY));
    this.canvas.addEventListener("pointerleave", () => this.tell(null));
    this.canvas.addEventListener("click", (event) => {
      const run = this.nearest(event);
      if (run !== null) open(run);
    });
  }

  draw() {
    const { context, width, height } = sheet(this.canvas);
    this.lay(span(this.values) || { low: 0, high: 1 }, width, height);
    this.axes(context);
    this.clip(context);
    this.steps(context);
    this.runs.forEach((run, at) => { if (run !== null) this.dot(context, at); });
    this.mark(null);
  }

  steps(context) {
    context.strokeStyle = colour("c1");
    context.lineWidth = 1.8;
    context.beginPath();
    this.best.forEach((value, at) => {
      if (value === null) return;
      if (this.best[at - 1] ?? null) context.lineTo(this.x(at), this.y(this.best[at - 1])); else context.moveTo(this.x(at), this.y(value));
      context.lineTo(this.x(at), this.y(value));
    });
    context.stroke();
  }

  /** Where a trial stands; without a result, and below what is shown, at the foot. */
  place(at) {
    const value = this.values[at], { top, bottom } = this.box;
    return { x: this.x(at), y: value === null ? bottom : Math.max(top, Math.min(bottom, this.y(value))) };
  }

  dot(context, at, size = 3.5) {
    const { x, y } = this.place(at);
    context.strokeStyle = context.fillStyle = colour(this.values[at] === null ? "red" : "accent");
    context.lineWidth = 1.5;
    context.beginPath();
    if (this.values[at] === null) {
      context.moveTo(x - size, y - size); context.lineTo(x + size, y + size);
      context.moveTo(x - size, y + size); context.lineTo(x + size, y - size);
    } else {
      context.arc(x, y, size, 0, 7);
      if (this.ended(this.runs[at])) context.fill();
    }
    context.stroke();
  }

  /** Show the trial of a run, large. */
  mark(run) {
    const { context } = sheet(this.over), at = run === null ? -1 : this.runs.indexOf(run);
    if (at >= 0) this.dot(context, at, 6);
  }

  nearest(event) {
    const box = this.canvas.getBoundingClientRect();
    const away = this.runs.map((run, at) => {
      const { x, y } = this.place(at);
      return run === null ? Infinity : Math.hypot(x - event.clientX + box.left, y - event.clientY + box.top);
    });
    const least = Math.min(...away);
    return least < 20 ? this.runs[away.indexOf(least)] : null;
  }
}
