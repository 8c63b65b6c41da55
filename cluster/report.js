// Draws the report's charts, in the colours of the theme that is on, and again when the theme changes.
"use strict";

(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const touch = matchMedia("(pointer: coarse)").matches;

  // "--unique" in a figure stands for that variable of the style sheet. Rows of numbers are left alone.
  function resolve(value, style) {
    if (typeof value === "string") {
      return value.startsWith("--") ? style.getPropertyValue(value).trim() : value;
    }
    if (Array.isArray(value)) {
      return typeof value[0] === "number" ? value : value.map((item) => resolve(item, style));
    }
    if (value !== null && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, resolve(item, style)]));
    }
    return value;
  }

  const axisStyle = {
    gridcolor: "--grid",
    zerolinecolor: "--grid",
    linecolor: "--edge",
    tickfont: { color: "--soft" },
    automargin: true,
    fixedrange: touch,
  };

  function layoutOf(figure, height) {
    const layout = {
      height,
      margin: { l: 8, r: 14, t: 8, b: 8 },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: "--ink" },
      hovermode: "x unified",
      hoverlabel: { bgcolor: "--surface", bordercolor: "--edge", font: { color: "--ink" } },
      showlegend: false,
      dragmode: touch ? false : "zoom",
      bargap: 0.35,
      ...figure.layout,
    };
    for (const [key, axis] of Object.entries(layout)) {
      if (/^[xy]axis\d*$/.test(key)) {
        const title = { ...axis.title, font: { color: "--soft", size: 12 } };
        layout[key] = { ...axisStyle, ...axis, title };
      }
    }
    return layout;
  }

  const config = { responsive: true, displayModeBar: false, displaylogo: false };

  function drawAll() {
    const style = getComputedStyle(document.documentElement);
    for (const element of document.querySelectorAll(".chart")) {
      const figure = figures[element.id];
      const layout = layoutOf(figure, Number(element.dataset.height));
      Plotly.react(element, resolve(figure.data, style), resolve(layout, style), config);
    }
  }

  // Legends are part of the page; each entry shows or hides its curve, and a new theme keeps that.
  for (const button of document.querySelectorAll(".legend button")) {
    button.addEventListener("click", () => {
      const shown = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(shown));
      figures[button.dataset.chart].data[Number(button.dataset.trace)].visible = shown;
      drawAll();
    });
  }

  drawAll();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
})();
