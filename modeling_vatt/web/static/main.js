// The page: searching, filtering, and the three views.

import { bytes, fileOf, folderOf, length, number, pictureUrl, plural, span } from "./format.js";
import { MomentMap } from "./map.js";
import { Player } from "./player.js";

const at = (id) => document.getElementById(id);
const state = { info: null, file: null, last: null, moments: [], request: null };
const player = new Player();
const play = (list, place) => {
  if (state.info?.name === null) fail("The videos themselves are not on this machine, only their index.");
  else player.open(list, place);
};
const map = new MomentMap(play);

function element(tag, name, text) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
}

const say = (text) => (at("status").textContent = text);

function fail(text) {
  at("alert").textContent = text ?? "";
  at("alert").hidden = !text;
}

/** The JSON of an answer; throws a message for people. */
async function ask(url, options = {}) {
  let response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is it still running?");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error ?? `The server answers ${response.status}.`);
  return answer;
}

// --- searching ---

function parameters() {
  const chosen = new URLSearchParams({ top_k: at("count").value });
  if (at("folder").value) chosen.set("folder", at("folder").value);
  const score = Number(at("score").value);
  if (score >= 0) chosen.set("min_score", score.toFixed(2));
  return chosen;
}

/** Repeats the last search, with the filters as they are now. */
async function search() {
  const last = state.last;
  if (!last) return;
  state.request?.abort();
  const request = new AbortController();
  state.request = request;
  fail();
  say("Searching…");
  document.body.classList.add("busy");
  try {
    const chosen = parameters();
    let answer;
    if (last.file) {
      chosen.set("by", last.by);
      chosen.set("name", last.file.name.slice(0, 200));
      answer = await ask(`/api/search?${chosen}`, { method: "POST", body: last.file, signal: request.signal });
    } else {
      chosen.set("q", last.text);
      answer = await ask(`/api/search?${chosen}`, { signal: request.signal });
    }
    show(answer, last);
  } catch (error) {
    if (error.name === "AbortError") return;
    clear();
    say("");
    fail(error.message);
  } finally {
    if (state.request === request) document.body.classList.remove("busy");
  }
}

function describe(last) {
  if (!last.file) return `“${last.text}”`;
  return `the ${last.by === "video" ? "pictures" : "sound"} of ${last.file.name}`;
}

function clear() {
  state.moments = [];
  at("moments").replaceChildren();
  at("nothing").hidden = true;
  map.setResults([]);
}

function show(answer, last) {
  clear();
  state.moments = answer.moments;
  at("moments").append(...answer.moments.map(card));
  map.setResults(answer.moments);
  const short = describe(last).length > 80 ? `${describe(last).slice(0, 79)}…` : describe(last);
  if (answer.moments.length) {
    const seconds = answer.seconds < 0.995 ? `${Math.max(1, Math.round(answer.seconds * 1000))} ms` : `${answer.seconds.toFixed(1)} s`;
    say(`${plural(answer.moments.length, "moment")} for ${short} in ${seconds}`);
    warn(answer.unknown, last.text);
  } else {
    say(`Nothing found for ${short}`);
    const filtered = at("folder").value || Number(at("score").value) >= 0;
    nothing("Nothing found", filtered ? "Lower the minimum score, or search all folders." : "Try other words, or another file.");
  }
}

/** Words that the model has never seen say nothing to it, whatever it finds. */
function warn(unknown, text) {
  if (!unknown?.length) return;
  const words = unknown.slice(0, 5).map((word) => `“${word.slice(0, 40)}”`).join(", ");
  const all = unknown.length === new Set(text.split(" ")).size;
  fail(`The model does not know ${words}${unknown.length > 5 ? " and others" : ""}` + (all ? ": these results mean nothing." : "; it looks for the other words."));
}

function nothing(title, text) {
  at("nothing").replaceChildren(element("h2", "", title), element("p", "", text));
  at("nothing").hidden = false;
}

