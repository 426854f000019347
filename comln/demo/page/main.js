// The page: a task that a person makes, one request that adapts to it, and a slider along the flow that it brings.

import { largest, locate, logitsAt, makeScale, numberAt, percent, shortNumber, softmax } from "./flow.js";
import { makePlot } from "./plot.js";

const COLOURS = 8;
const AUTOMATIC_AFTER = 400; // milliseconds without another change
const PLAY_FOR = 7000; // milliseconds
const LARGEST_FILE = 2 ** 24;
const NO_TICKS_BEFORE = 0.07; // on the slider, where 0 stands
const TOKEN = document.querySelector('meta[name="token"]').content;

const byId = (id) => document.getElementById(id);

// Picture: {src, label, asked}, `asked` being what the server is told; `gallery`: [class, example] where it is from there;
// `fit`: its bar, where it is an example of a class.
const state = {
  run: null,
  classes: [], // {name, examples: [Picture]}
  queries: [], // [Picture]
  flow: null, // what the server answered, with what is computed from it
  time: 0,
  changes: 0, // made to the task so far
  busy: false,
  pickFor: null, // the class or the queries that the dialog adds to
};

// --- Small helpers -------------------------------------------------------------------------------------------------

function make(name, properties = {}, ...children) {
  const made = document.createElement(name);
  const { dataset = {}, aria = {}, ...rest } = properties;
  Object.assign(made, rest);
  Object.assign(made.dataset, dataset);
  for (const [key, value] of Object.entries(aria)) made.setAttribute(`aria-${key}`, value);
  made.append(...children);
  return made;
}

function button(text, onclick, properties = {}) {
  return make("button", { type: "button", textContent: text, onclick, ...properties });
}

function say(text) {
  byId("status").textContent = text;
}

// - source: what the messages are about; adapting clears only its own.
function complain(messages, source = "task") {
  byId("problem").dataset.source = source;
  const shown = messages.slice(0, 3).join("\n");
  byId("problem-text").textContent = messages.length > 3 ? `${shown}\n... and ${messages.length - 3} more.` : shown;
  byId("problem").hidden = messages.length === 0;
}

function nameOf(group, index) {
  return group.name || `class ${index + 1}`;
}

// Ask the server; a refusal becomes an Error with its message.
async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: { ...options.headers, "X-Comln-Token": TOKEN } });
  } catch {
    throw new Error("The server does not answer. Is `comln demo` still running?");
  }
  if (answer.ok) return answer;
  const { error } = await answer.json().catch(() => ({ error: `The server answered ${answer.status}.` }));
  throw new Error(error);
}

// --- The task ------------------------------------------------------------------------------------------------------

const roomFor = {
  support: () =>
    state.run.limits.support - state.classes.reduce((count, group) => count + group.examples.length, 0),
  queries: () => state.run.limits.queries - state.queries.length,
};

// What the pictures of a class or of the queries are kept in.
function placeOf(group) {
  return group === null
    ? { pictures: state.queries, room: roomFor.queries, kind: "queries" }
    : { pictures: group.examples, room: roomFor.support, kind: "examples" };
}

function changed() {
  state.changes += 1;
  renderTask();
  byId("results").classList.toggle("stale", state.flow !== null);
  const change = state.changes;
  if (byId("automatic").checked && isReady())
    setTimeout(() => change === state.changes && adapt(), AUTOMATIC_AFTER);
}

function isReady() {
  return state.classes.filter((group) => group.examples.length > 0).length >= 2;
}

function addClass() {
  if (state.classes.length >= state.run.limits.classes) {
    complain([`There is room for ${state.run.limits.classes} classes.`]);
    return null;
  }
  const group = { name: "", examples: [] };
  state.classes.push(group);
  return group;
}

async function addFiles(group, files) {
  const { pictures, room, kind } = placeOf(group);
  const problems = [];
  const wanted = [...files];
  const before = pictures.length;
  if (wanted.length > room()) {
    const over = wanted.length - room();
    const left = over === 1 ? "file is" : "files are";
    problems.push(`There is room for ${room()} more ${kind}; ${over} ${left} left out.`);
    wanted.length = room();
  }
  for (const [number, file] of wanted.entries()) {
    say(`Reading picture ${number + 1} of ${wanted.length} ...`);
    try {
      pictures.push(await readFile(file));
    } catch (error) {
      problems.push(error.message);
    }
  }
  say("");
  complain(problems);
  if (pictures.length > before) changed();
  cardOf(group)?.querySelector("input[type=file]").focus();
}

