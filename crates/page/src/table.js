// Sorts and filters tables. Without it they are whole and in their own order.
"use strict";
const order = new Intl.Collator(undefined, { numeric: true });
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const text = (row, at) => row.cells[at].textContent;
  // The first number of a cell; "-" and empty cells have none and come last.
  const number = (row, at) => parseFloat(text(row, at).replace(/[^\d.+-]*(?=[\d.+-])/, ""));

  heads.forEach((head, at) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const sign = down ? -1 : 1;
      const isNumber = head.classList.contains("number");
      const keyed = rows.map((row) => ({ row, key: isNumber ? number(row, at) : text(row, at) }));
      const compare = isNumber
        ? ({ key: x }, { key: y }) => (isNaN(x) || isNaN(y) ? isNaN(x) - isNaN(y) : sign * (x - y))
        : ({ key: x }, { key: y }) => sign * order.compare(x, y);
      body.append(...keyed.sort(compare).map(({ row }) => row));
    });
  });

  const filtered = heads.map((head, at) => at).filter((at) => "filter" in heads[at].dataset);
  if (filtered.length === 0) continue;
  const form = document.createElement("form");
  form.className = "filters";
  form.setAttribute("aria-label", "Rows of the table: " + table.caption.textContent);
  form.addEventListener("submit", (event) => event.preventDefault());
  const selects = filtered.map((at) => {
    const label = document.createElement("label");
    const select = document.createElement("select");
    const values = [...new Set(rows.map((row) => text(row, at)))];
    select.append(new Option("all", ""), ...values.map((value) => new Option(value, "=" + value)));
    label.append(heads[at].textContent, select);
    form.append(label);
    return select;
  });
  const count = document.createElement("output");
  form.append(count);
  const filter = () => {
    const fits = (row) => filtered.every((at, i) => [" ", "=" + text(row, at)].includes(selects[i].value || " "));
    rows.forEach((row) => (row.hidden = !fits(row)));
    count.textContent = rows.filter((row) => !row.hidden).length + " of " + rows.length + " rows";
  };
  form.addEventListener("change", filter);
  table.parentElement.before(form);
  filter();
}