/** A moment among others; a sample has neither ranks nor scores. */
function card(moment, place, list) {
  const ranked = moment.score !== undefined;
  const item = at("card").content.firstElementChild.cloneNode(true);
  const part = (selector) => item.querySelector(selector);
  part("button").addEventListener("click", () => play(list, place));
  const image = part("img");
  image.addEventListener("error", () => image.classList.add("missing"));
  if (state.info?.name === null) image.classList.add("missing");
  else image.src = pictureUrl(moment);
  part(".rank").textContent = place + 1;
  part(".rank").hidden = part(".score").hidden = !ranked;
  part(".time").textContent = span(moment);
  part("b").textContent = fileOf(moment.path);
  part("b").title = moment.path;
  part(".where").textContent = folderOf(moment.path);
  if (ranked) {
    part(".score i").style.setProperty("--share", `${100 * Math.max(0, Math.min(1, moment.score))}%`);
    part(".score em").textContent = moment.score.toFixed(3);
  }
  return item;
}

function searchText(text) {
  const limit = state.info?.max_query_characters ?? Infinity;
  if (!text) {
    fail("Type what you look for, or choose a sound or a clip.");
    return;
  }
  if (text.length > limit) {
    fail(`The query has ${number(text.length)} characters; at most ${number(limit)} are allowed. Say it in fewer words.`);
    return;
  }
  forget();
  state.last = { text };
  history.replaceState(null, "", `#q=${encodeURIComponent(text)}`);
  if (at("map").hidden) select("results");
  search();
}

function searchFile() {
  const file = state.file;
  if (!file) return;
  const limit = state.info?.max_upload_bytes ?? Infinity;
  if (file.size > limit) {
    fail(`${file.name} has ${bytes(file.size)}; at most ${bytes(limit)} are allowed. Cut out a part of it.`);
    return;
  }
  state.last = { file, by: document.querySelector('input[name="by"]:checked').value };
  history.replaceState(null, "", location.pathname);
  if (at("map").hidden) select("results");
  search();
}

function choose(file) {
  state.file = file;
  at("query").value = "";
  at("file-name").textContent = file.name;
  at("file-name").title = `${file.name}, ${bytes(file.size)}`;
  const sound = file.type.startsWith("audio/");
  document.querySelector(`input[name="by"][value="${sound ? "audio" : "video"}"]`).checked = true;
  at("by").hidden = sound; // a sound has no pictures
  at("chosen").hidden = false;
  at("drop").hidden = true;
  searchFile();
}

function forget() {
  state.file = null;
  at("file").value = "";
  at("chosen").hidden = true;
  at("drop").hidden = false;
}

at("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = at("query").value.trim().replace(/\s+/g, " ");
  if (!text && state.file) searchFile();
  else searchText(text);
});
at("choose").addEventListener("click", () => at("file").click());
at("file").addEventListener("change", () => at("file").files.length && choose(at("file").files[0]));
at("forget").addEventListener("click", () => {
  forget();
  at("choose").focus();
});
for (const input of document.querySelectorAll('input[name="by"]')) input.addEventListener("change", searchFile);
at("folder").addEventListener("change", search);
at("count").addEventListener("change", search);
let later;
at("score").addEventListener("input", () => {
  const score = Number(at("score").value);
  at("score-text").textContent = score < 0 ? "any" : score.toFixed(2);
  clearTimeout(later);
  later = setTimeout(search, 250);
});

// Files may be dropped anywhere.
let inside = 0;
const carriesFile = (event) => event.dataTransfer?.types.includes("Files");
addEventListener("dragenter", (event) => {
  if (!carriesFile(event)) return;
  event.preventDefault();
  inside += 1;
  at("overlay").hidden = false;
});
addEventListener("dragover", (event) => carriesFile(event) && event.preventDefault());
addEventListener("dragleave", (event) => {
  if (!carriesFile(event)) return;
  inside = Math.max(0, inside - 1);
  at("overlay").hidden = inside === 0;
});
addEventListener("drop", (event) => {
  if (!carriesFile(event)) return;
  event.preventDefault();
  inside = 0;
  at("overlay").hidden = true;
  if (event.dataTransfer.files.length) choose(event.dataTransfer.files[0]);
});
addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, select, textarea, dialog");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    at("query").focus();
  }
});