async function readFile(file) {
  if (file.size > LARGEST_FILE) throw new Error(`${file.name}: it is too large, more than 16 MB.`);
  const answer = await ask(`/api/picture?name=${encodeURIComponent(file.name)}`, {
    method: "POST",
    // What it is, its content says, not its name, which is all that the browser goes by.
    headers: { "Content-Type": "application/octet-stream" },
    body: file,
  });
  const src = await asDataURL(await answer.blob());
  return { src, label: file.name.replace(/\.[^.]*$/, ""), asked: { png: src.slice(src.indexOf(",") + 1) } };
}

function asDataURL(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

// Another example of a class of the gallery, which is not on the page yet if there is one.
function fromGallery(number) {
  const { label, count } = state.run.gallery[number];
  const used = new Set(
    [...state.classes.flatMap((group) => group.examples), ...state.queries]
      .filter((picture) => picture.gallery?.[0] === number)
      .map((picture) => picture.gallery[1]),
  );
  const free = [...Array(count).keys()].filter((example) => !used.has(example));
  const choice = free.length ? free : [...Array(count).keys()];
  const example = choice[Math.floor(Math.random() * choice.length)];
  return {
    src: `/gallery/${number}/${example}.png`,
    label,
    asked: { gallery: [number, example] },
    gallery: [number, example],
  };
}

function showExample() {
  const numbers = [...state.run.gallery.keys()];
  const ways = Math.min(state.run.ways, numbers.length, COLOURS);
  for (let i = 0; i < ways; i++) {
    const j = i + Math.floor(Math.random() * (numbers.length - i));
    [numbers[i], numbers[j]] = [numbers[j], numbers[i]];
  }
  state.classes = [];
  state.queries = [];
  for (const number of numbers.slice(0, ways)) {
    const group = addClass();
    group.name = state.run.gallery[number].label;
    group.examples.push(fromGallery(number), fromGallery(number));
  }
  for (const number of numbers.slice(0, ways)) state.queries.push(fromGallery(number));
  changed();
}

function renderTask() {
  byId("classes").replaceChildren(...state.classes.map(classCard));
  byId("queries").replaceChildren(...pictureRow(null, "Queries"), ...adders(null, "the queries"));
  byId("add-class").disabled = state.classes.length >= state.run.limits.classes;
  byId("adapt").disabled = !isReady() || state.busy;
  if (state.flow) showFit(locate(state.flow.times, state.time));
}

// The card of a class, or of the queries; undefined if the class has been removed.
function cardOf(group) {
  return group === null ? byId("queries") : byId("classes").children[state.classes.indexOf(group)];
}

function classCard(group, index) {
  const name = make("input", {
    type: "text",
    value: group.name,
    placeholder: `class ${index + 1}`,
    maxLength: 40,
    aria: { label: `Name of class ${index + 1}` },
    oninput: () => {
      group.name = name.value.trim();
      rename(group, nameOf(group, index));
    },
  });
  const remove = button("✕", () => removeClass(index), {
    className: "remove-class",
    aria: { label: `Remove ${nameOf(group, index)}` },
  });
  const head = make("div", { className: "head" }, make("span", { className: `chip way-${index % COLOURS}` }), name, remove);
  const card = make("div", { className: "card class" }, head, ...pictureRow(group, nameOf(group, index)));
  card.append(...adders(group, nameOf(group, index)));
  card.setAttribute("role", "group");
  card.setAttribute("aria-label", nameOf(group, index));
  acceptDrops(card, group);
  return card;
}

function removeClass(index) {
  state.classes.splice(index, 1);
  changed();
  (document.querySelectorAll(".remove-class")[Math.max(index - 1, 0)] ?? byId("add-class")).focus();
}

function pictureRow(group, owner) {
  const { pictures } = placeOf(group);
  if (!pictures.length) return [];
  const row = make("ul", { className: "pictures" });
  pictures.forEach((picture, index) => {
    const image = make("img", { src: picture.src, alt: picture.label, title: picture.label, className: "picture" });
    const remove = button("✕", () => removePicture(group, index), {
      className: "remove",
      aria: { label: `Remove picture ${index + 1} (${picture.label}) of ${owner}` },
    });
    picture.fit = make("span", { className: "fit" });
    row.append(make("li", {}, image, make("span", { className: "rail", aria: { hidden: "true" } }, picture.fit), remove));
  });
  return [row];
}

function removePicture(group, index) {
  placeOf(group).pictures.splice(index, 1);
  changed();
  say("Picture removed.");
  const card = cardOf(group);
  (card.querySelectorAll(".remove")[Math.max(index - 1, 0)] ?? card.querySelector("input[type=file]"))?.focus();
}

function adders(group, owner) {
  const file = make("input", {
    type: "file",
    accept: "image/*,.avif,.ico,.jp2,.pbm,.pgm,.ppm,.qoi,.sgi,.tif,.tiff",
    multiple: true,
    aria: { label: `Add pictures to ${owner}` },
    onchange: async () => {
      await addFiles(group, file.files);
      // So that the same file can be chosen again.
      file.value = "";
    },
  });
  const upload = make("label", { className: "upload" }, file, "Drop or choose pictures");
  const pick = button("Pick", () => openPicker(group), { aria: { label: `Pick for ${owner}`, haspopup: "dialog" } });
  return [make("div", { className: "adders" }, upload, pick)];
}

function acceptDrops(card, group) {
  card.addEventListener("dragover", (event) => {
    event.preventDefault();
    card.classList.add("over");
  });
  card.addEventListener("dragleave", () => card.classList.remove("over"));
  card.addEventListener("drop", (event) => {
    event.preventDefault();
    card.classList.remove("over");
    if (event.dataTransfer.files.length) addFiles(group, event.dataTransfer.files);
  });
}

// --- The dialog with the gallery -----------------------------------------------------------------------------------

function openPicker(group) {
  state.pickFor = group;
  const owner = group === null ? "the queries" : nameOf(group, state.classes.indexOf(group));
  byId("picker-heading").textContent = `Pick for ${owner}`;
  byId("picker-status").textContent = "";
  if (!byId("picker-classes").children.length) byId("picker-classes").append(...state.run.gallery.map(galleryButton));
  byId("picker").showModal();
}

function galleryButton({ name, label }, number) {
  const image = make("img", { src: `/gallery/${number}/0.png`, alt: "", loading: "lazy", className: "picture" });
  const dataset = { words: `${name} ${label}`.toLowerCase() };
  const choice = button("", () => pick(number), { title: name, dataset, aria: { label: name } });
  choice.append(image);
  return choice;
}

function pick(number) {
  const group = state.pickFor;
  const { pictures, room, kind } = placeOf(group);
  if (room() <= 0) {
    byId("picker-status").textContent = `There is no room for more ${kind}.`;
    return;
  }
  const picture = fromGallery(number);
  pictures.push(picture);
  if (group !== null && !group.name) group.name = picture.label;
  byId("picker-status").textContent = `${picture.label}: ${pictures.length} ${kind} now.`;
  changed();
}

function searchGallery() {
  const word = byId("picker-search").value.trim().toLowerCase();
  for (const choice of byId("picker-classes").children) choice.hidden = !choice.dataset.words.includes(word);
}

function closePicker() {
  cardOf(state.pickFor)?.querySelector(".adders button").focus();
}

// --- Adapting ------------------------------------------------------------------------------------------------------

async function adapt() {
  if (state.busy || !isReady()) return;
  const change = state.changes;
  const classes = state.classes
    .map((group, index) => ({ group, colour: index % COLOURS, index, name: nameOf(group, index) }))
    .filter(({ group }) => group.examples.length > 0);
  const support = classes.flatMap(({ group }) => group.examples);
  const queries = [...state.queries];
  const task = {
    classes: classes.map(({ group, name }) => ({ name, examples: group.examples.map((picture) => picture.asked) })),
    queries: queries.map((picture) => picture.asked),
  };
  state.busy = true;
  byId("adapt").disabled = true;
  say("Adapting ...");
  const patience = setTimeout(() => say("Adapting; the first task of a size takes some seconds ..."), 1500);
  try {
    const began = performance.now();
    const answer = await ask("/api/adapt", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(task),
    });
    showFlow(await answer.json(), classes, support, queries);
    byId("results").classList.toggle("stale", change !== state.changes);
    say(`Adapted in ${((performance.now() - began) / 1000).toFixed(1)} s.`);
    if (byId("problem").dataset.source === "adapting") complain([]);
  } catch (error) {
    say("");
    complain([error.message], "adapting");
  } finally {
    clearTimeout(patience);
    state.busy = false;
    byId("adapt").disabled = !isReady();
  }
  if (change !== state.changes && byId("automatic").checked) adapt();
}

