// The player: one moment of one file, from its first second.

import { clock, fileOf, folderOf, mediaUrl, span } from "./format.js";

const at = (id) => document.getElementById(id);

export class Player {
  constructor() {
    this.dialog = at("player");
    this.video = at("video");
    this.list = [];
    this.place = 0;
    at("player-close").addEventListener("click", () => this.dialog.close());
    at("previous").addEventListener("click", () => this.show(this.place - 1));
    at("next").addEventListener("click", () => this.show(this.place + 1));
    at("again").addEventListener("click", () => this.begin());
    this.dialog.addEventListener("close", () => this.stop());
    // A click beside the dialog lands on the dialog element itself.
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
    this.video.addEventListener("loadedmetadata", () => this.begin());
    this.video.addEventListener("timeupdate", () => this.track());
    this.video.addEventListener("error", () => this.fail());
  }

  /** Plays `list[place]`; Previous and Next walk along the list. */
  open(list, place) {
    this.list = list;
    if (!this.dialog.open) this.dialog.showModal();
    this.show(place);
  }

  show(place) {
    this.place = place;
    const moment = this.list[place];
    at("player-name").textContent = fileOf(moment.path);
    at("player-folder").textContent = folderOf(moment.path);
    const score = moment.score === undefined ? "" : ` · score ${moment.score.toFixed(3)}`;
    const whole = moment.duration ? ` of ${clock(moment.duration, moment.end - moment.start < 10)}` : "";
    at("player-time").textContent = `${span(moment)}${whole}${score}`;
    at("previous").disabled = place === 0;
    at("next").disabled = place === this.list.length - 1;
    at("player-alert").hidden = true;
    const url = mediaUrl(moment);
    if (this.video.getAttribute("src") === url && this.video.readyState > 0) this.begin();
    else this.video.src = url;
  }

  begin() {
    const moment = this.list[this.place];
    if (!moment) return;
    this.video.currentTime = moment.start;
    // Browsers may want a gesture first, as after a page that was opened by a script; the controls are there.
    this.video.play().catch(() => {});
    this.track();
  }

  track() {
    const moment = this.list[this.place];
    const total = this.video.duration || moment.duration || moment.end;
    const share = (seconds) => `${Math.min(100, (100 * seconds) / total)}%`;
    at("line-moment").style.left = share(moment.start);
    at("line-moment").style.width = share(moment.end - moment.start);
    at("line-now").style.left = share(this.video.currentTime);
  }

  fail() {
    if (!this.video.getAttribute("src")) return;
    const moment = this.list[this.place];
    at("player-alert").textContent =
      `This browser cannot play ${fileOf(moment.path)}. Open it in a player of your own and go to ` +
      `${clock(moment.start, true)}.`;
    at("player-alert").hidden = false;
  }

  stop() {
    this.video.pause();
    this.video.removeAttribute("src");
    this.video.load(); // lets go of the connection
  }
}
