// Numbers and names for people.

/** "1:02.5" or "1:00:02"; tenths where they matter. */
export function clock(seconds, tenths = false) {
  const unit = tenths ? 10 : 1;
  const ticks = Math.floor(Math.max(0, seconds) * unit + 1e-6);
  const whole = Math.floor(ticks / unit);
  const pad = (number) => String(number).padStart(2, "0");
  const minutes = Math.floor(whole / 60);
  const head = minutes < 60 ? String(minutes) : `${Math.floor(minutes / 60)}:${pad(minutes % 60)}`;
  return `${head}:${pad(whole % 60)}${tenths ? `.${ticks % 10}` : ""}`;
}

/** "0:03.8 – 0:05.1" */
export function span(moment) {
  const tenths = moment.end - moment.start < 10;
  return `${clock(moment.start, tenths)} – ${clock(moment.end, tenths)}`;
}

/** "3 h 12 min", "12 min", "40 s" */
export function length(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function bytes(count) {
  const units = ["bytes", "kB", "MB", "GB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) {
    count /= 1024;
    unit += 1;
  }
  return `${Number(count.toPrecision(3))} ${units[unit]}`;
}

export const number = (value) => Number(value ?? 0).toLocaleString("en");
export const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;
export const fileOf = (path) => path.slice(path.lastIndexOf("/") + 1);
export const folderOf = (path) => path.slice(0, Math.max(0, path.lastIndexOf("/")));

/** What has become of the file of a moment. */
export const staleOf = ({ stale }) => ({ gone: "gone", changed: "changed since it was indexed" })[stale] ?? "";

const encoded = (path) => path.split("/").map(encodeURIComponent).join("/");
// With the version of the file: browsers keep what they have seen of an address.
export const mediaUrl = (moment) => `/media/${encoded(moment.path)}?v=${moment.version ?? ""}`;

/** The picture in the middle of a moment: its edges may show what lies beside it. */
export function pictureUrl(moment) {
  return `/thumbnail/${encoded(moment.path)}?t=${((moment.start + moment.end) / 2).toFixed(2)}&v=${moment.version ?? ""}`;
}
