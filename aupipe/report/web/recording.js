// A recording's time line: panels on one clock, a cursor on a row, the video and the boxes of the same row.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const bytes = (text) => Uint8Array.fromBase64 ? Uint8Array.fromBase64(text)
    : Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const array = (text, kind) => text === undefined ? null : new kind(bytes(text).buffer);
  const MISSING = 65535, HIGHEST = 65534, NOWHERE = -32768;
  const ACTIVE = 1, LABELLED = 2, DECIDED = 4, PREDICTED = 8;
  const WORDS = ["nobody", "other faces only", "subject"], NOBODY = 0, OTHERS = 1, SUBJECT = 2;

  const count = data.count, pts = array(data.pts, Float64Array);
  const states = array(data.states, Uint8Array), track = array(data.track, Int16Array);
  const others = array(data.others, Int16Array), counts = array(data.counts, Uint8Array);
  const starts = counts && new Uint32Array(count + 1);
  if (starts) for (let k = 0; k < count; k++) starts[k + 1] = starts[k] + counts[k];
  const measured = (panel) => panel.group.startsWith("measured of the "), ofSound = (panel) => panel.group.endsWith(" the sound");
  const panels = data.panels.map((one) => ({
    ...one, values: array(one.values, Uint16Array), target: array(one.target, Uint16Array),
    marks: array(one.marks, Uint8Array), height: measured(one) ? 34 : one.target ? 40 : 27,
  }));
  const heat = data.heat && { ...data.heat, values: array(data.heat.values, Uint8Array) };
  const end = data.end, span = end - pts[0], AXIS = 22, HEAT = 150;

  // Rows and times.
  const clip = (value, low, high) => Math.min(high, Math.max(low, value));
  function rowAt(time) {  // the row that is shown then: the last one that has begun
    let low = 0, high = count;
    while (low < high) { const middle = (low + high) >> 1; if (pts[middle] <= time) low = middle + 1; else high = middle; }
    return clip(low - 1, 0, count - 1);
  }
  const until = (row) => row + 1 < count ? pts[row + 1] : end;
  const clock = (time, digits) => {
    const sign = time < 0 ? "-" : "", parts = Math.abs(time), minutes = Math.floor(parts / 60), hours = Math.floor(minutes / 60);
    const seconds = (parts % 60).toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
    return sign + (hours ? hours + ":" + String(minutes % 60).padStart(2, "0") : minutes) + ":" + seconds;
  };

  // Where what is lost and what differs begins, for `g` and `d`: each label's intervals, as they are listed.
  const differs = new Uint8Array(count);
  for (const { marks, values, target, low, high } of panels) {
    if (!marks && !(values && target)) continue;
    for (let k = 0, last = 0, own = 0; k < count; k++, last = own) {
      if (marks) own = (marks[k] & LABELLED) && (marks[k] & PREDICTED) ? !!(marks[k] & ACTIVE) - !!(marks[k] & DECIDED) : 0;
      else own = +(values[k] !== MISSING && target[k] !== MISSING && Math.abs(values[k] - target[k]) * (high - low) > data.far * HIGHEST);
      if (own && own !== last) differs[k] = 1;
    }
  }
  const begins = (flag) => { const found = []; for (let k = 0; k < count; k++) if (flag(k) && (!k || !flag(k - 1))) found.push(k); return found; };
  const gaps = states ? begins((k) => states[k] !== SUBJECT) : [], differences = [...differs.keys()].filter((k) => differs[k]);

  // The time line's two canvases, and the names beside them.
  const timeline = $("timeline"), plot = $("plot"), lines = $("lines"), cursor = $("cursor"), names = $("names");
  const shown = { from: pts[0], to: end };
  let row = 0, width = 0, height = 0, ratio = 1, colours = {}, values = [];
  const x = (time) => (time - shown.from) / (shown.to - shown.from) * width;
  const timeAt = (place) => shown.from + place / width * (shown.to - shown.from);

  function layOut() {
    names.replaceChildren();
    values = [];
    height = 0;
    const add = (name, tall, more) => {
      const line = document.createElement("div"), text = document.createElement("span"), value = document.createElement("b");
      text.textContent = name;
      text.title = more || name;
      line.style.height = tall + "px";
      line.append(text, value);
      names.append(line);
      const top = height;
      height += tall;
      return { top, value };
    };
    for (const panel of panels) { const place = add(panel.name, panel.height); panel.top = place.top; values.push(place.value); }
    add("", AXIS);
    if (heat) {
      Object.assign(heat, add(heat.title, HEAT, `${heat.names.length} rows, dark ${heat.low}, bright ${heat.high}`));
      names.lastChild.className = "heat";
    }
    plot.style.height = height + "px";
  }

  function readColours() {
    const style = getComputedStyle(document.documentElement), paper = style.getPropertyValue("--paper").trim();
    for (const name of ["ink", "muted", "rule", "warning", "blue", "green", "orange", "grey"])
      colours[name] = style.getPropertyValue("--" + name).trim();
    const mix = (name, share) => {
      const parts = [name, paper].map((one) => [1, 3, 5].map((at) => parseInt(one.slice(at, at + 2), 16)));
      return "rgb(" + [0, 1, 2].map((k) => Math.round(parts[0][k] * share + parts[1][k] * (1 - share))).join(",") + ")";
    };
    Object.assign(colours, { paper, nobody: mix(colours.grey, 0.55), others: mix(colours.orange, 0.4), active: mix(colours.green, 0.35) });
  }

  // A heat strip, a pixel for each value: viridis (van der Walt, Smith 2015) at nine places.
  const VIRIDIS = [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141], [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37]];
  function paintHeat() {
    const picture = document.createElement("canvas"), rows = heat.names.length;
    picture.width = heat.columns;
    picture.height = rows;
    const context = picture.getContext("2d"), image = context.createImageData(heat.columns, rows);
    for (let k = 0; k < heat.values.length; k++) {  // what is missing stays transparent
      if (heat.values[k] === 255) continue;
      const place = heat.values[k] / 254 * 8, below = Math.min(7, Math.floor(place)), part = place - below;
      image.data.set([...VIRIDIS[below].map((low, at) => low + (VIRIDIS[below + 1][at] - low) * part), 255], 4 * k);
    }
    context.putImageData(image, 0, 0);
    return picture;
  }

  function resize() {
    width = plot.clientWidth;
    ratio = devicePixelRatio || 1;
    for (const canvas of [lines, cursor]) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
      canvas.style.width = width + "px";
      canvas.style.height = height + "px";
    }
    draw();
    sizeBoxes();
  }

  function bands(pen, first, last, kind, top, tall, colour) {  // runs of rows of one kind, from their times
    pen.fillStyle = colour;
    for (let k = first; k <= last; k++) {
      if (!kind(k)) continue;
      const begin = k;
      while (k < last && kind(k + 1)) k++;
      const left = x(pts[begin]), right = x(until(k));
      pen.fillRect(left, top, Math.max(right - left, 1), tall);
    }
  }

  function gapBands(pen, first, last, top, tall) {
    if (!states) return;
    bands(pen, first, last, (k) => states[k] === NOBODY, top, tall, colours.nobody);
    bands(pen, first, last, (k) => states[k] === OTHERS, top, tall, colours.others);
  }

  function curve(pen, series, first, last, top, tall, colour) {
    pen.strokeStyle = colour;
    pen.beginPath();
    const y = (value) => top + tall * (1 - value / HIGHEST);
    if (last - first > 3 * width) {  // many rows to a pixel: lowest to highest
      let at = -1, low = 0, high = 0;
      const close = () => { if (at >= 0) { pen.moveTo(at + 0.5, y(high) - 0.5); pen.lineTo(at + 0.5, y(low) + 0.5); } };
      for (let k = first; k <= last; k++) {
        const value = series[k];
        if (value === MISSING) continue;
        const place = Math.floor(x(pts[k]));
        if (place !== at) { close(); at = place; low = high = value; } else { low = Math.min(low, value); high = Math.max(high, value); }
      }
      close();
    } else {
      let down = false;
      for (let k = first; k <= last; k++) {
        if (series[k] === MISSING) { down = false; continue; }
        if (down) pen.lineTo(x(pts[k]), y(series[k])); else pen.moveTo(x(pts[k]), y(series[k]));
        if (k === last || series[k + 1] === MISSING) pen.lineTo(x(until(k)), y(series[k]));
        down = true;
      }
    }
    pen.stroke();
  }

  function draw() {
    const pen = lines.getContext("2d"), first = rowAt(shown.from), last = rowAt(shown.to);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    for (const panel of panels) {
      const { top, height: tall, values: own, target, marks } = panel, inner = top + 4, inside = tall - 8;
      if (measured(panel) && ofSound(panel)) {
        bands(pen, first, last, (k) => own[k] === MISSING, inner, inside, hatch(pen));
      } else if (measured(panel)) {
        gapBands(pen, first, last, inner, inside);
      } else if (marks) {
        bands(pen, first, last, (k) => (marks[k] & (ACTIVE | LABELLED)) === (ACTIVE | LABELLED), inner, inside, colours.active);
        if (data.labelled.includes(panel.group)) bands(pen, first, last, (k) => !(marks[k] & LABELLED), inner, inside, hatch(pen));
      }
      if (panel.threshold !== null) {
        const level = inner + inside * (1 - (panel.threshold - panel.low) / (panel.high - panel.low));
        pen.strokeStyle = colours.warning;
        pen.setLineDash([4, 3]);
        pen.beginPath();
        pen.moveTo(0, level);
        pen.lineTo(width, level);
        pen.stroke();
        pen.setLineDash([]);
      }
      if (panel.low < 0 && panel.high > 0 && !measured(panel)) {
        pen.fillStyle = colours.rule;
        pen.fillRect(0, Math.round(inner + inside * panel.high / (panel.high - panel.low)), width, 1);
      }
      pen.lineWidth = 1.25;
      if (target) curve(pen, target, first, last, inner, inside, colours.green);
      if (own) curve(pen, own, first, last, inner, inside, colours.blue);
      if (own || target) drawRange(pen, panel);
      pen.fillStyle = colours.rule;
      pen.fillRect(0, top + tall - 1, width, 1);
    }
    drawAxis(pen);
    if (heat) {
      pen.fillStyle = hatch(pen);
      pen.fillRect(0, heat.top, width, HEAT);
      gapBands(pen, first, last, heat.top, HEAT);
      pen.imageSmoothingEnabled = false;
      const column = (time) => (time - pts[0]) / span * heat.columns, left = column(shown.from);
      pen.drawImage(heat.picture, left, 0, column(shown.to) - left, heat.names.length, 0, heat.top, width, HEAT);
    }
    drawCursor();
  }

  function hatch(pen) {
    if (colours.hatch) return colours.hatch;
    const tile = document.createElement("canvas");
    tile.width = tile.height = 6;
    const small = tile.getContext("2d");
    small.strokeStyle = colours.rule;
    small.lineWidth = 1.5;
    for (const shift of [-6, 0, 6]) { small.moveTo(shift, 6); small.lineTo(shift + 6, 0); }
    small.stroke();
    return colours.hatch = pen.createPattern(tile, "repeat");
  }

  function drawRange(pen, { name, top, height: tall, low, high }) {  // the ends of a panel's axis, with its unit
    const unit = name.includes(", ") ? " " + name.split(", ").pop() : "";
    pen.font = "9px system-ui, sans-serif";
    pen.textAlign = "left";
    pen.lineWidth = 3;
    pen.strokeStyle = colours.paper;
    pen.fillStyle = colours.ink;
    for (const [value, base, y] of [[high, "top", top + 3], [low, "bottom", top + tall - 2]]) {
      pen.textBaseline = base;
      const text = (Number.isInteger(value) ? value : value.toFixed(2)) + unit;
      pen.strokeText(text, 3, y);
      pen.fillText(text, 3, y);
    }
  }

  function drawAxis(pen) {
    const least = (shown.to - shown.from) * 64 / Math.max(width, 1);
    const step = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600].find((one) => one >= least) || 7200;
    const digits = step < 0.1 ? 2 : step < 1 ? 1 : 0, last = panels[panels.length - 1], top = last ? last.top + last.height : 0;
    pen.font = "12px system-ui, sans-serif";
    pen.textBaseline = "middle";
    pen.textAlign = "center";
    for (let k = Math.ceil(shown.from / step); k * step <= shown.to; k++) {
      const place = x(k * step), text = clock(k * step, digits), half = pen.measureText(text).width / 2;
      pen.fillStyle = colours.rule;
      pen.fillRect(Math.round(place), top, 1, 4);
      pen.fillStyle = colours.muted;
      if (place > half && place < width - half) pen.fillText(text, place, top + 13);
    }
  }

  function drawCursor() {
    const pen = cursor.getContext("2d"), place = Math.round((x(pts[row]) - 0.5) * ratio) / ratio;  // on whole pixels
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    if (place < -1 || place > width + 1) return;
    pen.fillStyle = colours.paper;
    pen.fillRect(place - 1, 0, 3, height);
    pen.fillStyle = colours.ink;
    pen.fillRect(place, 0, 1, height);
  }

  const HIGHEST_ROWS = 8;
  let below = -1;  // row of the heat strip
  function writeHeat() {  // the row under the pointer, and the highest ones at the cursor
    if (!heat) return;
    const at = clip(Math.floor(((pts[row] + until(row)) / 2 - pts[0]) / span * heat.columns), 0, heat.columns - 1);
    const own = heat.names.map((name, k) => ({ name, k, value: heat.values[k * heat.columns + at] }));
    const text = ({ name, value }) => `${name} ${value === 255 ? "\u2013" : (heat.low + value / 254 * (heat.high - heat.low)).toFixed(2)}`;
    const highest = own.filter(({ value }) => value !== 255).sort((a, b) => b.value - a.value || a.k - b.k).slice(0, HIGHEST_ROWS);
    heat.value.textContent = [below < 0 ? "" : "\u25b8 " + text(own[below]), ...highest.map(text)].join("\n");
  }

  function write() {
    panels.forEach((panel, number) => {
      const { values: own, target, marks, low, high, digits } = panel, place = values[number];
      const number_of = (series) => series && series[row] !== MISSING ? (low + series[row] / HIGHEST * (high - low)).toFixed(digits) : "";
      let text = number_of(own) || (own ? "\u2013" : ""), wrong = false;
      if (marks) {
        const mark = marks[row];
        if (mark & LABELLED) text += mark & ACTIVE ? " \u25a0" : " \u25a1";
        wrong = (mark & LABELLED) && (mark & PREDICTED) && !(mark & ACTIVE) !== !(mark & DECIDED);
      } else if (target) text += (own ? " / " : "") + (number_of(target) || "\u2013");
      place.textContent = text;
      place.className = wrong ? "wrong" : "";
    });
    const state = states ? ", " + WORDS[states[row]] : "";
    const words = `row ${data.first + row} of ${data.rows}, ${clock(pts[row], 3)}${state}`;
    $("state").textContent = words;
    $("said").textContent = "";
    writeHeat();
    timeline.setAttribute("aria-valuenow", row);
    timeline.setAttribute("aria-valuetext", words);
  }

  function setRow(wanted) {
    row = clip(wanted, 0, count - 1);
    const seconds = shown.to - shown.from;
    if (pts[row] < shown.from || pts[row] > shown.to) look(pts[row] - seconds / 2, seconds); else drawCursor();
    write();
    drawBoxes();
  }

  function look(from, seconds) {  // shows so many seconds from then on, within the recording
    seconds = clip(seconds, Math.min(span, Math.max(20 * span / count, 0.05)), span);
    shown.from = clip(from, pts[0], end - seconds);
    shown.to = shown.from + seconds;
    draw();
  }
  const zoom = (factor, around) => { const seconds = (shown.to - shown.from) * factor; look(around - (around - shown.from) * factor, seconds); };

  // The video. Its own time 0 is the first row of the recording.
  const video = $("video"), screen = $("screen");
  let target = null, timer = 0;
  const rowInVideo = (time) => rowAt(time + data.start + 5e-5);
  function seek(wanted) {
    setRow(wanted);
    if (!video) return;
    target = row;
    if (!video.seeking && video.readyState > 0) moveVideo();
  }
  function moveVideo() {  // into the middle of the frame: its edges may be rounded
    const step = until(target) - pts[target];
    video.currentTime = pts[target] - data.start + Math.min(step / 2, 0.02);
  }
  function onFrame(now, about) {
    const own = rowInVideo(about.mediaTime);
    screen.dataset.shown = data.first + own;
    if (target === null) setRow(own);
    video.requestVideoFrameCallback(onFrame);
  }
  if (video) {
    video.addEventListener("seeked", () => {
      if (target === null) { if (!video.requestVideoFrameCallback) setRow(rowInVideo(video.currentTime)); return; }
      if (rowInVideo(video.currentTime) !== target) moveVideo(); else target = null;
    });
    video.addEventListener("loadedmetadata", () => { sizeBoxes(); if (target !== null) moveVideo(); });
    video.addEventListener("play", () => { target = null; });
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(onFrame);
    else video.addEventListener("timeupdate", () => { if (target === null) setRow(rowInVideo(video.currentTime)); });
    if (video.readyState > 0) queueMicrotask(() => sizeBoxes());
  }
  function play() {
    if (video) { if (video.paused) video.play(); else video.pause(); return; }
    if (timer) { cancelAnimationFrame(timer); timer = 0; return; }
    const begun = performance.now(), from = row === count - 1 ? pts[0] : pts[row];
    const step = (now) => {
      const time = from + (now - begun) / 1000;
      setRow(rowAt(time));
      timer = time < end ? requestAnimationFrame(step) : 0;
    };
    timer = requestAnimationFrame(step);
  }

  // Boxes and landmarks over the picture.
  const boxes = $("boxes");
  let scale = 1, offset = [0, 0];
  function sizeBoxes() {
    if (!boxes) return;
    const wide = video ? video.clientWidth : Math.min(data.size[0], screen.parentElement.clientWidth, 480);
    const tall = video ? video.clientHeight : data.size[1] * wide / data.size[0];
    scale = Math.min(wide / data.size[0], tall / data.size[1]);  // a player keeps the shape of a picture
    offset = [(wide - scale * data.size[0]) / 2, (tall - scale * data.size[1]) / 2];
    boxes.width = Math.round(wide * ratio);
    boxes.height = Math.round(tall * ratio);
    boxes.style.width = wide + "px";
    boxes.style.height = tall + "px";
    drawBoxes();
  }
  function drawBoxes() {
    if (!boxes) return;
    const pen = boxes.getContext("2d"), place = (value) => value / data.parts * scale;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, boxes.width, boxes.height);
    pen.translate(...offset);
    if (!states) return;
    const box = (series, at, colour, thick) => {
      const [left, top, right, bottom] = [0, 1, 2, 3].map((k) => place(series[at + k]));
      for (const [ink, line] of [["#000", thick + 1.5], [colour, thick]]) {
        pen.strokeStyle = ink;
        pen.lineWidth = line;
        pen.strokeRect(left, top, right - left, bottom - top);
      }
    };
    for (let k = starts[row]; k < starts[row + 1]; k++) box(others, 4 * k, "#e69f00", 1.25);
    if (states[row] !== SUBJECT) return;
    box(track, 14 * row, "#009e73", 2.5);
    for (let k = 4; k < 14; k += 2) {
      if (track[14 * row + k] === NOWHERE) continue;
      pen.beginPath();
      pen.arc(place(track[14 * row + k]), place(track[14 * row + k + 1]), 3, 0, 7);
      pen.fillStyle = "#fff";
      pen.fill();
      pen.lineWidth = 1.5;
      pen.strokeStyle = "#009e73";
      pen.stroke();
    }
  }

  // Keys, pointer, buttons, links.
  const after = (list) => list.find((one) => one > row), before = (list) => list.findLast((one) => one < row);
  const go = (wanted, what) => { if (wanted !== undefined) seek(wanted); else $("said").textContent = `No ${what} this row on this page.`; };
  const second = (sign) => { const there = rowAt(pts[row] + sign); return there === row ? row + sign : there; };
  const actions = {
    back: () => seek(row - 1), on: () => seek(row + 1), 
    gap: () => go(after(gaps), "gap after"), differ: () => go(after(differences), "disagreement after"),
    closer: () => zoom(0.5, pts[row]), further: () => zoom(2, pts[row]), all: () => look(pts[0], span),
  };
  const keys = {
    ArrowLeft: (e) => seek(row - (e.shiftKey ? 10 : 1)), ArrowDown: (e) => seek(row - (e.shiftKey ? 10 : 1)),
    ArrowRight: (e) => seek(row + (e.shiftKey ? 10 : 1)), ArrowUp: (e) => seek(row + (e.shiftKey ? 10 : 1)),
    PageUp: () => seek(second(1)), PageDown: () => seek(second(-1)), Home: () => seek(0), End: () => seek(count - 1),
    g: actions.gap, G: () => go(before(gaps), "gap before"), d: actions.differ,
    D: () => go(before(differences), "disagreement before"), " ": play,
    "+": actions.closer, "=": actions.closer, "-": actions.further, 0: actions.all,
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) return;
    const at = document.activeElement, own = at === timeline || at === video;
    if (at.closest("input, select, textarea") || (event.key === " " && at.closest("button, summary"))) return;  // theirs
    if (!own && ["ArrowUp", "ArrowDown", "PageUp", "PageDown"].includes(event.key)) return;  // they scroll
    if (at.closest(".list") && ["Home", "End"].includes(event.key)) return;
    event.preventDefault();
    keys[event.key](event);
  }, true);
  const pointed = (event) => seek(rowAt(timeAt(event.clientX - plot.getBoundingClientRect().left)));
  plot.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    plot.setPointerCapture(event.pointerId);
    pointed(event);
  });
  plot.addEventListener("pointermove", (event) => { if (plot.hasPointerCapture(event.pointerId)) pointed(event); });
  const over = (event) => {
    const y = event.clientY - plot.getBoundingClientRect().top - heat.top, inside = event.type !== "pointerleave" && y >= 0 && y < HEAT;
    below = inside ? Math.floor(y / HEAT * heat.names.length) : -1;
    writeHeat();
  };
  if (heat) for (const kind of ["pointermove", "pointerleave"]) plot.addEventListener(kind, over);
  plot.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    zoom(Math.exp(event.deltaY / 300), timeAt(event.clientX - plot.getBoundingClientRect().left));
  }, { passive: false });
  for (const button of $("tools").querySelectorAll("button")) button.addEventListener("click", () => actions[button.dataset.do]());
  function followLink() {
    const found = /^#row=(\d+)$/.exec(location.hash);
    if (found) seek(+found[1] - data.first);
  }
  document.addEventListener("click", (event) => {  // the same link again is no change of the address
    const link = event.target.closest && event.target.closest('a[href^="#row="]');
    if (link && link.hash === location.hash) followLink();
    const pressed = event.detail && (link || event.target.closest("button, summary"));  // by a pointer: keys go to the time line
    if (pressed) timeline.focus({ preventScroll: true });
  });
  addEventListener("hashchange", followLink);
  document.addEventListener("theme", () => { colours = {}; readColours(); draw(); });

  $("tools").hidden = timeline.hidden = false;
  $("tools").querySelector("[data-do=gap]").hidden = !gaps.length;
  $("tools").querySelector("[data-do=differ]").hidden = !differences.length;
  if (screen && !video) screen.classList.add("empty");
  layOut();
  if (heat) heat.picture = paintHeat();
  readColours();
  new ResizeObserver(resize).observe(plot);
  if (video) new ResizeObserver(sizeBoxes).observe(video);
  resize();
  write();
  followLink();
  document.documentElement.dataset.ready = performance.now().toFixed(0);
})();
