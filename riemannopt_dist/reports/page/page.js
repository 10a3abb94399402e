"use strict";
// Tables are sorted by the column whose head is clicked, the other way round by a second click. Rows without a
// number come last.
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, place) => head.querySelector("button").addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach((other) => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const sign = up ? 1 : -1;
    const text = (row) => row.cells[place].textContent;
    const number = (row) => row.cells[place].dataset.number;
    const byText = (a, b) => sign * text(a).localeCompare(text(b), "en", { numeric: true });
    const byNumber = (a, b) => {
      const [x, y] = [number(a), number(b)];
      return x === undefined || y === undefined ? (x === undefined) - (y === undefined) : sign * (x - y);
    };
    const order = head.classList.contains("number") ? byNumber : byText;
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
  }));
}

// The colour scheme is the system's until it is chosen, for as long as the page is open.
const button = document.getElementById("scheme");
button.addEventListener("click", () => {
  const schemes = ["auto", "light", "dark"];
  const root = document.documentElement;
  const next = schemes[(schemes.indexOf(root.dataset.scheme ?? "auto") + 1) % schemes.length];
  root.dataset.scheme = next;
  button.querySelector("span").textContent = next;
});

// On paper everything is unfolded.
addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details")) folded.open = true;
});