// - classes: of the flow, with their place on the page when it was asked for. support: the pictures of all of them.
function showFlow(flow, classes, support, queries) {
  const scale = makeScale(flow.times);
  const positions = flow.times.map(scale.position);
  const learned = scale.position(flow.horizon);
  const common = { positions, learned };

  const loss = totalPlot("Support loss against time", flow.support_loss, common);
  const norm = totalPlot("Norm of the weights against time", flow.norm, common);
  byId("loss-plot").replaceChildren(loss.svg);
  byId("norm-plot").replaceChildren(norm.svg);

  const cards = queries.map((picture, index) => answerCard(picture, index, flow.logits[index], classes, common));
  byId("answers").replaceChildren(...cards.map((card) => card.element));
  if (!queries.length)
    byId("answers").append(make("p", { className: "small", textContent: "Add pictures that it should recognise." }));

  state.flow = { ...flow, scale, learned, plots: { loss, norm }, cards, classes, support };
  byId("note").textContent = flow.note;
  byId("learned-mark").style.setProperty("--at", learned);
  byId("ticks").replaceChildren(...tickMarks(scale));
  byId("empty").hidden = true;
  byId("results").hidden = false;
  moveTo(flow.horizon);
}

function tickMarks(scale) {
  const marks = [{ text: "0", at: 0 }];
  const powers = scale.decades();
  const every = Math.ceil(powers.length / 7);
  powers.forEach((power, index) => {
    if (index % every || scale.position(10 ** power) < NO_TICKS_BEFORE) return;
    const text = power >= -3 && power <= 4 ? shortNumber(10 ** power) : `1e${power}`;
    marks.push({ text, at: scale.position(10 ** power) });
  });
  return marks.map(({ text, at }) => {
    const mark = make("span", { textContent: text });
    mark.style.setProperty("--at", at);
    return mark;
  });
}

