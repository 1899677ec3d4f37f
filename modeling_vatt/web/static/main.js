// The page: searching, filtering, and the three views. What is shown follows the address.

import * as address from "./address.js";
import { bytes, clock, fileOf, folderOf, length, number, pictureUrl, plural, span, staleOf } from "./format.js";
import { MomentMap } from "./map.js";
import { Player } from "./player.js";

const at = (id) => document.getElementById(id);
const state = { info: null, file: null, last: null, shown: null, words: null, moments: [], list: [], request: null, leaving: null };
const uploads = []; // files that were searched by, for Back
let later; // while the slider moves
const player = new Player((moment) => go(playing(moment), { replace: true }), leave);
const map = new MomentMap(play);

/** Changes what the address says, and the page with it. */
async function go(changes, options) {
  await state.leaving;
  clearTimeout(later);
  address.write({ ...address.read(), ...filters(), ...changes }, options);
  follow();
}

function filters() {
  const score = Number(at("score").value);
  return {
    folder: at("folder").value,
    top_k: at("count").value,
    min_score: score < 0 ? "" : score.toFixed(2),
    all: at("all").checked ? "1" : "",
    group: at("group").checked ? "1" : "",
  };
}

const playing = (moment) => ({ play: moment.path, t: `${moment.start.toFixed(2)}-${moment.end.toFixed(2)}` });

function play(list, place) {
  if (state.info?.name === null) return fail("The videos themselves are not on this machine, only their index.");
  state.list = list;
  go(playing(list[place]), { opened: true });
}

/** Closes the player: back to before it was opened, or, after a link to a moment, to the page without it. */
function leave() {
  if (!address.read().play || state.leaving) return;
  if (!history.state?.opened) return go({ play: "", t: "" }, { replace: true });
  state.leaving = new Promise((done) => addEventListener("popstate", done, { once: true })).then(() => (state.leaving = null));
  history.back();
}

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

const INFO = "/api/info";
const PER_FILE = 3; // moments, unless all are wanted

/** The JSON of an answer; throws a message for people, or what a request that was given up throws. */
async function ask(url, options = {}) {
  let response;
  let answer = {};
  try {
    response = await fetch(url, options);
    answer = await response.json();
  } catch (error) {
    if (options.signal?.aborted) throw error;
    if (!response) throw new Error("The server does not answer. Is it still running?");
    if (response.ok) throw new Error("The answer of the server broke off. Try again.");
  }
  if (!response.ok) throw new Error(answer.error ?? `The server answers ${response.status}.`);
  const changed = answer.generation !== undefined && answer.generation !== state.info?.generation;
  if (changed && state.info && url !== INFO) refresh().catch(() => {});
  return answer;
}

// --- searching ---

/** Searches for what the address says; what is under way then is given up. */
async function search(place, last) {
  state.request?.abort();
  const request = new AbortController();
  Object.assign(state, { request, last, shown: address.searchOf(place) });
  fail();
  say("Searching…");
  document.body.classList.add("busy");
  document.title = `${describe(last)} · ${state.info?.name ?? "VATT"}`;
  const chosen = new URLSearchParams({ top_k: place.top_k });
  for (const name of ["folder", "min_score"]) if (place[name]) chosen.set(name, place[name]);
  if (!place.all) chosen.set("per_file", PER_FILE);
  const options = { signal: request.signal };
  if (last.file) {
    chosen.set("by", last.by);
    chosen.set("name", last.file.name.slice(0, 200));
    Object.assign(options, { method: "POST", body: last.file });
  } else if (last.like) {
    chosen.set("like", last.like.path);
    if (last.like.seconds) chosen.set("t", last.like.seconds);
  } else chosen.set("q", last.text);
  try {
    const answer = await ask(`/api/search?${chosen}`, options);
    if (state.request === request) show(answer, last);
  } catch (error) {
    if (state.request !== request) return;
    clear();
    say("");
    fail(error.message);
  } finally {
    if (state.request === request) document.body.classList.remove("busy");
  }
}

const nameOf = ({ path, seconds }) => fileOf(path) + (seconds ? ` at ${clock(seconds, true)}` : "");

