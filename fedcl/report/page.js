"use strict";
// Sort a table by the column whose heading is pressed; a second press turns the order round.
for (const table of document.querySelectorAll("table:not(.matrix)")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      const key = (row) => row.cells[column].dataset.v;
      const compare = (a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === undefined || y === undefined) return (x === undefined) - (y === undefined); // empty cells last
        const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
        return down ? -order : order;
      };
      body.append(...[...body.rows].sort(compare));
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
    });
  });
}
// A link to a run opens it.
const open = () => {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (target && target.tagName === "DETAILS") target.open = true;
};
addEventListener("hashchange", open);
open();
// A picture opens in its full size; Escape or another click closes it.
const screen = document.querySelector("dialog");
for (const button of document.querySelectorAll("button.opens")) {
  button.addEventListener("click", () => {
    const picture = button.querySelector("img").cloneNode();
    picture.removeAttribute("class");
    picture.removeAttribute("loading");
    screen.querySelector("div").replaceChildren(picture);
    screen.showModal();
  });
}
screen.addEventListener("click", () => screen.close());
// A table that is wider than its place says so.
const measure = () => {
  for (const box of document.querySelectorAll(".scroll")) box.classList.toggle("cut", box.scrollWidth > box.clientWidth + 1);
};
addEventListener("resize", measure);
measure();