function totalPlot(title, values, common) {
  const top = Math.max(...values, 1e-9) * 1.05;
  const ticks = [0, top / 1.05].map((value) => ({ value, text: shortNumber(value) }));
  return makePlot({ ...common, title, curves: [{ values, way: null }], range: [0, top], ticks, height: 84 });
}

// What the page shows of one query; `moveTo` brings it to a time.
function answerCard(picture, index, rows, classes, common) {
  const probabilities = rows.map(softmax);
  const curves = classes.map(({ index: way }, column) => ({ way, values: probabilities.map((row) => row[column]) }));
  const ticks = [0, 0.5, 1].map((value) => ({ value, text: String(value) }));
  const title = `Class probabilities of query ${index + 1} against time`;
  const plot = makePlot({ ...common, title, curves, range: [0, 1], ticks, height: 112 });

  const labels = classes.map(({ name }) => make("span", { className: "name", textContent: name, title: name }));
  const bars = classes.map(({ colour }) => make("span", { className: `bar way-${colour}` }));
  const numbers = classes.map(() => make("span", { className: "number" }));
  const list = make("ul", { className: "bars" });
  classes.forEach((_, column) =>
    list.append(
      make("li", {}, labels[column], make("span", { className: "full" }, bars[column]), numbers[column]),
    ),
  );
  const verdict = make("p", { className: "verdict" });
  const chip = make("span", { className: "chip" });
  const words = make("span");
  verdict.append(chip, words);
  const element = make(
    "article",
    { className: "card answer", aria: { label: `Query ${index + 1}` } },
    make("div", { className: "who" }, make("img", { src: picture.src, alt: picture.label, className: "picture" }), verdict),
    list,
    make("div", { className: "plot" }, plot.svg),
  );

  function moveTo(position, where) {
    const now = softmax(logitsAt(rows, where));
    const best = largest(now);
    now.forEach((probability, column) => {
      bars[column].style.transform = `scaleX(${probability.toFixed(4)})`;
      numbers[column].textContent = percent(probability);
      list.children[column].classList.toggle("best", column === best);
    });
    chip.className = `chip way-${classes[best].colour}`;
    words.textContent = `${labels[best].textContent} ${percent(now[best])}`;
    plot.moveTo(position, now);
    return words.textContent;
  }
  return { element, moveTo, labels };
}

function rename(group, name) {
  const column = state.flow?.classes.findIndex((one) => one.group === group) ?? -1;
  if (column < 0) return;
  for (const card of state.flow.cards) {
    card.labels[column].textContent = name;
    card.labels[column].title = name;
  }
  moveTo(state.time);
}

