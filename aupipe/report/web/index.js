// The table of recordings: sorted and filtered here, a part of its rows in the page at a time.
(() => {
  "use strict";
  const { rows, forms, step } = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id), body = $("table").tBodies[0], heads = [...$("table").querySelectorAll("th")];
  const number = (digits, more) => new Intl.NumberFormat("en", { minimumFractionDigits: digits, maximumFractionDigits: digits, ...more });
  const formats = { whole: number(0), tenth: number(1, { useGrouping: false }), hundredth: number(2), share: number(1, { style: "percent" }), signed: number(0, { signDisplay: "always" }) };
  const texts = rows.map(([name, , faults]) => (name + " " + faults.join(", ")).toLowerCase());
  let order = rows.map((_, k) => k), sorted = { by: "", down: false }, found = order, shown = 0;

  const cell = (text, kind) => { const made = document.createElement("td"); made.className = kind; made.textContent = text; return made; };
  function line([name, page, faults, values]) {
    const made = document.createElement("tr"), first = cell(page ? "" : name, "");
    if (page) { const link = document.createElement("a"); link.href = page; link.textContent = name; first.append(link); }
    made.append(first, cell(faults.join(", "), "wrap"));
    values.forEach((value, k) => made.append(cell(value === null ? "" : formats[forms[k]].format(value), "number")));
    return made;
  }
  function add() {
    const lines = document.createDocumentFragment(), stop = Math.min(shown + step, found.length);
    for (; shown < stop; shown++) lines.append(line(rows[found[shown]]));
    body.append(lines);
    const by = sorted.by ? "" : ", worst first", count = new Intl.NumberFormat("en");
    const all = count.format(rows.length), few = found.length < rows.length, part = count.format(shown);
    const words = few ? `${count.format(found.length)} of ${all} found` : `${part} of ${all}`;
    $("shown").textContent = words + (few && shown < found.length ? `, ${part} shown` : "") + (found.length ? by : "");
    $("more").hidden = shown >= found.length;
  }
  function show() {
    const wanted = $("search").value.trim().toLowerCase(), flagged = $("flagged").checked, paged = $("paged").checked;
    found = order.filter((k) => texts[k].includes(wanted) && (!flagged || rows[k][2].length) && (!paged || rows[k][1]));
    body.replaceChildren();
    shown = 0;
    add();
    document.documentElement.dataset.ready = performance.now().toFixed(0);
  }
  let ranks = null;  // of names: comparing them takes longest
  function rank() {
    const compare = new Intl.Collator("en", { numeric: true }).compare;
    const found = rows.map((_, k) => k).sort((a, b) => compare(rows[a][0], rows[b][0]));
    ranks = new Array(rows.length);
    found.forEach((k, place) => { ranks[k] = place; });
    return ranks;
  }
  function sort(by, head) {
    const down = sorted.by === by ? !sorted.down : by !== "name";
    const keys = by === "name" ? ranks || rank() : rows.map((row) => by === "faults" ? row[2].length : row[3][by]);
    const sign = down ? -1 : 1;
    order.sort((a, b) => {
      const one = keys[a], other = keys[b];
      if (one === null || other === null) return (one === null) - (other === null) || a - b;  // without a value: last
      return sign * (one - other) || a - b;
    });
    sorted = { by, down };
    for (const each of heads) each.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    show();
  }
  for (const head of heads) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => sort(head.dataset.sort, head));
    head.replaceChildren(button);
  }
  $("more").addEventListener("click", add);
  $("filter").addEventListener("input", show);
  $("filter").addEventListener("submit", (event) => event.preventDefault());
  $("filter").hidden = false;
  show();
})();
