// What the address of the page says after its #: a search, its filters, a view, and the moment that plays.

const DEFAULTS = {
  q: "", like: "", folder: "", min_score: "", top_k: "24", all: "", group: "", view: "results", play: "", t: "",
};
const SEARCH = ["q", "like", "folder", "min_score", "top_k", "all"];

/** What it says now; `upload` is the number of a file that was searched by, which no address can hold. */
export function read() {
  const given = new URLSearchParams(location.hash.slice(1));
  const values = Object.fromEntries(Object.entries(DEFAULTS).map(([name, value]) => [name, given.get(name) ?? value]));
  return { ...values, upload: history.state?.upload, by: history.state?.by };
}

/** What a search depends on, as a text. */
export const searchOf = (place) => JSON.stringify([...SEARCH, "upload", "by"].map((name) => place[name]));

/** A moment that others are to look like, as `like` says it: PATH@SECONDS; without seconds the middle of the file. */
export const likeOf = (moment) => `${moment.path}@${((moment.start + moment.end) / 2).toFixed(2)}`;
export function readLike(like) {
  const [path, seconds] = like.match(/^([^]+)@(\d+(?:\.\d*)?)$/)?.slice(1) ?? [like];
  return like ? { path, seconds } : null;
}

/** Changes the address. With `replace` Back does not return to what it said before. */
export function write(place, { replace = false, opened = false } = {}) {
  const said = Object.keys(DEFAULTS).filter((name) => place[name] !== DEFAULTS[name]);
  const text = said.map((name) => `${name}=${encodeURIComponent(place[name]).replaceAll("%2F", "/")}`).join("&");
  const url = text ? `#${text}` : location.pathname;
  const { upload, by } = place;
  const same = text === location.hash.slice(1) && upload === history.state?.upload && by === history.state?.by;
  if (!same) history[replace ? "replaceState" : "pushState"]({ upload, by, opened: replace ? history.state?.opened : opened }, "", url);
}
