// ---- tables: sort, search, copy
const cellValue = (row, index) => row.cells[index].dataset.value;
function compareValues(one, other, numeric) {
  if (one === "" || other === "") return (one === "") - (other === ""); // the unknown comes last
  return numeric ? Number(one) - Number(other) : one.localeCompare(other);
}
function enlivenTable(block) {
  const table = block.querySelector("table");
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, index) => {
    heading.querySelector("button").addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const numeric = heading.classList.contains("number");
      const sign = down ? -1 : 1;
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const one = cellValue(a, index), other = cellValue(b, index);
        const known = one !== "" && other !== "";
        return known ? sign * compareValues(one, other, numeric) : compareValues(one, other, numeric);
      });
      table.tBodies[0].append(...rows);
    });
  });
  const search = block.querySelector(".search");
  const rows = [...table.tBodies[0].rows];
  search.addEventListener("input", () => {
    const wanted = search.value.trim().toLowerCase().split(/\s+/);
    rows.forEach((row) => {
      const text = row.textContent.toLowerCase();
      row.hidden = !wanted.every((word) => text.includes(word));
    });
    const shown = rows.filter((row) => !row.hidden).length;
    block.querySelector(".told").textContent = search.value ? `${shown} of ${rows.length} rows` : "";
  });
  block.querySelector(".copy").addEventListener("click", async () => {
    const copied = await copyText(JSON.parse(block.querySelector(".csv").textContent));
    const status = block.querySelector(".told");
    status.textContent = copied ? "Copied" : "The browser did not allow it";
    setTimeout(() => { status.textContent = ""; }, 2500);
  });
}
async function copyText(text) {
  try { await navigator.clipboard.writeText(text); return true; } catch { /* older way below */ }
  const area = element("textarea", { value: text });
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}
document.querySelectorAll(".table-block").forEach(enlivenTable);