// --- views ---

const VIEWS = ["results", "map", "files"];

function select(view) {
  for (const name of VIEWS) {
    const tab = at(`tab-${name}`);
    tab.setAttribute("aria-selected", String(name === view));
    tab.tabIndex = name === view ? 0 : -1;
    at(name).hidden = name !== view;
  }
  if (view === "map") loadMap();
}

VIEWS.forEach((name, place) => {
  at(`tab-${name}`).addEventListener("click", () => select(name));
  at(`tab-${name}`).addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = VIEWS[(place + step + VIEWS.length) % VIEWS.length];
    select(next);
    at(`tab-${next}`).focus();
  });
});

const maps = new Map();

async function loadMap() {
  const value = (name) => document.querySelector(`input[name="${name}"]:checked`).value;
  const key = `space=${value("space")}&layout=${value("layout")}`;
  state.map = key;
  const count = Math.min(state.info?.windows ?? 0, state.info?.max_map_points ?? 0);
  at("map-wait").textContent =
    value("layout") === "tsne" && count > 500
      ? `Drawing the map of ${number(count)} moments. The first time this takes a while; PCA is quick.`
      : "Drawing the map…";
  at("map-wait").hidden = maps.has(key);
  try {
    if (!maps.has(key)) maps.set(key, await ask(`/api/map?${key}`));
    if (state.map !== key) return;
    const { points, total } = maps.get(key);
    map.setPoints(points);
    at("map-wait").hidden = points.length > 0;
    if (!points.length) at("map-wait").textContent = "The index has no such moments.";
    at("map-part").textContent = points.length < total ? `${number(points.length)} of ${number(total)} moments are shown. ` : "";
  } catch (error) {
    at("map-wait").textContent = error.message;
  }
}

for (const input of document.querySelectorAll('input[name="space"], input[name="layout"]')) {
  input.addEventListener("change", loadMap);
}

function report(info) {
  const facts = [
    ["Files", number(info.files)],
    ["Moments", number(info.windows)],
    ["Length", length(info.seconds ?? 0)],
    ["Could not be read", number(info.unreadable.filter((file) => !file.partly).length)],
    ["Model", info.model || "unknown"],
  ];
  at("facts").replaceChildren(
    ...facts.map(([name, value]) => {
      const box = element("div");
      box.append(element("dt", "", name), element("dd", "", value));
      return box;
    }),
  );
  at("report").hidden = !info.unreadable.length;
  at("report-title").textContent = info.unreadable.length
    ? `${plural(info.unreadable.length, "file")} with faults`
    : "Every file could be read";
  at("report").tBodies[0].replaceChildren(
    ...info.unreadable.map((file) => {
      const row = element("tr");
      row.append(element("td", "", file.path), element("td", "", file.partly ? `Read in part. ${file.error}` : file.error));
      return row;
    }),
  );
}

/** What there is to see before the first search. */
async function welcome(searching) {
  nothing("Say what you are looking for", "In words, or with a sound or a clip that is like it. Or look around:");
  if (searching || state.info.name === null) return;
  const { moments } = await ask("/api/sample");
  if (!state.last) at("moments").append(...moments.map(card));
}

async function start() {
  const query = new URLSearchParams(location.hash.slice(1)).get("q");
  try {
    const info = await ask("/api/info");
    state.info = info;
    at("name").textContent = info.name ?? "Index without videos";
    document.title = info.name ? `${info.name}: search your videos` : "Search your videos";
    at("numbers").textContent = `${plural(info.files, "file")} · ${plural(info.windows, "moment")}`;
    at("folder").append(...info.folders.map((folder) => new Option(folder, folder)));
    report(info);
    if (!info.windows) nothing("The index is empty", "Fill it with vatt index, then load this page again.");
    else await welcome(query);
  } catch (error) {
    fail(error.message);
  }
  if (query) {
    at("query").value = query;
    searchText(query.trim());
  }
}

start();