// --- Moving along the flow: nothing is asked of the server ---------------------------------------------------------

function moveTo(time) {
  const { flow } = state;
  const { scale } = flow;
  const slider = byId("time");
  const position = scale.position(time);
  const where = locate(flow.times, time);
  state.time = time;
  slider.value = Math.round(position * slider.max);
  slider.style.setProperty("--at", position);

  const loss = numberAt(flow.support_loss, where);
  const norm = numberAt(flow.norm, where);
  const atLearned = time === flow.horizon;
  byId("time-value").textContent = `${shortNumber(time)}${atLearned ? ", the learned T" : ""}`;
  byId("loss-value").textContent = shortNumber(loss);
  byId("norm-value").textContent = shortNumber(norm);
  flow.plots.loss.moveTo(position, [loss]);
  flow.plots.norm.moveTo(position, [norm]);
  showFit(where);
  const verdicts = flow.cards.map((card) => card.moveTo(position, where));
  const spoken = verdicts.slice(0, 3).map((verdict, index) => `query ${index + 1}: ${verdict}`);
  slider.setAttribute(
    "aria-valuetext",
    [`${shortNumber(time)}${atLearned ? ", the learned T" : ""}`, `support loss ${shortNumber(loss)}`, ...spoken].join("; "),
  );
}

// Below each example, how probable its own class is to the classifier.
function showFit(where) {
  state.flow.support.forEach((picture, index) => {
    const probability = numberAt(state.flow.support_probabilities[index], where);
    picture.fit.style.transform = `scaleX(${probability.toFixed(4)})`;
  });
}

function slide() {
  const slider = byId("time");
  const { scale, learned, horizon } = state.flow;
  // The learned T lies between two steps of the slider: the nearest step stands for it.
  moveTo(Number(slider.value) === Math.round(learned * slider.max) ? horizon : scale.time(slider.value / slider.max));
}

let playing = 0;

function play() {
  if (playing) return stop();
  byId("play").setAttribute("aria-pressed", "true");
  byId("play").textContent = "Pause";
  const position = state.flow.scale.position(state.time);
  const from = position > 0.99 ? 0 : position;
  let began = null;
  const step = (now) => {
    began ??= now;
    const at = Math.min(from + (now - began) / PLAY_FOR, 1);
    moveTo(state.flow.scale.time(at));
    if (at < 1) playing = requestAnimationFrame(step);
    else stop();
  };
  playing = requestAnimationFrame(step);
}

function stop() {
  cancelAnimationFrame(playing);
  playing = 0;
  byId("play").setAttribute("aria-pressed", "false");
  byId("play").textContent = "Play";
}

// --- The beginning -------------------------------------------------------------------------------------------------

function describeRun({ title, recipe, step, horizon, per_task: perTask, size }) {
  document.title = `${title}: comln`;
  byId("title").textContent = title;
  const learned = perTask ? `T learned for each task, around ${shortNumber(horizon)}` : `learned T = ${shortNumber(horizon)}`;
  byId("about").textContent = `${recipe}, after ${step} updates; ${learned}; pictures of ${size} × ${size} pixels`;
}

function listen() {
  byId("add-class").onclick = () => {
    if (!addClass()) return;
    renderTask();
    byId("classes").lastElementChild.querySelector("input").focus();
  };
  byId("example").onclick = showExample;
  byId("adapt").onclick = adapt;
  byId("automatic").onchange = () => byId("automatic").checked && adapt();
  byId("time").oninput = () => {
    stop();
    slide();
  };
  byId("play").onclick = play;
  byId("learned").onclick = () => {
    stop();
    moveTo(state.flow.horizon);
  };
  byId("picker-search").oninput = searchGallery;
  byId("picker-close").onclick = () => byId("picker").close();
  byId("picker").onclose = closePicker;
  byId("problem-close").onclick = () => complain([]);
  acceptDrops(byId("queries"), null);
  // A picture that misses its place must not replace the page.
  for (const kind of ["dragover", "drop"]) window.addEventListener(kind, (event) => event.preventDefault());
}

try {
  state.run = await (await ask("/api/run")).json();
  describeRun(state.run);
  addClass();
  addClass();
  renderTask();
  listen();
  document.documentElement.dataset.ready = "true";
} catch (error) {
  complain([error.message]);
}
