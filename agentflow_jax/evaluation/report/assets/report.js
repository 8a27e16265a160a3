// Hover and arrow keys read a chart's values from the table below it, so the
// page is complete without this script. Text is only ever set as textContent.
(() => {
  "use strict";

  function element(name, className, text) {
    const made = document.createElement(name);
    made.className = className;
    made.textContent = text;
    return made;
  }

  function attach(plot) {
    const table = plot.closest("figure").querySelector("table.values");
    const titles = [...table.tHead.rows[0].cells];
    const rows = [...table.tBodies[0].rows];
    const places = rows.map((row) => Number(row.dataset.x));
    const line = element("div", "crosshair", "");
    const tip = element("div", "tip", "");
    line.style.height = plot.dataset.height + "px";
    line.hidden = tip.hidden = true;
    plot.append(line, tip);
    plot.tabIndex = 0;
    plot.setAttribute("role", "group");
    plot.setAttribute("aria-label", "Chart: arrow keys read its values");
    tip.setAttribute("aria-live", "polite");
    let current = rows.length - 1;

    function show(index) {
      current = Math.min(Math.max(index, 0), rows.length - 1);
      const cells = [...rows[current].cells];
      const lines = [element("b", "", "iteration " + cells[0].textContent)];
      cells.slice(1).forEach((cell, i) => {
        if (!cell.textContent) return;
        const title = titles[i + 1];
        const entry = element("div", title.dataset.color, "");
        entry.append(
          element("span", "", title.textContent),
          element("span", "", cell.textContent),
        );
        lines.push(entry);
      });
      tip.replaceChildren(...lines);
      line.hidden = tip.hidden = false;
      // Beside the line where there is room, but never outside the card.
      const width = plot.clientWidth;
      const at = places[current] * width;
      const right = at + 10;
      const fits = right + tip.offsetWidth <= width + 8;
      const left = fits ? right : Math.max(at - 10 - tip.offsetWidth, -44);
      line.style.left = 100 * places[current] + "%";
      tip.style.left = left + "px";
    }

    function hide() {
      line.hidden = tip.hidden = true;
    }

    plot.addEventListener("pointermove", (event) => {
      const box = plot.getBoundingClientRect();
      const at = (event.clientX - box.left) / box.width;
      let nearest = 0;
      places.forEach((place, index) => {
        if (Math.abs(place - at) < Math.abs(places[nearest] - at)) {
          nearest = index;
        }
      });
      show(nearest);
    });
    plot.addEventListener("pointerleave", hide);
    plot.addEventListener("focus", () => show(current));
    plot.addEventListener("blur", hide);
    plot.addEventListener("keydown", (event) => {
      const moves = {
        ArrowLeft: current - 1,
        ArrowRight: current + 1,
        Home: 0,
        End: rows.length - 1,
      };
      if (event.key === "Escape") hide();
      if (!(event.key in moves)) return;
      event.preventDefault();
      show(moves[event.key]);
    });
  }

  document.querySelectorAll(".plot").forEach(attach);

  // Paper can not be unfolded.
  const folded = document.querySelectorAll("details.pair:not([open])");
  window.addEventListener("beforeprint", () => {
    folded.forEach((details) => { details.open = true; });
  });
  window.addEventListener("afterprint", () => {
    folded.forEach((details) => { details.open = false; });
  });
})();