function describe(last) {
  if (last.like) return `what looks like ${nameOf(last.like)}`;
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
  list(answer.moments);
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

/** Cards of moments, of one file together if that is wanted; files as their best moments rank. */
function list(moments) {
  const cards = moments.map(card);
  state.grouped = at("group").checked;
  if (!state.grouped) return at("moments").replaceChildren(...cards);
  const files = new Map();
  moments.forEach(({ path }, place) => files.set(path, [...(files.get(path) ?? []), cards[place]]));
  const groups = [...files].map(([path, members]) => {
    const group = element("li", "group");
    const title = element("h2", "", fileOf(path));
    title.append(element("span", "muted", `${folderOf(path)} · ${plural(members.length, "moment")}`));
    const inner = element("ol", "moments");
    inner.append(...members);
    group.append(title, inner);
    return group;
  });
  at("moments").replaceChildren(...groups);
}

/** Words that the model has never seen, or that come after all it reads, say nothing to it, whatever it finds. */
function warn(unknown, text) {
  if (!unknown?.length) return;
  const words = unknown.slice(0, 5).map((word) => `“${word.slice(0, 40)}”`).join(", ");
  const all = unknown.length === new Set(text.split(" ")).size;
  fail(`The model ignores ${words}${unknown.length > 5 ? " and others" : ""}` + (all ? ": these results mean nothing." : "; it looks for the other words."));
}

function nothing(title, text) {
  at("nothing").replaceChildren(element("h2", "", title), element("p", "", text));
  at("nothing").hidden = false;
}

/** A moment among others; a sample has neither ranks nor scores. */
function card(moment, place, moments) {
  const ranked = moment.score !== undefined;
  const item = at("card").content.firstElementChild.cloneNode(true);
  const part = (selector) => item.querySelector(selector);
  part("button").addEventListener("click", () => play(moments, place));
  const image = part("img");
  image.addEventListener("error", () => image.classList.add("missing"));
  if (state.info?.name === null) image.classList.add("missing");
  else image.src = pictureUrl(moment);
  part(".rank").textContent = place + 1;
  part(".rank").hidden = part(".score").hidden = !ranked;
  part(".time").textContent = span(moment);
  part("b").textContent = fileOf(moment.path);
  part("b").title = moment.path;
  const { copies = [] } = moment;
  const others = copies.length ? plural(copies.length, "copy", "copies") : "";
  part(".where").textContent = [staleOf(moment), folderOf(moment.path), others].filter(Boolean).join(" · ");
  part(".where").title = copies.join("\n");
  if (ranked) {
    part(".score i").style.setProperty("--share", `${100 * Math.max(0, Math.min(1, moment.score))}%`);
    part(".score em").textContent = moment.score.toFixed(3);
    part(".fit").textContent = moment.strength ?? "";
    part(".fit").classList.toggle("strong", moment.strength === "strong");
  }
  return item;
}

/** Looks for something else; the same again searches again. */
function look(wanted) {
  state.shown = null;
  const view = at("map").hidden ? "results" : "map";
  go({ q: "", like: "", play: "", t: "", view, upload: undefined, by: undefined, ...wanted });
}

/** Gives up the search under way, which must not answer any more, and says why, if there is a reason. */
function stop(why) {
  state.request?.abort();
  state.request = null;
  document.body.classList.remove("busy");
  say("");
  fail(why);
}

function searchText(text) {
  const limit = state.info?.max_query_characters ?? Infinity;
  if (!text) {
    stop("Type what you look for, or choose a sound or a clip.");
    return;
  }
  if (text.length > limit) {
    stop(`The query has ${number(text.length)} characters; at most ${number(limit)} are allowed. Say it in fewer words.`);
    return;
  }
  look({ q: text });
}

function searchFile() {
  const file = state.file;
  if (!file) return;
  const limit = state.info?.max_upload_bytes ?? Infinity;
  if (file.size > limit) {
    stop(`${file.name} has ${bytes(file.size)}; at most ${bytes(limit)} are allowed. Cut out a part of it.`);
    return;
  }
  if (!uploads.includes(file)) uploads.push(file);
  const by = document.querySelector('input[name="by"]:checked').value;
  look({ upload: uploads.indexOf(file), by });
}

/** Shows that a file is searched by, by its pictures or by its sound. */
function hold(file, by) {
  state.file = file;
  document.querySelector(`input[name="by"][value="${by}"]`).checked = true;
  instead(file.name, `${file.name}, ${bytes(file.size)}`, !file.type.startsWith("audio/")); // a sound has no pictures
}

/** Shows what is searched by instead of words. */
function instead(name, title, both = false) {
  at("query").value = "";
  at("file-name").textContent = name;
  at("file-name").title = title;
  at("by").hidden = !both;
  at("chosen").hidden = false;
  at("drop").hidden = true;
}

function choose(file) {
  hold(file, file.type.startsWith("audio/") ? "audio" : "video");
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
for (const name of ["folder", "count", "all", "group"]) at(name).addEventListener("change", () => go());
at("score").addEventListener("input", () => {
  scoreText();
  clearTimeout(later);
  later = setTimeout(() => go({}, { replace: true }), 250); // no step of Back for every step of the slider
});
at("skip").addEventListener("click", (event) => {
  event.preventDefault(); // it would become the address
  at("query").focus();
});

function scoreText() {
  const score = Number(at("score").value);
  at("score-text").textContent = score < 0 ? "any" : score.toFixed(2);
}

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

// Down leaves the query for the results; there the arrows go to the next picture in their direction.
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
at("query").addEventListener("keydown", (event) => {
  const first = at("moments").querySelector(".moment");
  if (event.key !== "ArrowDown" || !first || at("results").hidden) return;
  event.preventDefault();
  first.focus();
});
at("moments").addEventListener("keydown", (event) => {
  const here = event.target.closest(".moment");
  if (!here || !(event.key in ARROWS)) return;
  event.preventDefault();
  const [right, down] = ARROWS[event.key];
  const cards = [...at("moments").querySelectorAll(".moment")];
  const from = here.getBoundingClientRect();
  let next = cards[cards.indexOf(here) + right];
  if (down) {
    const cost = (card) => {
      const box = card.getBoundingClientRect();
      const ahead = (box.top - from.top) * down;
      return ahead > 1 ? ahead * 100 + Math.abs(box.left - from.left) : Infinity;
    };
    next = cards.reduce((best, card) => (cost(card) < cost(best) ? card : best));
    if (cost(next) === Infinity) next = down < 0 ? at("query") : undefined;
  }
  next?.focus();
});

// --- what to do with a moment ---

const note = (text) => (at("player-note").textContent = text);

async function toClipboard(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    note(`${what} copied.`);
  } catch {
    note(text); // no clipboard, as over plain HTTP: to be selected
  }
}

const ofFile = () => new URLSearchParams({ path: player.moment.path });
at("copy-link").addEventListener("click", () => toClipboard(location.href, "Link"));
at("copy-path").addEventListener("click", () =>
  ask(`/api/place?${ofFile()}`).then(({ place }) => toClipboard(place, "Path"), (error) => note(error.message)),
);
at("more-like").addEventListener("click", () => look({ like: address.likeOf(player.moment) }));
at("open-folder").addEventListener("click", () =>
  ask(`/api/open?${ofFile()}`, { method: "POST" }).catch((error) => note(error.message)),
);

// --- views ---

const VIEWS = ["results", "map", "files"];

function select(view) {
  const drawn = !at("map").hidden;
  for (const name of VIEWS) {
    const tab = at(`tab-${name}`);
    tab.setAttribute("aria-selected", String(name === view));
    tab.tabIndex = name === view ? 0 : -1;
    at(name).hidden = name !== view;
  }
  if (view === "map" && !drawn) loadMap();
}

VIEWS.forEach((name, place) => {
  at(`tab-${name}`).addEventListener("click", () => go({ view: name }));
  at(`tab-${name}`).addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = VIEWS[(place + step + VIEWS.length) % VIEWS.length];
    go({ view: next });
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
    if (state.map === key) at("map-wait").textContent = error.message;
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

/** What there is to see without a search. */
async function welcome(place) {
  stop();
  Object.assign(state, { last: null, shown: address.searchOf(place) });
  clear();
  const { info, shown } = state;
  document.title = info?.name ? `${info.name}: search your videos` : "Search your videos";
  if (!info) return;
  if (!info.windows) return nothing("The index is empty", "Fill it with vatt index; the page shows what is new.");
  nothing("Say what you are looking for", "In words, or with a sound or a clip that is like it. Or look around:");
  if (info.name === null) return;
  try {
    const { moments } = await ask("/api/sample");
    if (state.shown !== shown) return;
    state.moments = moments;
    list(moments);
  } catch (error) {
    if (state.shown === shown) fail(error.message);
  }
}

/** Brings the page to what the address says: at its start, after Back and Forward, and when a link is pasted. */
function follow() {
  const place = address.read();
  const file = uploads[place.upload];
  setFolder(place.folder);
  const counts = [...at("count").options].map((option) => option.value);
  if (!counts.includes(place.top_k)) place.top_k = "24";
  at("count").value = place.top_k;
  const score = Number(place.min_score);
  at("score").value = place.min_score && score >= 0 ? score : at("score").min;
  place.min_score = Number(at("score").value) < 0 ? "" : Number(at("score").value).toFixed(2);
  scoreText();
  for (const name of ["all", "group"]) at(name).checked = Boolean(place[name]);
  select(VIEWS.includes(place.view) ? place.view : "results");
  if (state.shown !== address.searchOf(place)) {
    const text = place.q.trim().replace(/\s+/g, " ");
    const like = address.readLike(place.like);
    forget();
    if (file) hold(file, place.by);
    else if (like) instead(nameOf(like), like.path);
    else if (place.q !== state.words) at("query").value = place.q; // else what is being typed stays
    state.words = file || like ? "" : place.q;
    if (file || like || text) search(place, file ? { file, by: place.by } : like ? { like } : { text });
    else welcome(place);
  } else if (state.grouped !== at("group").checked) list(state.moments);
  if (!place.play) return player.close();
  const [start = 0, end] = place.t.split("-").map((text) => Number(text) || 0);
  const moment = { path: place.play, start, end: end > start ? end : start + 1 };
  const same = (one) => one.path === moment.path && Math.abs(one.start - start) < 0.05 && Math.abs(one.end - moment.end) < 0.05;
  const among = [state.list, state.moments].find((moments) => moments.some(same)) ?? [moment];
  player.open(among, Math.max(0, among.findIndex(same)));
}
addEventListener("popstate", follow);

/** Folders of the index; the one that is chosen stays, even if it is gone: the search says so. */
function setFolder(chosen = at("folder").value) {
  const names = state.info?.folders ?? [];
  const wanted = ["", ...names, ...(chosen && !names.includes(chosen) ? [chosen] : [])];
  const known = [...at("folder").options].map((option) => option.value);
  if (wanted.join("\n") !== known.join("\n"))
    at("folder").replaceChildren(...wanted.map((name) => new Option(name || "All folders", name)));
  at("folder").value = chosen;
}

// --- an index that changes ---

const SECONDS = 3; // from one look to the next
let pause = SECONDS;

/** Counts, folders and report as they are now. */
async function refresh() {
  const before = state.info;
  const info = await ask(INFO);
  state.info = info;
  at("name").textContent = info.name ?? "Index without videos";
  const growing = before && before.generation !== info.generation;
  at("numbers").textContent =
    `${plural(info.files, "file")} · ${plural(info.windows, "moment")}` + (growing ? " · being updated" : "");
  at("open-folder").hidden = !info.can_open;
  setFolder();
  report(info);
  if (before && !before.windows && info.windows && !state.last) welcome(address.read());
  // A map takes a while to draw: once the index has come to rest.
  if (growing) state.stale = true;
  else if (state.stale) {
    state.stale = false;
    maps.clear();
    if (!at("map").hidden) loadMap();
  }
}

async function watch() {
  try {
    if (!document.hidden) {
      const { generation } = await ask("/api/state");
      if (state.stale && generation === state.info.generation) await refresh();
    }
    pause = SECONDS;
  } catch {
    pause = Math.min(60, 2 * pause); // the next search says that the server is gone
  }
  setTimeout(watch, 1000 * pause);
}

async function start() {
  try {
    await refresh();
  } catch (error) {
    fail(error.message);
  }
  follow();
  setTimeout(watch, 1000 * SECONDS);
}

start();
