"use strict";
// The rows of a report: filtered, paged, their entities marked. Offsets are code points; all text goes in as text.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const PAGE_ROWS = 50, FOLD = 1600, HEAD = 300, CONTEXT = 110, DEPTH = 8, TYPE_BOXES = 12, MARKS = 400, TAG = 40;
  const $ = (id) => document.getElementById(id);
  const format = (n) => n.toLocaleString("en");
  const [START, END, TYPE, SCORE, VERIFIED, TASK, KIND] = [0, 1, 2, 3, 4, 5, 6];

  /** An element with attributes and children; strings become text. */
  const el = (name, attributes, ...children) => {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (key === "class") node.className = value;
      else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else if (value === true) node.setAttribute(key, "");
      else if (value !== false && value !== null && value !== undefined) node.setAttribute(key, value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  };

  // --- texts -------------------------------------------------------------------------------------------------------

  /** A part of a text by code points: a string where it has none beyond U+FFFF, else its characters. */
  const sliceable = (text) => {
    if (!/[\ud800-\udfff]/.test(text)) return (from, to) => text.slice(from, to);
    const characters = Array.from(text);
    return (from, to) => characters.slice(from, to).join("");
  };
  const lengthOf = (text) => (/[\ud800-\udfff]/.test(text) ? Array.from(text).length : text.length);

  // Control characters have pictures; what turns the order of all text after it is named instead of obeyed.
  const CONTROL = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f\u0085\u202d\u202e\ufeff]/g;
  const NAMED = new Map([["\u202d", "LRO"], ["\u202e", "RLO"], ["\ufeff", "BOM"], ["\u007f", "\u2421"], ["\u0085", "NEL"]]);

  /** Append text; control characters in it are made visible. */
  const appendText = (node, text) => {
    let from = 0;
    for (const match of text.matchAll(CONTROL)) {
      const code = match[0].codePointAt(0);
      if (match.index > from) node.append(text.slice(from, match.index));
      const name = NAMED.get(match[0]) || String.fromCharCode(0x2400 + code);
      node.append(el("span", { class: "control", title: "U+" + code.toString(16).toUpperCase().padStart(4, "0") }, name));
      from = match.index + 1;
    }
    if (from < text.length) node.append(from ? text.slice(from) : text);
  };

  /** Text by itself: its direction is its own. */
  const isolated = (text, attributes) => { const node = el("bdi", attributes); appendText(node, text); return node; };

  // --- entities ----------------------------------------------------------------------------------------------------

  // Types that occur most come first: by the golden angle, neighbours differ, and types are always named too.
  const hue = (type) => String(Math.round((250 + type * 137.508) % 360));
  const paint = (node, type) => { node.style.setProperty("--hue", hue(type)); return node; };
  const typeName = (type) => data.types[type];
  const shortName = (type) => (typeName(type).length > TAG ? Array.from(typeName(type)).slice(0, TAG).join("") + "…" : typeName(type));
  const kindClass = (kind) => (kind === null || kind === undefined ? "" : " kind" + kind);
  const isError = (kind) => kind !== null && kind !== undefined && kind !== 0;

  const describe = (entity, side) => {
    const lines = [["type", typeName(entity[TYPE])]];
    if (entity[KIND] !== null && entity[KIND] !== undefined) lines.push([data.scored ? "against gold" : "against other", data.kinds[entity[KIND]]]);
    if (entity[SCORE] !== null) lines.push(["score", String(entity[SCORE])]);
    if (entity[VERIFIED] !== null) lines.push(["verification", entity[VERIFIED] ? "verified" : "rejected"]);
    if (entity[TASK] !== null) lines.push(["task", data.tasks[entity[TASK]]]);
    lines.push(["characters", format(entity[START]) + "–" + format(entity[END])]);
    if (side !== "own") lines.unshift(["from", side === "gold" ? "gold" : "the other run"]);
    return lines;
  };

  const mark = (entity, side, last) => {
    const rejected = entity[VERIFIED] === false ? " rejected" : "";
    const faint = side === "own" && !fits(entity) ? " faint" : "";
    const node = paint(el("mark", { class: "entity" + kindClass(entity[KIND]) + rejected + faint, tabindex: "-1" }), entity[TYPE]);
    node.entity = entity;
    node.side = side;
    if (!last) node.classList.add("cut");
    return node;
  };

  /** What stands behind a mention: its type, and its kind of error in words. */
  const tag = (entity) => {
    const node = el("span", { class: "tag" }, isolated(shortName(entity[TYPE])));
    if (isError(entity[KIND])) node.append(el("span", { class: "kind" }, data.kinds[entity[KIND]]));
    if (entity[VERIFIED] === false) node.append(el("span", { class: "kind" }, "rejected"));
    return node;
  };

  /**
   * Append text [from, to) with the entities in it. Those inside another lie in its box. One that crosses another's end
   * is cut there, goes on behind it, and is one for hovering. `left` gets what would lie deeper than DEPTH boxes.
   */
  const appendMarked = (node, slice, from, to, entities, side, depth, left) => {
    const queue = entities.slice().sort((a, b) => a.start - b.start || b.end - a.end || a.entity[TYPE] - b.entity[TYPE]);
    let position = from;
    while (queue.length) {
      const { entity, start, end } = queue.shift();
      const first = Math.max(start, position), stop = Math.min(end, to);
      if (first >= stop) continue;
      appendText(node, slice(position, first));
      const inside = [], behind = [];
      while (queue.length && queue[0].start < stop) {
        const next = queue.shift();
        inside.push({ entity: next.entity, start: next.start, end: Math.min(next.end, stop) });
        if (next.end > stop) behind.push({ entity: next.entity, start: stop, end: next.end });
      }
      queue.push(...behind);
      queue.sort((a, b) => a.start - b.start || b.end - a.end);
      const box = mark(entity, side, stop >= entity[END] - slice.offset);
      if (first > entity[START] - slice.offset) box.classList.add("continued");
      if (depth < DEPTH) appendMarked(box, slice, first, stop, inside, side, depth + 1, left);
      else {
        appendText(box, slice(first, stop));
        left.push(...inside.map((piece) => piece.entity));
      }
      if (stop >= entity[END] - slice.offset) box.append(tag(entity));
      node.append(box);
      position = stop;
    }
    appendText(node, slice(position, to));
  };

  /** The parts of a row's text that are shown at first: all, or the head and what is around entities. */
  const folded = (row) => {
    const spans = [...row.own, ...(row.gold || []), ...(row.other || [])].map((e) => [e[START], e[END]]).sort((a, b) => a[0] - b[0]);
    const parts = [];
    let shown = 0;
    row.text.forEach(([offset, text], place) => {
      const length = lengthOf(text), slice = sliceable(text), end = offset + length;
      if (length <= HEAD) { parts.push([offset, text]); return; }
      const ranges = place ? [] : [[offset, offset + HEAD]];
      for (const [from, to] of spans) {
        if (to <= offset || from >= end) continue;
        const a = Math.max(offset, from - CONTEXT), b = Math.min(end, to + CONTEXT), last = ranges[ranges.length - 1];
        if (last && a <= last[1] + CONTEXT) last[1] = Math.max(last[1], b);
        else ranges.push([a, b]);
      }
      for (const [a, b] of ranges) {
        if (shown > 4 * FOLD) break;
        shown += b - a;
        parts.push([a, slice(a - offset, b - offset)]);
      }
    });
    return parts;
  };

  const opened = new Set();

  /** One side of a row: its text with the side's entities. */
  const sideOf = (row, parts, entities, side, name) => {
    const node = el("div", { class: "side side-" + side });
    if (name) node.append(el("span", { class: "side-name" }, name));
    const body = el("div", { class: "text", dir: "auto" });
    const left = [];
    let position = 0, marks = 0;
    for (const [offset, text] of parts) {
      const slice = sliceable(text), length = lengthOf(text), end = offset + length;
      slice.offset = offset;
      if (offset > position) body.append(el("span", { class: "gap" }, "⋯ " + format(offset - position) + " characters ⋯"));
      const here = [];
      for (const entity of entities) {
        if (entity[START] >= end || entity[END] <= offset) continue;
        if (marks >= MARKS) { if (entity[START] >= offset) left.push(entity); continue; }
        marks += 1;
        here.push({ entity, start: Math.max(0, entity[START] - offset), end: Math.min(length, entity[END] - offset) });
      }
      appendMarked(body, slice, 0, length, here, side, 0, left);
      position = end;
    }
    if (row.length > position) body.append(el("span", { class: "gap" }, "⋯ " + format(row.length - position) + " characters"));
    const also = Array.from(new Set(left)).slice(0, 100);
    node.append(el("div", { class: "column" }, body, also.length ? el("p", { class: "also" }, "deeper nested or further on: ", ...also.map((e) => chip(e, side, row))) : null));
    return node;
  };

  /** An entity without its text around it. */
  const chip = (entity, side, row) => {
    const box = mark(entity, side, true);
    let surface = "";
    for (const [offset, text] of row.text || []) {
      if (entity[START] >= offset && entity[END] <= offset + lengthOf(text)) surface = sliceable(text)(entity[START] - offset, entity[END] - offset);
    }
    appendText(box, surface || format(entity[START]) + "–" + format(entity[END]));
    box.append(tag(entity));
    return el("span", { class: "chip" }, box, " ");
  };

  const errorsOf = (row) => [...(row.gold || (data.compared && !data.scored ? row.other : null) || []).filter((e) => e[KIND] === 4), ...row.own.filter((e) => isError(e[KIND]))];

  const rowNode = (index) => {
    const row = data.rows[index], open = opened.has(index);
    const long = row.text ? row.text.reduce((sum, part) => sum + part[1].length, 0) > FOLD : false;
    const parts = !row.text ? [] : long && !open ? folded(row) : row.text;
    const name = row.id === undefined ? row.unit : row.id;
    const status = data.statuses[row.status];
    const head = el("header", {}, isolated(name, { class: "id", title: row.unit }));
    if (status !== "ok") head.append(el("span", { class: "status status-" + status }, status.replace("_", " ")));
    const errors = errorsOf(row).length;
    if (row.gold) head.append(el("span", { class: errors ? "judgement wrong" : "judgement" }, errors ? errors + (errors === 1 ? " error" : " errors") : "all correct"));
    else if (data.scored) head.append(el("span", { class: "judgement none" }, "no gold"));
    if (data.compared) head.append(el("span", { class: row.differs ? "judgement wrong" : "judgement" }, row.other === undefined ? "not in the other run" : row.differs ? "differs" : "same in both"));
    head.append(el("span", { class: "tokens" }, format(row.tokens[0]) + " + " + format(row.tokens[1]) + " tokens"));
    const node = el("article", { tabindex: "-1", "aria-label": "Row " + name + ", " + status }, head);
    node.index = index;
    if (row.error) node.append(el("p", { class: "row-error" }, isolated(row.error)));
    const otherStatus = row.other_status === undefined || row.other_status === row.status ? "" : ", " + data.statuses[row.other_status];
    if (!row.text) {
      node.append(el("p", { class: "also" }, data.texts ? "No text. " : "", ...row.own.slice(0, MARKS).map((e) => chip(e, "own", row))));
    } else {
      const apart = (row.gold && errors) || row.differs;
      if (row.gold && errors) node.append(sideOf(row, parts, row.gold, "gold", "gold"));
      node.append(sideOf(row, parts, row.own, "own", apart ? (row.gold && errors ? "predicted" : "this run") : null));
      if (row.differs) node.append(sideOf(row, parts, row.other, "other", "other run" + otherStatus));
    }
    if (row.ungrounded) {
      const list = el("ul", { class: "ungrounded", "aria-label": "Ungrounded mentions" });
      for (const [text, type, reason, task] of row.ungrounded) {
        const named = paint(el("span", { class: "tag" }, isolated(shortName(type))), type);
        list.append(el("li", {}, isolated(text, { class: "words" }), named, isolated(reason), task === null ? null : isolated(", task " + data.tasks[task])));
      }
      node.append(el("div", { class: "side" }, el("span", { class: "side-name" }, "ungrounded"), list));
    }
    if (row.left_out) node.append(el("p", { class: "note" }, format(row.left_out) + " more entities lie beyond what this page holds of the text"));
    if (long) node.append(el("button", { type: "button", class: "fold", "aria-expanded": String(open), onclick: () => toggleFold(index) }, open ? "Fold the text" : "Show more of the text"));
    return el("li", {}, node);
  };

  const toggleFold = (index) => {
    if (!opened.delete(index)) opened.add(index);
    const old = articles().find((article) => article.index === index);
    old.parentNode.replaceWith(rowNode(index));
    select(articles().findIndex((article) => article.index === index), false);
  };

  // --- filters -----------------------------------------------------------------------------------------------------

  const filter = { words: "", types: new Set(), statuses: new Set(), kinds: new Set(), least: 0, most: 1, unscored: true, ungrounded: false, differing: false, rejected: false, order: "place" };
  const hasScores = data.rows.some((row) => row.own.some((e) => e[SCORE] !== null));
  const restricts = () => filter.types.size > 0 || filter.least > 0 || filter.most < 1;

  /** Whether an entity is one that the filters ask for. */
  const fits = (entity) => {
    if (filter.types.size && !filter.types.has(entity[TYPE])) return false;
    if (filter.least <= 0 && filter.most >= 1) return true;
    return entity[SCORE] !== null && entity[SCORE] >= filter.least && entity[SCORE] <= filter.most;
  };

  const searchable = new Map();
  const wordsOf = (index) => {
    if (!searchable.has(index)) {
      const row = data.rows[index];
      const words = [row.id || "", row.unit, row.error || "", ...(row.ungrounded || []).map((m) => m[0]), ...(row.text || []).map((part) => part[1])];
      searchable.set(index, words.join("\n").toLowerCase());
    }
    return searchable.get(index);
  };

  const passes = (row, index) => {
    if (filter.statuses.size && !filter.statuses.has(row.status)) return false;
    if (filter.ungrounded && !row.ungrounded) return false;
    if (filter.differing && !row.differs) return false;
    if (filter.rejected && !row.own.some((e) => e[VERIFIED] === false)) return false;
    if (filter.kinds.size && ![...row.own, ...(row.gold || []), ...(row.other || [])].some((e) => filter.kinds.has(e[KIND]) && (!filter.types.size || filter.types.has(e[TYPE])))) return false;
    if (restricts() && !filter.kinds.size && ![...row.own, ...(filter.least > 0 || filter.most < 1 ? [] : [...(row.gold || []), ...(row.other || [])])].some(fits)) return false;
    return !filter.words || wordsOf(index).includes(filter.words);
  };

  const lowest = (row) => row.own.reduce((least, e) => (e[SCORE] !== null && fits(e) ? Math.min(least, e[SCORE]) : least), 2);
  const ORDERS = {
    place: null,
    errors: (row) => -errorsOf(row).length,
    score: (row) => lowest(row),
    entities: (row) => -row.own.length,
  };

  let shown = [], page = 0, current = -1;

  const apply = () => {
    shown = [];
    data.rows.forEach((row, index) => { if (passes(row, index)) shown.push(index); });
    const key = ORDERS[filter.order];
    if (key) {
      const keys = new Map(shown.map((index) => [index, key(data.rows[index])]));
      shown.sort((a, b) => keys.get(a) - keys.get(b) || a - b);
    }
    draw(0);
  };

  const pages = () => Math.max(1, Math.ceil(shown.length / PAGE_ROWS));
  const articles = () => Array.from($("list").querySelectorAll("article"));

  const draw = (wanted) => {
    page = Math.min(Math.max(0, wanted), pages() - 1);
    current = -1;
    hideTip();
    const first = page * PAGE_ROWS, indices = shown.slice(first, first + PAGE_ROWS);
    $("list").replaceChildren(...indices.map(rowNode));
    $("list").start = first + 1;
    if (!indices.length) $("list").append(el("li", { class: "nothing" }, "No row has all of this. ", el("button", { type: "button", onclick: reset }, "Clear the filters")));
    $("count").textContent = shown.length ? format(first + 1) + "–" + format(first + indices.length) + " of " + format(shown.length) + (shown.length === 1 ? " row" : " rows") : "no rows";
    $("page").textContent = "page " + format(page + 1) + " of " + format(pages());
    for (const id of ["previous", "previous2"]) $(id).disabled = page === 0;
    for (const id of ["next", "next2"]) $(id).disabled = page >= pages() - 1;
    const [firstRow] = articles();
    if (firstRow) firstRow.tabIndex = 0;
    highlight();
  };

  const turn = (by) => {
    if (page + by < 0 || page + by >= pages()) return;
    draw(page + by);
    $("rows").scrollIntoView({ block: "start" });
  };

  /** Mark what was searched for, without changing the page's nodes. */
  const highlight = () => {
    if (!("highlights" in CSS)) return;
    CSS.highlights.delete("hit");
    if (!filter.words) return;
    const ranges = [], walker = document.createTreeWalker($("list"), NodeFilter.SHOW_TEXT);
    while (walker.nextNode() && ranges.length < 2000) {
      const node = walker.currentNode;
      if (node.parentNode.closest(".tag, .gap, button")) continue;
      const text = node.data.toLowerCase();
      if (text.length !== node.data.length) continue;
      for (let at = text.indexOf(filter.words); at >= 0; at = text.indexOf(filter.words, at + filter.words.length)) {
        const range = new Range();
        range.setStart(node, at);
        range.setEnd(node, at + filter.words.length);
        ranges.push(range);
      }
    }
    if (ranges.length) CSS.highlights.set("hit", new Highlight(...ranges));
  };

  const toggle = (set, value) => (event) => { if (event.target.checked) set.add(value); else set.delete(value); apply(); };

  const box = (label, count, onchange, type) => {
    const input = el("input", { type: "checkbox", onchange });
    const swatch = type === undefined ? null : paint(el("span", { class: "swatch", "aria-hidden": "true" }), type);
    return el("label", { class: "box" }, input, swatch, isolated(label), count === null ? null : el("span", { class: "n" }, format(count)));
  };

  const group = (legend, ...children) => el("fieldset", {}, el("legend", {}, legend), ...children);

  const typeGroup = () => {
    const counts = data.types.map(() => 0);
    for (const row of data.rows) for (const type of new Set([...row.own, ...(row.gold || []), ...(row.other || [])].map((e) => e[TYPE]))) counts[type] += 1;
    const order = data.types.map((_, type) => type).filter((type) => counts[type]).sort((a, b) => counts[b] - counts[a] || a - b);
    const list = el("div", { class: "boxes" });
    const fill = (words) => {
      const matching = order.filter((type) => filter.types.has(type) || typeName(type).toLowerCase().includes(words));
      const boxes = matching.slice(0, 200).map((type) => {
        const label = box(typeName(type), counts[type], toggle(filter.types, type), type);
        label.querySelector("input").checked = filter.types.has(type);
        return label;
      });
      list.replaceChildren(...boxes);
      if (matching.length > 200) list.append(el("p", { class: "note" }, "and " + format(matching.length - 200) + " more"));
    };
    fill("");
    const find = order.length > TYPE_BOXES ? el("input", { type: "search", placeholder: "Find a type", "aria-label": "Find a type", oninput: (event) => fill(event.target.value.toLowerCase()) }) : null;
    return order.length ? group("Types", find, list) : null;
  };

  const bound = (name, label, value) => el("label", { class: "bound" }, label, el("input", {
    type: "number", min: "0", max: "1", step: "0.05", value,
    oninput: (event) => { filter[name] = event.target.value === "" ? Number(value) : Number(event.target.value); apply(); },
  }));

  const countRows = (test) => data.rows.reduce((sum, row) => sum + (test(row) ? 1 : 0), 0);

  const buildFilters = () => {
    const search = el("input", { type: "search", id: "search", placeholder: "Search texts and ids", "aria-label": "Search texts and ids", "aria-keyshortcuts": "/", oninput: (event) => { filter.words = event.target.value.toLowerCase(); apply(); } });
    const orders = [["place", "as in the output"], ...(data.scored || data.compared ? [["errors", data.scored ? "most errors first" : "most differences first"]] : []), ...(hasScores ? [["score", "lowest score first"]] : []), ["entities", "most entities first"]];
    const order = el("select", { id: "order", onchange: (event) => { filter.order = event.target.value; apply(); } }, ...orders.map(([value, label]) => el("option", { value }, label)));
    const statuses = data.statuses.map((name, status) => box(name.replace("_", " "), countRows((row) => row.status === status), toggle(filter.statuses, status)));
    const kinds = data.kinds.map((name, kind) => [name, kind, countRows((row) => [...row.own, ...(row.gold || []), ...(row.other || [])].some((e) => e[KIND] === kind))]).filter(([, , count]) => count);
    const only = (name, label, count) => (count ? box(label, count, (event) => { filter[name] = event.target.checked; apply(); }) : null);
    const flags = [
      only("differing", "runs differ", countRows((row) => row.differs)),
      only("ungrounded", "ungrounded mentions", countRows((row) => row.ungrounded)),
      only("rejected", "rejected by verification", countRows((row) => row.own.some((e) => e[VERIFIED] === false))),
    ].filter(Boolean);
    $("filters").replaceChildren(
      search,
      el("label", { class: "order" }, "Order ", order),
      ...[
        data.statuses.length > 1 ? group("Status", ...statuses) : null,
        kinds.length ? group(data.scored ? "Against gold" : "Against the other run", ...kinds.map(([name, kind, count]) => box(name, count, toggle(filter.kinds, kind)))) : null,
        flags.length ? group("Rows with", ...flags) : null,
        typeGroup(),
        hasScores ? group("Score", el("div", { class: "bounds" }, bound("least", "from ", "0"), bound("most", "to ", "1"))) : null,
      ].filter(Boolean),
      el("button", { type: "button", id: "reset", onclick: () => reset() }, "Clear the filters"),
    );
  };

  const reset = () => {
    Object.assign(filter, { words: "", least: 0, most: 1, ungrounded: false, differing: false, rejected: false, order: "place" });
    for (const set of [filter.types, filter.statuses, filter.kinds]) set.clear();
    buildFilters();
    apply();
  };

  // --- hovering and keys -------------------------------------------------------------------------------------------

  const tip = $("tip");
  let tipped = null;

  const samePieces = (node) => Array.from(node.closest("article").querySelectorAll("mark")).filter((other) => other.entity === node.entity);
  const hideTip = () => {
    if (tipped && tipped.isConnected) for (const piece of samePieces(tipped)) { piece.classList.remove("active"); piece.removeAttribute("aria-describedby"); }
    tipped = null;
    tip.hidden = true;
  };
  const showTip = (node) => {
    hideTip();
    tipped = node;
    for (const piece of samePieces(node)) piece.classList.add("active");
    node.setAttribute("aria-describedby", "tip");
    const list = el("dl", {});
    for (const [name, value] of describe(node.entity, node.side)) list.append(el("dt", {}, name), el("dd", {}, isolated(value)));
    tip.replaceChildren(list);
    tip.hidden = false;
    placeTip();
  };
  /** Above the entity, or below where there is no room; away where it has scrolled out of sight. */
  const placeTip = () => {
    if (!tipped) return;
    const place = tipped.getClientRects()[0] || tipped.getBoundingClientRect(), size = tip.getBoundingClientRect();
    if (place.bottom < 0 || place.top > innerHeight) { hideTip(); return; }
    const above = place.top - size.height - 8;
    tip.style.left = Math.max(8, Math.min(place.left, innerWidth - size.width - 8)) + "px";
    tip.style.top = (above > 8 ? above : place.bottom + 8) + "px";
  };

  $("list").addEventListener("mouseover", (event) => { const node = event.target.closest("mark"); if (node) showTip(node); else hideTip(); });
  $("list").addEventListener("mouseleave", hideTip);
  $("list").addEventListener("focusin", (event) => {
    const article = event.target.closest("article");
    if (article) pick(articles().indexOf(article));
    const node = event.target.closest("mark");
    if (node) showTip(node); else hideTip();
  });
  $("list").addEventListener("focusout", hideTip);
  addEventListener("scroll", placeTip, { passive: true });

  /** Make a row the current one: Tab goes through its entities, and through those of no other. */
  const pick = (place) => {
    const all = articles();
    if (place === current || !all[place]) return;
    all.forEach((article, at) => {
      article.tabIndex = at === place ? 0 : -1;
      article.classList.toggle("current", at === place);
      if (at === place || at === current) for (const node of article.querySelectorAll("mark:not(.continued)")) node.tabIndex = at === place ? 0 : -1;
    });
    current = place;
  };
  const select = (place, scroll = true) => {
    pick(place);
    const article = articles()[place];
    if (!article) return;
    article.focus({ preventScroll: true });
    if (scroll) article.scrollIntoView({ block: "nearest" });
  };
  const step = (by) => {
    const all = articles(), wanted = current < 0 ? 0 : current + by;
    if (wanted >= all.length && page < pages() - 1) { draw(page + 1); select(0); }
    else if (wanted < 0 && page > 0) { draw(page - 1); select(articles().length - 1); }
    else select(Math.min(Math.max(0, wanted), all.length - 1));
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.closest && event.target.closest("input:not([type=checkbox]), select, textarea");
    if (event.key === "Escape") {
      if (typing) { event.target.blur(); select(Math.max(0, current)); } else hideTip();
      return;
    }
    if (typing) return;
    const action = { "/": () => $("search").focus(), j: () => step(1), k: () => step(-1), n: () => turn(1), p: () => turn(-1), d: flip }[event.key];
    if (action) { event.preventDefault(); action(); }
  });
  for (const id of ["previous", "previous2"]) $(id).addEventListener("click", () => turn(-1));
  for (const id of ["next", "next2"]) $(id).addEventListener("click", () => turn(1));
  $("filters").addEventListener("submit", (event) => event.preventDefault());

  // --- dark and light ----------------------------------------------------------------------------------------------

  const root = document.documentElement, KEY = "ner_batch-report-theme";
  const isDark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const name = () => { $("theme").textContent = isDark() ? "Light" : "Dark"; $("theme").setAttribute("aria-label", "Switch to " + (isDark() ? "light" : "dark") + " colours"); };
  const flip = () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem(KEY, root.dataset.theme); } catch { /* a browser that keeps nothing for files */ }
    name();
  };
  try { const kept = localStorage.getItem(KEY); if (kept === "dark" || kept === "light") root.dataset.theme = kept; } catch { /* the same */ }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", name);
  $("theme").addEventListener("click", flip);
  name();

  for (const node of document.querySelectorAll("[data-type]")) paint(node, Number(node.dataset.type));
  buildFilters();
  apply();
})();
