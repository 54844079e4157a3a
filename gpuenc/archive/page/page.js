// Sorting and filtering; without it the page shows everything in the order of the report.
(() => {
  "use strict";
  const root = document.documentElement;
  root.classList.add("js");
  const collator = new Intl.Collator("en", { numeric: true });

  // What a cell is sorted by: its value where it has one, its text otherwise.
  const keyOf = (row, column) => {
    const cell = row.cells[column];
    return "v" in cell.dataset ? Number(cell.dataset.v) : cell.textContent;
  };
  const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : collator.compare(a, b);

  const sort = (table, head) => {
    const body = table.tBodies[0];
    const column = head.cellIndex;
    const before = head.getAttribute("aria-sort");
    const firstDown = head.classList.contains("number");
    const down = before ? before === "ascending" : firstDown;
    const keyed = Array.from(body.rows, row => [keyOf(row, column), row]);
    keyed.sort((a, b) => down ? compare(b[0], a[0]) : compare(a[0], b[0]));
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    // Moved row by row within a page that is shown, ten thousand of them take seconds.
    body.remove();
    body.append(...keyed.map(each => each[1]));
    table.append(body);
  };

  for (const table of document.querySelectorAll("table.sortable")) {
    for (const head of table.tHead.rows[0].cells) {
      if (head.classList.contains("meter")) continue;
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      button.addEventListener("click", () => sort(table, head));
      head.replaceChildren(button);
    }
  }

  // Every word must occur somewhere in a row.
  for (const box of document.querySelectorAll(".filter")) {
    const input = box.querySelector("input");
    const told = box.querySelector("output");
    const rows = Array.from(document.getElementById(box.dataset.table).querySelectorAll("tbody tr"));
    let texts = null;
    const apply = () => {
      texts ??= rows.map(row => Array.from(row.cells, cell => cell.textContent).join(" ").toLowerCase());
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row, number) => {
        row.hidden = !words.every(word => texts[number].includes(word));
        shown += !row.hidden;
      });
      told.value = words.length ? `${shown.toLocaleString("en")} of ${rows.length.toLocaleString("en")} shown` : "";
    };
    input.addEventListener("input", apply);
    input.addEventListener("keydown", event => {
      if (event.key === "Escape") { input.value = ""; apply(); }
    });
    if (input.value) apply();
  }
})();
