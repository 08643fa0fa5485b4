// Recordings: what the page shows under one title, a line of words for each sentence.

const $ = (id) => document.getElementById(id);
const SPOKEN = 5; // sentences kept for a screen reader

export class Recording {
  /** `name` of the file that is saved; `tell` shows a message. */
  constructor(title, name, tell) {
    Object.assign(this, { name, tell });
    this.lines = [];
    this.saved = true; // whether the words are elsewhere too
    this.section = $("recording").content.cloneNode(true).firstElementChild;
    this.list = this.section.querySelector("ol");
    this.section.querySelector("h2").textContent = title;
    this.section.querySelector(".saving").setAttribute("aria-label", title);
    this.section.querySelector(".copy").addEventListener("click", () => this.copy());
    this.section.querySelector(".text").addEventListener("click", () => this.save());
    $("hint").hidden = true;
    $("recordings").append(this.section);
    follow(true);
  }

  /** Begin a line at `start` ms. */
  begin(start, language) {
    const item = $("line").content.cloneNode(true).firstElementChild;
    item.querySelector("time").textContent = clock(start);
    const words = item.querySelector(".words");
    words.lang = language;
    this.lines.push({ item, words, complete: false });
    const end = atEnd();
    this.list.append(item);
    follow(end);
  }

  /** Add words to the last line; they came `late` ms after the speaker, or null. */
  add(text, late) {
    const { item, words } = this.lines.at(-1);
    const span = document.createElement("span");
    span.textContent = text;
    const end = atEnd();
    words.append(words.childElementCount ? " " : "", span);
    item.querySelector(".late").textContent = late === null ? "" : `+${inSeconds(late)}`;
    follow(end);
    this.saved = false;
    for (const button of this.section.querySelectorAll("button")) button.disabled = false;
  }

  /** Complete the last line: only now a screen reader reads it. */
  complete() {
    const line = this.lines.at(-1);
    if (!line || line.complete) return;
    line.complete = true;
    const spoken = document.createElement("p");
    spoken.lang = line.words.lang;
    spoken.textContent = line.words.textContent;
    $("spoken").append(spoken);
    if ($("spoken").children.length > SPOKEN) $("spoken").firstElementChild.remove();
  }

  get text() {
    return this.lines.map(({ words }) => `${words.textContent}\n`).join("");
  }

  save() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([this.text], { type: "text/plain;charset=utf-8" }));
    link.download = [this.name, this.lines[0].words.lang, "txt"].filter(Boolean).join(".");
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    this.saved = true;
  }

  async copy() {
    try {
      await navigator.clipboard.writeText(this.text);
    } catch {
      return this.tell("The browser does not let this page copy. Save the text instead.");
    }
    this.saved = true;
    this.tell("The text is copied.", 3);
  }
}

export const inSeconds = (ms) => `${(Math.max(0, ms) / 1000).toFixed(1)} s`;
export const two = (number) => String(number).padStart(2, "0");

/** Return ms as 1:05 or 1:02:05. */
export function clock(ms) {
  const [hours, minutes, seconds] = [ms / 3.6e6, (ms / 6e4) % 60, (ms / 1e3) % 60].map(Math.floor);
  return hours ? `${hours}:${two(minutes)}:${two(seconds)}` : `${minutes}:${two(seconds)}`;
}

/** Return whether the reader sees the end of the text, and so wants to see what comes. */
function atEnd() {
  const { scrollHeight, scrollTop, clientHeight } = document.documentElement;
  return scrollHeight - scrollTop - clientHeight < 120;
}

function follow(end) {
  if (end) document.documentElement.scrollTop = document.documentElement.scrollHeight;
}
