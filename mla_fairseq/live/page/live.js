// The page of mla-live. Its audio worklet loads this file too: the last lines decide which part runs.
//
// A recording is what the page shows under one title: a line of words for each sentence, with times from its start.
// A take is a part of a recording without a break, in blocks of samples. A connection to the server translates it; after
// a lost connection the next one begins with the first sentence that is not complete.

const BLOCK = 2048; // samples in a message
const KEPT = 20; // s of the microphone that are kept, to be sent again
const AHEAD = 1 << 18; // bytes given to the browser at once: more would only wait there
const WAITS = [1, 2, 4, 8, 15]; // s before each attempt to connect again
const DEAD = 15; // s without an answer to audio after which a connection counts as lost; files may wait longer
const PAUSE = 160; // ms of silence in which a sentence ends: the next one may have begun in them
const FLOOR = -60; // dB at the left end of the meter
const SILENT = 5; // s below that, or without audio, after which the page asks whether the microphone is muted
const FINAL = [1000, 1008]; // codes after which the page does not connect again: no audio came, or a mistake of the page
const FILE_RATE = 16000; // Hz that models need: browsers resample well while they decode a file

const INSECURE = "Browsers allow the microphone only at localhost or over https. You can open a file.";

const $ = (id) => document.getElementById(id);
const two = (number) => String(number).padStart(2, "0");
const inSeconds = (ms) => `${(Math.max(0, ms) / 1000).toFixed(1)} s`;
const asSentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`;

/** Return ms as 1:05 or 1:02:05. */
function clock(ms) {
  const [hours, minutes, seconds] = [ms / 3.6e6, (ms / 6e4) % 60, (ms / 1e3) % 60].map(Math.floor);
  return hours ? `${hours}:${two(minutes)}:${two(seconds)}` : `${minutes}:${two(seconds)}`;
}

// ---- recordings: lines of words, and what can be saved of them ----

const recordings = [];

class Recording {
  constructor(title, name, live) {
    this.name = name; // of the files that are saved
    this.live = live;
    this.lines = [];
    this.saved = true; // whether the words are elsewhere too
    this.section = $("recording").content.cloneNode(true).firstElementChild;
    this.list = this.section.querySelector("ol");
    this.section.classList.toggle("file", !live);
    this.section.querySelector("h2").textContent = title;
    this.section.querySelector(".saving").ariaLabel = title;
    const actions = { ".copy": "copy", ".text": "saveText", ".subtitles": "saveSubtitles" };
    for (const [selector, action] of Object.entries(actions)) {
      this.section.querySelector(selector).addEventListener("click", () => this[action]());
    }
    $("hint").hidden = true;
    $("recordings").append(this.section);
    this.section.scrollIntoView();
    recordings.push(this);
  }

  /** Begin a line at `start` ms. */
  begin(start, language) {
    const item = $("line").content.cloneNode(true).firstElementChild;
    item.querySelector("time").textContent = clock(start);
    item.querySelector(".words").lang = language;
    this.lines.push({ start, end: start, words: [], complete: false, language, item });
    this.append(item);
  }

  /** Add words to the last line, from the first `end` ms of audio; they came `behind` ms after the speaker, if known. */
  add(words, end, behind) {
    const line = this.lines.at(-1);
    const span = document.createElement("span");
    span.textContent = words;
    keepInView(() => line.item.querySelector(".words").append(line.words.length ? " " : "", span));
    line.item.querySelector(".late").textContent = behind === null ? "" : `+${inSeconds(behind)}`;
    line.words.push(words);
    line.end = end;
    this.saved = false;
    this.refresh();
  }

  /** Complete the last line: only now a screen reader reads it, unless it is one of many of a file. */
  complete() {
    const line = this.lines.at(-1);
    if (!line || line.complete) return;
    line.complete = true;
    if (!this.live) return;
    const spoken = document.createElement("p");
    spoken.lang = line.language;
    spoken.textContent = line.words.join(" ");
    $("spoken").append(spoken);
    if ($("spoken").children.length > 5) $("spoken").firstElementChild.remove();
  }

  /** Remove the last line if it is not complete: its audio is translated again. */
  withdraw() {
    if (!this.lines.length || this.lines.at(-1).complete) return;
    this.lines.pop().item.remove();
    this.refresh();
  }

  /** Show that audio after the last word was not translated. */
  gap(start, end) {
    if (start >= end) return;
    const item = document.createElement("li");
    item.className = "gap";
    item.textContent = `${clock(start)} to ${clock(end)} was not translated: the connection was lost for too long`;
    this.append(item);
  }

  append(item) {
    keepInView(() => this.list.append(item));
  }

  refresh() {
    for (const button of this.section.querySelectorAll("button")) button.disabled = !this.lines.length;
  }

  get text() {
    return this.lines.map((line) => `${line.words.join(" ")}\n`).join("");
  }

  /** Return WebVTT: each sentence from the start of its speech to its last word, or to the next sentence. */
  get subtitles() {
    const cues = this.lines.map(({ start, end, words }, i) => {
      const next = this.lines[i + 1]?.start ?? Infinity;
      const times = [start, Math.max(Math.min(end, next), start + 1)];
      const text = words.join(" ").replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
      return `\n${times.map(stamp).join(" --> ")}\n${text}\n`;
    });
    return `WEBVTT\n${cues.join("")}`;
  }

  saveText() {
    this.save("txt", "text/plain", this.text);
  }

  saveSubtitles() {
    this.save("vtt", "text/vtt", this.subtitles);
  }

  save(ending, type, text) {
    const { language } = this.lines[0];
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: `${type};charset=utf-8` }));
    link.download = [this.name, language, ending].filter(Boolean).join(".");
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    this.saved = true;
  }

  async copy() {
    try {
      await navigator.clipboard.writeText(this.text);
    } catch {
      return say("The browser does not let this page copy. Save the text instead.");
    }
    this.saved = true;
    say("The text is copied.", { seconds: 3 });
  }
}

/** Return ms as WebVTT writes times. */
function stamp(ms) {
  return `${two(Math.floor(ms / 3.6e6))}:${new Date(ms).toISOString().slice(14, 23)}`;
}

const page = globalThis.document?.documentElement; // a worklet has none
let follows = true; // whether the reader has not scrolled away from the end of the text
let place = 0; // where the page was scrolled to when that was known

/** Make a change of the text, and follow its end. */
function keepInView(change) {
  if (page.scrollTop !== place) noticeScroll(); // the event comes later than many words of a file
  change();
  scrollToEnd();
}

function scrollToEnd() {
  if (follows) page.scrollTop = page.scrollHeight;
  place = page.scrollTop;
}

function noticeScroll() {
  follows = page.scrollHeight - page.scrollTop - page.clientHeight < 120;
  place = page.scrollTop;
}

// ---- takes: audio, and the connection that translates it ----

class Take {
  constructor(recording, rate, offset, live) {
    Object.assign(this, { recording, rate, offset, live }); // offset: ms of the recording before it
    this.blocks = []; // those that may be sent again
    this.first = this.next = 0; // numbers of the first block kept, and of the next one to send
    this.skip = 0; // samples of that one that are not sent
    this.samples = 0;
    this.came = performance.now(); // when the latest audio came
    this.ended = 0; // when the last audio came, if it has
    this.over = false; // whether it is translated, or given up
    this.safe = offset; // ms up to which all sentences are complete
    this.heard = offset; // ms that the server has processed
    this.attempts = 0;
  }

  /** Return where a block begins in the recording, in ms. */
  time(block) {
    return this.offset + (block * BLOCK * 1000) / this.rate;
  }

  /** Return where the audio ends in the recording, in ms. */
  get length() {
    return this.offset + (this.samples * 1000) / this.rate;
  }

  /** Return the same for the speaker, whose clock goes on after the last audio. */
  get now() {
    return this.length + (this.ended && performance.now() - this.ended);
  }

  push(block) {
    this.blocks.push(block);
    this.samples += block.length;
    this.came = performance.now();
    const most = (KEPT * this.rate) / BLOCK;
    while (this.live && this.blocks.length > most && (!this.ready || this.first < this.next)) {
      this.blocks.shift();
      this.first += 1;
    }
    this.pump();
  }

  end() {
    this.ended = performance.now();
    this.pump();
  }

  connect() {
    this.leave();
    const address = new URL("stream", location.href);
    address.protocol = address.protocol.replace("http", "ws");
    this.socket = new WebSocket(address);
    this.socket.onopen = ({ target }) => this.greet(target);
    this.socket.onmessage = ({ data }) => this.receive(JSON.parse(data));
    this.socket.onclose = ({ code }) => this.lost(code);
    this.error = this.told = this.ready = false;
    this.asked = performance.now();
    this.watch = setInterval(() => this.check(), 200);
  }

  /** Leave the connection, if there is one: nothing comes from it any more. */
  leave() {
    clearTimeout(this.timer);
    clearInterval(this.watch);
    if (!this.socket) return;
    this.socket.onopen = this.socket.onmessage = this.socket.onclose = null;
    this.socket.close();
  }

  /** Send the first message; the server may have another model since the last one. */
  async greet(socket) {
    try {
      await refresh();
    } catch {
      return socket.close();
    }
    if (socket === this.socket) this.tell({ sample_rate: this.rate, ...choice() });
  }

  tell(message) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  /** Send what the connection takes. */
  pump() {
    if (!this.ready || this.socket.readyState !== WebSocket.OPEN) return;
    const last = this.first + this.blocks.length;
    while (this.next < last && this.socket.bufferedAmount < AHEAD) {
      this.socket.send(this.blocks[this.next - this.first].subarray(this.skip));
      this.next += 1;
      this.skip = 0;
      this.asked ||= performance.now();
    }
    if (!this.ended || this.next < last || this.told) return;
    this.told = true;
    this.tell({ end: true });
    this.asked ||= performance.now();
  }

  /** Send more, and give up a connection that died without a word: the server answers audio 4 times a second. */
  check() {
    this.pump();
    const now = performance.now();
    const quiet = this.live && this.ready && !this.ended ? (now - this.came) / 1000 : 0;
    if (quiet > 1) {
      this.asked = 0; // the server answers audio only
      wake(quiet);
    } else if (this.asked && now - this.asked > 1000 * (this.live ? DEAD : 4 * DEAD)) this.lost();
  }

  receive(message) {
    if (this.over) return;
    this.asked = 0;
    if (message.error) this.error = message.error;
    if (message.ready) this.begin();
    if (message.words !== undefined) this.write(message);
    if (message.heard !== undefined) this.reach(this.start + message.heard);
    if (message.end) this.finish();
    else this.pump();
  }

  /** Start with the first sentence that is not complete, or with the oldest audio kept. */
  begin() {
    const sample = Math.round(((this.safe - this.offset) * this.rate) / 1000);
    const block = Math.floor(sample / BLOCK);
    this.next = Math.max(this.first, block);
    this.skip = this.next > block ? 0 : sample % BLOCK;
    this.start = this.time(this.next + this.skip / BLOCK);
    if (this.next > block) this.skipTo(this.start);
    else this.recording.withdraw();
    this.stretch = null;
    this.ready = true;
    if (!$("again").hidden) say("");
    show(this.live && this.ended ? "finishing" : "listening");
  }

  /** Keep the words of a sentence whose audio is not kept, and show what is missing, unless it was silence. */
  skipTo(start) {
    const line = this.recording.lines.at(-1);
    this.recording.gap(line && !line.complete ? line.end : Math.max(this.safe, this.heard), start);
    this.recording.complete();
    this.safe = start;
  }

  /** Notice up to which ms the audio is translated: the server works. */
  reach(ms) {
    this.heard = ms;
    this.attempts = 0;
    progress(ms);
  }

  /** Write words; there are none where a sentence ends after its last word. */
  write({ words, stretch, start, time, sentence_ended: complete }) {
    if (words && stretch !== this.stretch) {
      this.stretch = stretch;
      this.safe = this.start + start;
      this.recording.complete();
      this.recording.begin(this.safe, language());
    }
    const end = this.start + time;
    if (words) this.recording.add(words, end, this.live ? this.now - end : null);
    this.reach(end);
    if (!complete || stretch !== this.stretch) return;
    this.safe = Math.max(this.safe, end - PAUSE);
    this.recording.complete();
  }

  /** Connect again after some time, unless nothing is left to do or the server would refuse again. */
  lost(code) {
    this.leave();
    this.ready = false;
    if (this.over) return;
    if (FINAL.includes(code)) {
      after = close;
      this.finish();
      return say(asSentence(this.error || "the server refused the connection"));
    }
    const wait = WAITS[Math.min(this.attempts, WAITS.length - 1)];
    this.attempts += 1;
    this.timer = setTimeout(() => this.connect(), 1000 * wait);
    const what = asSentence(this.error || "the server does not answer");
    const kept = this.live && !this.ended ? ` What you say is kept for ${KEPT} s.` : "";
    say(`${what} Next attempt in ${wait} s.${kept}`, { again: () => this.connect() });
    show("waiting");
  }

  finish() {
    if (this.over) return;
    this.over = true;
    this.leave();
    this.recording.complete();
    goOn();
  }
}

// ---- audio: the microphone, and files ----

class Microphone {
  static async open(hear, unplugged) {
    const audio = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    const microphone = new Microphone();
    microphone.stream = await navigator.mediaDevices.getUserMedia({ audio });
    try {
      await microphone.connect(hear);
    } catch (error) {
      microphone.close();
      throw error;
    }
    microphone.stream.getAudioTracks()[0].onended = unplugged;
    return microphone;
  }

  async connect(hear) {
    this.context = new AudioContext();
    await this.context.audioWorklet.addModule(import.meta.url);
    this.node = new AudioWorkletNode(this.context, "blocks");
    this.node.port.onmessage = ({ data }) => (data ? hear(data) : this.flushed());
    // a browser runs only what leads to the loudspeaker; the node sends silence there
    this.context.createMediaStreamSource(this.stream).connect(this.node).connect(this.context.destination);
    await this.context.resume();
  }

  get rate() {
    return this.context.sampleRate; // the track may name another rate
  }

  /** Stop after the samples that do not fill a block. */
  async pause() {
    await new Promise((resolve) => {
      this.flushed = resolve;
      this.node.port.postMessage(null);
      setTimeout(resolve, 500); // the worklet of a browser that sleeps does not answer
    });
    if (this.context.state === "running") await this.context.suspend();
  }

  close() {
    for (const track of this.stream.getTracks()) track.stop();
    this.context?.close();
  }
}

/** Return why there is no microphone, and what to do. */
function refusal({ name, message }) {
  if (!navigator.mediaDevices) return INSECURE;
  const reasons = {
    NotAllowedError: "The microphone was refused. Allow it in the address bar of the browser, then press Start.",
    NotFoundError: "There is no microphone. Connect one and press Start, or open a file.",
    NotReadableError: "The microphone is in use. Close other programs that use it, then press Start.",
  };
  return reasons[name] ?? `The microphone does not work (${message}). Open a file instead.`;
}

/** Return the level of a block in dB below the largest possible one. */
function decibels(block) {
  const power = block.reduce((sum, sample) => sum + (sample / 32768) ** 2, 0) / block.length;
  return Math.max(FLOOR, 10 * Math.log10(power));
}

/** Return channels of samples in [-1, 1] as one of int16. */
function mix(channels) {
  const mixed = new Int16Array(channels[0].length);
  for (let i = 0; i < mixed.length; i += 1) {
    let sum = 0;
    for (const channel of channels) sum += channel[i];
    mixed[i] = 32767 * Math.max(-1, Math.min(1, sum / channels.length));
  }
  return mixed;
}

/** Return the blocks of a file. */
async function decode(file) {
  const audio = await new OfflineAudioContext(1, 1, FILE_RATE).decodeAudioData(await file.arrayBuffer());
  const samples = mix(Array.from({ length: audio.numberOfChannels }, (_, i) => audio.getChannelData(i)));
  const count = Math.ceil(samples.length / BLOCK);
  return Array.from({ length: count }, (_, i) => samples.subarray(i * BLOCK, (i + 1) * BLOCK));
}

// ---- the page ----

const STATES = {
  loading: "Loading",
  idle: "Ready",
  asking: "Waiting for the microphone",
  connecting: "Connecting",
  listening: "Listening",
  waiting: "Not connected",
  finishing: "Waiting for the last words",
  paused: "Paused",
};

let model = null; // what the server offers
let state = "loading";
let microphone = null;
let take = null;
let after = close; // what follows the take: close, rest or resume
let silent = 0; // s without sound
let awake = null; // a promise of what keeps the screen on
let fading = 0;

/** Show what the page does now. */
function show(name) {
  state = name;
  const file = take !== null && !take.live;
  const still = ["loading", "asking"].includes(name);
  const running = !still && name !== "idle";
  $("state").textContent = file && name === "listening" ? "Translating" : STATES[name];
  $("main").textContent = !running ? "Start" : file || name === "finishing" ? "Cancel" : "Stop";
  $("main").classList.toggle("ends", running);
  $("open").hidden = running;
  const pauses = name === "paused" || (name === "finishing" && after !== close);
  $("pause").hidden = file || !(pauses || name === "listening");
  $("pause").textContent = pauses && after !== resume ? "Resume" : "Pause";
  $("meter").hidden = !microphone || name === "paused";
  $("progress").hidden = !file;
  $("figures").hidden = !take;
  if (name !== "listening") $("behind").textContent = "";
  if (document.activeElement.hidden) $("main").focus();
}

/** Show a notice, or none; it fades after some seconds, if given; `again` is what "Try now" does. */
function say(text, { seconds = 0, again = null } = {}) {
  clearTimeout(fading);
  $("notice").hidden = !text;
  $("notice").classList.toggle("fades", seconds > 0);
  if ($("notice-text").textContent !== text) $("notice-text").textContent = text; // a screen reader reads it once
  $("again").hidden = !again;
  $("again").onclick = again;
  if (seconds) fading = setTimeout(() => say(""), 1000 * seconds);
}

/** Show how far the take is translated. */
function progress(translated) {
  $("clock").textContent = clock(take.live ? take.length : translated);
  $("behind").textContent = state === "listening" && take.live ? `${inSeconds(take.now - translated)} behind` : "";
  $("progress").value = take.live ? 0 : Math.min(1, translated / take.length) || 0; // of an empty file, too
}

/** Process a block of the microphone: show its level, and tell a speaker that cannot be heard. */
function hear(block) {
  if (!take || take.ended) return;
  take.push(block);
  $("clock").textContent = clock(take.length);
  const level = decibels(block);
  $("meter").ariaValueNow = Math.round(level);
  $("meter").firstElementChild.style.setProperty("--level", 1 - level / FLOOR);
  noticeSilence(level > FLOOR ? 0 : silent + block.length / take.rate);
}

/** Wake a microphone from which no blocks have come for some seconds: browsers suspend it during a call, for example. */
function wake(seconds) {
  microphone.context.resume();
  noticeSilence(Math.max(silent, seconds));
}

function noticeSilence(seconds) {
  const before = silent;
  silent = seconds;
  if (state !== "listening") return;
  if (before < SILENT && silent >= SILENT) say("No sound comes from the microphone. Check that it is not muted.");
  if (before >= SILENT && !silent) say("");
}

async function listen() {
  say("");
  show("asking");
  try {
    microphone = await Microphone.open(hear, unplugged);
  } catch (error) {
    show("idle");
    return say(refusal(error));
  }
  const now = new Date();
  const day = [now.getFullYear(), now.getMonth() + 1, now.getDate()].map(two).join("-");
  const [hours, minutes] = [now.getHours(), now.getMinutes()].map(two);
  const recording = new Recording(`Microphone, ${hours}:${minutes}`, `translation-${day}-${hours}${minutes}`, true);
  silent = 0;
  translate(new Take(recording, microphone.rate, 0, true));
}

async function translateFile(file) {
  say("");
  show("loading");
  let blocks = [];
  try {
    blocks = await decode(file);
  } catch {
    show("idle");
    return say(`The browser cannot decode ${file.name}. Open a file with audio, such as WAV, MP3, M4A, FLAC or Ogg.`);
  }
  const whole = new Take(new Recording(file.name, file.name.replace(/\.[^.]*$/, ""), false), FILE_RATE, 0, false);
  for (const block of blocks) whole.push(block);
  whole.end();
  translate(whole);
}

/** Translate the next take. */
function translate(next) {
  take = next;
  after = close;
  show("connecting");
  progress(take.offset);
  take.connect();
  stayAwake();
}

/** Keep the screen on: talks are longer than that. A browser gives it up when it shows another page. */
function stayAwake() {
  if (take && !take.over) awake = navigator.wakeLock?.request("screen").catch(() => null);
}

/** End the take; its last words still come. */
async function end(next) {
  const ending = take;
  after = next;
  show("finishing");
  await microphone.pause();
  ending.end();
}

/** Give up what is not translated yet. */
function abandon() {
  const lost = take.live && !take.ready ? take.length - take.heard : 0;
  after = close;
  take.finish();
  say(lost > 0 ? `The last ${inSeconds(lost)} were not translated.` : "");
}

/** Go on after a take. */
function goOn() {
  awake?.then((lock) => lock?.release());
  after();
}

function rest() {
  show("paused");
}

function close() {
  microphone?.close();
  microphone = take = null;
  show("idle");
  $("state").textContent = "Stopped";
}

function unplugged() {
  if (state === "paused") close();
  else if (!take.ended) end(close);
  say("The microphone was disconnected.");
}

function resume() {
  microphone.context.resume();
  translate(new Take(take.recording, take.rate, take.length, true));
}

/** Do what the first button shows. */
function press() {
  if (state === "idle") listen();
  else if (state === "paused") close();
  else if (state === "listening" && take.live) end(close);
  else if (take) abandon();
}

/** Do what the second button shows; while the last words come, for the time after them. */
function pressPause() {
  if (state === "paused") resume();
  else if (state === "listening") end(rest);
  else if (state === "finishing") {
    after = after === rest ? resume : rest;
    show("finishing");
  }
}

// ---- what can be chosen ----

/** Return a code of a language as pages and WebVTT write it. */
const language = () => $("target").value.replace("_", "-");
const policy = () => model.policies.find(({ name }) => name === $("policy").value);

/** Return the name of a language in English, or its code. */
function nameOf(code) {
  try {
    return new Intl.DisplayNames(["en"], { type: "language" }).of(code.replace("_", "-"));
  } catch {
    return code;
  }
}

/** Return what is chosen, for the server. */
function choice() {
  const { name, number } = policy();
  return { policy: name, number: number ? $("number").valueAsNumber : null, tgt_lang: $("target").value || null };
}

function fill(select, values, label) {
  select.replaceChildren(...values.map((value) => new Option(label(value), value)));
  select.parentElement.hidden = values.length < 2;
}

function showPair() {
  const [from, to] = [model.source, $("target").value].map((code) => code && nameOf(code));
  $("pair").textContent = from && to ? `${from} \u2192 ${to}` : to ? `Into ${to}` : "Live translation";
  document.title = $("pair").textContent;
  $("spoken-language").textContent = from ? ` ${from}` : "";
}

/** Show the number of the policy; for k also the speech before the first word. */
function showNumber() {
  const { name, number } = policy();
  const value = $("number").valueAsNumber;
  const speech = name === "wait-k" ? `, waits ${inSeconds(value * model.step_ms)}` : "";
  $("number-label").hidden = !number;
  $("number-name").textContent = number;
  $("number-value").textContent = `${value}${speech}`;
}

function choosePolicy() {
  const { default: standard, lowest, highest } = policy();
  Object.assign($("number"), { min: lowest, max: highest, value: standard });
  showNumber();
}

/** Let the take change from its next sentence on. */
function choose() {
  showPair();
  if (!take?.ready || take.ended) return;
  take.tell(choice());
  say("This holds from the next sentence on.", { seconds: 4 });
}

/** Get what the server offers, and show it if it is not the same as before. */
async function refresh() {
  const { name, source, target, policies, step_ms } = await (await fetch("model")).json();
  const offered = { name, source, target, policies, step_ms };
  if (JSON.stringify(offered) === JSON.stringify(model)) return;
  model = offered;
  $("model").textContent = model.name;
  fill($("target"), model.target, nameOf);
  fill($("policy"), model.policies.map(({ name }) => name), (name) => name);
  $("choices").hidden = false;
  choosePolicy();
  showPair();
}

async function load() {
  try {
    await refresh();
  } catch {
    return say("The server does not answer. Start mla-live, then try again.", { again: load });
  }
  $("main").disabled = $("open").disabled = false;
  show("idle");
  say(navigator.mediaDevices ? "" : INSECURE);
}

function begin() {
  $("main").addEventListener("click", press);
  $("pause").addEventListener("click", pressPause);
  $("open").addEventListener("click", () => state === "idle" && $("file").click());
  $("file").addEventListener("change", () => {
    const [file] = $("file").files;
    $("file").value = ""; // so that the same file can be opened again
    if (file && state === "idle") translateFile(file);
  });
  $("policy").addEventListener("change", () => {
    choosePolicy();
    choose();
  });
  $("target").addEventListener("change", choose);
  $("number").addEventListener("input", showNumber);
  $("number").addEventListener("change", choose);
  $("choices").addEventListener("submit", (event) => event.preventDefault());
  window.addEventListener("beforeunload", (event) => {
    if (take || recordings.some(({ saved }) => !saved)) event.preventDefault();
  });
  document.addEventListener("visibilitychange", stayAwake);
  window.addEventListener("scroll", noticeScroll);
  window.addEventListener("resize", scrollToEnd); // which turns a phone, too
  load();
}

// ---- the audio worklet: blocks of samples ----

if (globalThis.registerProcessor) {
  registerProcessor(
    "blocks",
    class extends AudioWorkletProcessor {
      constructor() {
        super();
        this.port.onmessage = () => {
          this.post();
          this.port.postMessage(null);
        };
        this.clear();
      }

      clear() {
        this.block = new Int16Array(BLOCK);
        this.filled = 0;
      }

      post() {
        if (this.filled) this.port.postMessage(this.block.subarray(0, this.filled), [this.block.buffer]);
        this.clear();
      }

      process([channels]) {
        for (const sample of channels.length ? mix(channels) : []) {
          this.block[this.filled] = sample;
          this.filled += 1;
          if (this.filled === BLOCK) this.post();
        }
        return true;
      }
    },
  );
} else {
  begin();
}
