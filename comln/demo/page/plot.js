// A small picture of curves against time, with a line at the learned T and one at the time of the slider.

const SPACE = "http://www.w3.org/2000/svg";
const WIDTH = 320;
const LEFT = 30;
const RIGHT = 6;
const TOP = 6;
const BOTTOM = 14;
// So that curves can be told apart without their colours.
const DASHES = ["", "7 3", "2 3", "8 3 2 3"];
const COLOURS = 8;

function element(name, attributes = {}, text = "") {
  const made = document.createElementNS(SPACE, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  return made;
}

// - positions: of the times, from 0 to 1. learned: position of T.
// - curves: [{values, way}], way null for a curve that is of no class.
// - range: [smallest, largest] value. ticks: [{value, text}].
// Returns the picture, and a function that takes where the slider is and the values there.
export function makePlot({ title, positions, learned, curves, range, ticks, height = 96 }) {
  const svg = element("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": title });
  const across = (position) => LEFT + position * (WIDTH - LEFT - RIGHT);
  const up = (value) =>
    height - BOTTOM - ((value - range[0]) / (range[1] - range[0])) * (height - TOP - BOTTOM);

  for (const { value, text } of ticks) {
    svg.append(element("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: up(value), y2: up(value) }));
    svg.append(element("text", { class: "tick", x: LEFT - 4, y: up(value) + 3, "text-anchor": "end" }, text));
  }
  svg.append(
    element("line", { class: "learned", x1: across(learned), x2: across(learned), y1: TOP - 4, y2: height - BOTTOM }),
    element("text", { class: "tick", x: across(learned), y: height - 3, "text-anchor": "middle" }, "T"),
  );
  const cursor = element("line", { class: "cursor", y1: TOP - 4, y2: height - BOTTOM });
  svg.append(cursor);

  const dots = curves.map(({ values, way }) => {
    const path = values.map((value, i) => `${i ? "L" : "M"}${across(positions[i]).toFixed(1)} ${up(value).toFixed(1)}`);
    const kind = way === null ? "plain" : `way-${way % COLOURS}`;
    const dash = way === null ? "" : DASHES[Math.floor(way / COLOURS) % DASHES.length];
    svg.append(element("path", { class: `curve ${kind}`, d: path.join(""), "stroke-dasharray": dash }));
    const dot = element("circle", { class: `dot ${kind}`, r: 3.5 });
    return dot;
  });
  svg.append(...dots);

  function moveTo(position, values) {
    const x = across(position).toFixed(1);
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    dots.forEach((dot, index) => {
      dot.setAttribute("cx", x);
      dot.setAttribute("cy", up(values[index]).toFixed(1));
    });
  }
  return { svg, moveTo };
}
