// Draws the pictures of physical memory: one canvas a zone, at the time that the slider says.
"use strict";

(() => {
  const COLUMNS = 128;
  const CELL = 6; // pixels of a canvas, one of them the gap
  const USE_BITS = 4;
  const USE_MASK = (1 << USE_BITS) - 1;
  const pictures = JSON.parse(document.getElementById("pictures").textContent);

  // Each picture is what differs from the one before, in runs of (length - 1, byte).
  function unpack(packed, nrCells) {
    let before = new Uint8Array(nrCells);
    return packed.map((text) => {
      const runs = atob(text);
      const now = before.slice();
      let at = 0;
      for (let i = 0; i < runs.length; i += 2) {
        const end = at + runs.charCodeAt(i) + 1;
        const change = runs.charCodeAt(i + 1);
        for (; at < end; at += 1) {
          now[at] ^= change;
        }
      }
      before = now;
      return now;
    });
  }

  function mix(one, other, share) {
    const parts = [one, other].map((hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)));
    return `rgb(${parts[0].map((value, i) => Math.round(value + (parts[1][i] - value) * share)).join(",")})`;
  }

  function coloursOf(picture) {
    const style = getComputedStyle(document.documentElement);
    const named = (name) => style.getPropertyValue(name).trim();
    const uses = picture.uses.map(([name]) => named(name));
    const free = picture.uses.findIndex(([, words]) => words.startsWith("free, in"));
    return (code) => {
      const use = code & USE_MASK;
      const order = code >> USE_BITS;
      return use === free ? mix(named(picture.freeSmall), uses[free], order / picture.largestOrder) : uses[use];
    };
  }

  function wordsOf(picture, zone, index, code) {
    const first = Math.max((Math.floor(zone.first / picture.cellFrames) + index) * picture.cellFrames, zone.first);
    const cellEnd = (Math.floor(zone.first / picture.cellFrames) + index + 1) * picture.cellFrames;
    const last = Math.min(cellEnd, zone.end) - 1;
    const words = picture.uses[code & USE_MASK][1].replace(/order \d+/, `order ${code >> USE_BITS}`);
    return `Frames 0x${first.toString(16)} to 0x${last.toString(16)}: ${words}.`;
  }

  const redraws = [];
  for (const [name, picture] of Object.entries(pictures)) {
    const element = document.getElementById(name);
    const slider = element.querySelector("input");
    const said = element.querySelector("output");
    const pointed = element.querySelector(".pointed");
    const canvases = [...element.querySelectorAll("canvas")];
    const nrCells = picture.zones.reduce((sum, zone) => sum + zone.cells, 0);
    const moments = unpack(picture.cells, nrCells);

    const draw = () => {
      const moment = Number(slider.value);
      said.textContent = picture.times[moment];
      slider.setAttribute("aria-valuetext", picture.times[moment]);
      const colour = coloursOf(picture);
      let base = 0;
      picture.zones.forEach((zone, number) => {
        const canvas = canvases[number];
        canvas.width = COLUMNS * CELL;
        canvas.height = Math.ceil(zone.cells / COLUMNS) * CELL;
        const context = canvas.getContext("2d");
        for (let index = 0; index < zone.cells; index += 1) {
          context.fillStyle = colour(moments[moment][base + index]);
          context.fillRect((index % COLUMNS) * CELL, Math.floor(index / COLUMNS) * CELL, CELL - 1, CELL - 1);
        }
        base += zone.cells;
      });
    };

    let base = 0;
    picture.zones.forEach((zone, number) => {
      const first = base;
      canvases[number].addEventListener("pointermove", (event) => {
        const box = canvases[number].getBoundingClientRect();
        const column = Math.floor(((event.clientX - box.left) / box.width) * COLUMNS);
        const row = Math.floor(((event.clientY - box.top) / box.height) * Math.ceil(zone.cells / COLUMNS));
        const index = row * COLUMNS + column;
        if (column >= 0 && column < COLUMNS && index >= 0 && index < zone.cells) {
          pointed.textContent = wordsOf(picture, zone, index, moments[Number(slider.value)][first + index]);
        }
      });
      base += zone.cells;
    });
    slider.addEventListener("input", draw);
    redraws.push(draw);
    draw();
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    redraws.forEach((draw) => draw());
  });
})();
