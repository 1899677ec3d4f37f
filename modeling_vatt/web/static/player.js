// The player: one moment of one file, from its first second.

import { clock, fileOf, folderOf, mediaUrl, span, staleOf } from "./format.js";

const at = (id) => document.getElementById(id);
const NEAR = 0.25; // seconds
const LATE = 0.5; // seconds
const [SETTLING, SETTLING_PICTURES] = [100, 2000]; // milliseconds at most

export class Player {
  /** `move` is called with the moment to go to, `leave` when the player was closed. */
  constructor(move, leave) {
    this.dialog = at("player");
    this.video = at("video");
    this.list = [];
    this.place = 0;
    this.copying = null;
    this.copied = new Set(); // paths of which no original has to be tried again
    const step = (by) => this.list[this.place + by] && move(this.list[this.place + by]);
    at("player-close").addEventListener("click", () => this.dialog.close());
    at("previous").addEventListener("click", () => step(-1));
    at("next").addEventListener("click", () => step(1));
    at("again").addEventListener("click", () => this.begin());
    at("player-copy").addEventListener("click", () => this.copy());
    this.dialog.addEventListener("keydown", (event) => {
      const by = { n: 1, p: -1 }[event.key];
      if (by && !event.ctrlKey && !event.metaKey && !event.altKey) step(by);
    });
    this.dialog.addEventListener("close", () => {
      this.stop();
      leave();
    });
    // A click beside the dialog lands on the dialog element itself.
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
    this.video.addEventListener("loadeddata", () => this.loaded());
    this.video.addEventListener("timeupdate", () => this.track());
    this.video.addEventListener("error", () => this.fail());
  }

  get moment() {
    return this.list[this.place];
  }

  /** Plays `list[place]`; Previous and Next walk along the list. */
  open(list, place) {
    const shown = this.dialog.open && this.moment === list[place];
    this.list = list;
    this.place = place;
    if (shown) return;
    if (!this.dialog.open) this.dialog.showModal();
    const { moment } = this;
    at("player-name").textContent = fileOf(moment.path);
    at("player-folder").textContent = folderOf(moment.path);
    const score = moment.score === undefined ? "" : ` · score ${moment.score.toFixed(3)}${moment.strength ? `, ${moment.strength}` : ""}`;
    const whole = moment.duration ? ` of ${clock(moment.duration, moment.end - moment.start < 10)}` : "";
    const stale = moment.stale ? ` · ${staleOf(moment)}` : "";
    at("player-time").textContent = `${span(moment)}${whole}${score}${stale}`;
    at("player-note").textContent = "";
    at("previous").disabled = place === 0;
    at("next").disabled = place === list.length - 1;
    this.load(mediaUrl(moment), 0);
  }

  close() {
    if (this.dialog.open) this.dialog.close();
  }

  /** `first`: the second of the file at which what lies there begins. */
  load(url, first) {
    this.copying?.abort();
    this.first = first;
    at("player-alert").hidden = true;
    if (this.video.getAttribute("src") === url && this.video.readyState > 1) {
      this.begin();
      return;
    }
    this.video.src = url;
    const { src } = this.video;
    this.picture = undefined;
    this.video.requestVideoFrameCallback?.((now, { mediaTime }) => {
      if (this.video.src === src) this.picture = mediaTime;
    });
  }

  loaded() {
    const { video } = this;
    const { src } = video;
    const until = performance.now() + (video.videoWidth && video.requestVideoFrameCallback ? SETTLING_PICTURES : SETTLING);
    // Some browsers count from the file's own clock, which may begin late; moments count from its beginning.
    // A busy browser says 0 for a while after this event: the time of the first picture tells when it is done.
    const settle = () => {
      if (video.src !== src || !this.moment) return;
      if (!(video.currentTime > this.picture - LATE) && performance.now() < until) {
        setTimeout(settle, 20);
        return;
      }
      this.origin = video.currentTime - this.first;
      if (!video.videoWidth) this.warn(`This browser plays the sound of ${fileOf(this.moment.path)}, but cannot show its pictures.`);
      this.begin();
    };
    settle();
  }

  begin() {
    const { moment, video } = this;
    if (!moment || this.origin === undefined) return;
    const wanted = moment.start + this.origin;
    video.currentTime = wanted;
    // The length that is stated may end before the file does.
    if (wanted > video.duration + NEAR) {
      this.warn(`This browser cannot go to ${clock(moment.start, true)} of ${fileOf(moment.path)}.`);
      return;
    }
    // Browsers may want a gesture first, as after a page that was opened by a script; the controls are there.
    video.play().catch(() => {});
    this.track();
  }

  track() {
    const { moment, video } = this;
    if (!moment) return;
    const origin = this.origin ?? 0;
    const total = moment.duration || Math.max(video.duration - origin || 0, moment.end);
    const share = (seconds) => `${Math.max(0, Math.min(100, (100 * seconds) / total))}%`;
    at("line-moment").style.left = share(moment.start);
    at("line-moment").style.width = share(moment.end - moment.start);
    at("line-now").style.left = share(video.currentTime - origin);
  }

  /** Says what is wrong, and offers a copy, which needs the file. */
  warn(text, copy = !this.video.getAttribute("src")?.startsWith("/copy/")) {
    if (copy && this.copied.has(this.moment.path)) {
      this.copy();
      return;
    }
    at("player-alert").querySelector("p").textContent = text;
    at("player-copy").hidden = !copy;
    at("player-alert").hidden = false;
  }

  async fail() {
    const url = this.video.getAttribute("src");
    if (!url) return;
    const { moment } = this;
    const answer = await fetch(url, { headers: { Range: "bytes=0-0" } }).catch(() => null);
    const { error } = answer && !answer.ok ? await answer.json().catch(() => ({})) : {};
    if (url !== this.video.getAttribute("src")) return;
    if (!answer) this.warn("The server does not answer. Is it still running?", false);
    else if (error) this.warn(error, false);
    else this.warn(`This browser cannot play ${fileOf(moment.path)}. The moment is at ${clock(moment.start, true)}.`);
  }

  /** Plays a copy of the part around the moment. */
  async copy() {
    const { moment } = this;
    this.copying = new AbortController();
    const { signal } = this.copying;
    this.warn("Making a copy that this browser can play…", false);
    this.video.pause();
    try {
      const query = new URLSearchParams({ path: moment.path, t: moment.start });
      const answer = await fetch(`/api/copy?${query}`, { method: "POST", signal });
      const made = await answer.json();
      if (signal.aborted) return;
      if (!answer.ok) throw new Error(made.error);
      at("player-note").textContent = `A copy, from ${clock(made.start)} on.`;
      this.copied.add(moment.path);
      this.load(made.url, made.start);
    } catch (error) {
      if (!signal.aborted) this.warn(error.message);
    }
  }

  stop() {
    this.copying?.abort();
    this.origin = undefined;
    this.video.pause();
    this.video.removeAttribute("src");
    this.video.load(); // lets go of the connection
  }
}
