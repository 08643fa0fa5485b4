// The page: a microphone or a file becomes subtitles, by the worker.

import { decibels, RATE } from "./detectors.js";
import { INSECURE, Microphone, decode, refusal } from "./microphone.js";
import { store } from "./offline.js";
import { Recording, clock, inSeconds, two } from "./recording.js";

const FLOOR = -60; // dB at the left end of the meter
const SILENT = 5; // s below that after which the page asks whether the microphone is muted
const STATES = {
  loading: "Loading",
  idle: "Ready",
  asking: "Waiting for the microphone",
  listening: "Listening",
  finishing: "Waiting for the last words",
  paused: "Paused",
};

const $ = (id) => document.getElementById(id);
const recordings = [];
let worker = null;
let model = null; // its config.json
let state = "loading";
let microphone = null;
let take = null; // a part of a recording without a break
let pausing = false; // whether the recording goes on after the take
let silent = 0; // s without sound
let awake = null; // keeps the screen on
let fading = 0;

const send = (task, value, transfer = []) => worker.postMessage({ task, value }, transfer);

/** Show what the page does now. */
function show(name) {
  state = name;
  const file = take?.live === false;
  const running = ["listening", "finishing", "paused"].includes(name);
  $("state").textContent = file && running ? "Translating" : STATES[name];
  $("main").textContent = !running ? "Start" : file || name === "finishing" ? "Cancel" : "Stop";
  $("main").classList.toggle("ends", running);
  $("main").disabled = $("open").disabled = !model; // later they stay enabled: a disabled button loses the focus
  $("open").hidden = running;
  $("pause").hidden = file || !["listening", "paused"].includes(name);
  $("pause").textContent = name === "paused" ? "Resume" : "Pause";
  $("meter").hidden = !microphone || name === "paused";
  $("progress").hidden = !file;
  if (document.activeElement.hidden) $("main").focus();
}

/** Show a notice, or none; it fades after some seconds, if given. */
function say(text, seconds = 0) {
  clearTimeout(fading);
  $("notice").hidden = !text;
  $("notice").classList.toggle("fades", seconds > 0);
  $("notice-text").textContent = text;
  if (seconds) fading = setTimeout(() => say(""), 1000 * seconds);
}

// ---- takes ----

/** Translate audio of a rate, from `offset` ms of the recording on. */
function begin(recording, rate, offset, live) {
  take = { recording, rate, offset, live, samples: 0, ended: 0, stretch: null };
  pausing = false;
  send("begin", { rate, choice: choice() });
  $("figures").hidden = false;
  show("listening");
  stayAwake();
}

/** Where the audio of the take ends in the recording, in ms. */
const length = () => take.offset + (take.samples * 1000) / take.rate;

/** The same for the speaker, whose clock goes on after the last audio. */
const now = () => length() + (take.ended && performance.now() - take.ended);

function push(samples) {
  take.samples += samples.length;
  send("samples", samples, [samples.buffer]);
}

/** Write words; there are none where a sentence ends after its last word. */
function write({ text, stretch, start, time, ended }) {
  if (text && stretch !== take.stretch) {
    take.stretch = stretch;
    take.recording.complete();
    take.recording.begin(take.offset + start, language());
  }
  if (text) take.recording.add(text, take.live ? now() - take.offset - time : null);
  if (ended && stretch === take.stretch) take.recording.complete();
}

function progress(heard, factor) {
  $("clock").textContent = clock(take.live ? length() : take.offset + heard);
  const behind = take.live ? now() - take.offset - heard : 0;
  const late = behind > 1000 && state === "listening" ? ` \u00b7 ${inSeconds(behind)} behind` : "";
  $("behind").textContent = `real-time factor ${factor.toFixed(2)}${late}`;
  $("progress").value = take.live ? 0 : Math.min(1, heard / length()) || 0; // of an empty file, too
}

/** End the take; its last words still come. */
async function end(pauses) {
  const ending = take;
  pausing = pauses;
  show("finishing");
  await microphone.pause();
  if (take !== ending) return; // it was given up meanwhile
  ending.ended = performance.now();
  send("end");
}

/** Give up what is not translated yet. */
function abandon() {
  send("abandon");
  pausing = false;
  finish();
}

/** Go on after a take. */
function finish() {
  take.recording.complete();
  if (pausing) show("paused");
  else close();
}

function close() {
  microphone?.close();
  microphone = take = null;
  awake?.release();
  show("idle");
  $("state").textContent = "Stopped";
}

const answers = {
  ready: ready,
  words: (words) => take && write(words),
  heard: (heard, { factor }) => take && progress(heard, factor),
  end: () => take && finish(),
  error: (text) => {
    say(`${take ? "The translation has stopped" : "The page cannot start"}: ${text}.`);
    if (take) close();
    else $("state").textContent = "Not ready";
  },
};

// ---- the microphone and files ----

/** Process samples of the microphone: show their level, and tell a speaker that cannot be heard. */
function hear(samples) {
  if (!take || take.ended) return;
  const level = Math.max(FLOOR, decibels(samples));
  $("meter").setAttribute("aria-valuenow", Math.round(level));
  $("meter").firstElementChild.style.setProperty("--level", 1 - level / FLOOR);
  const before = silent;
  silent = level > FLOOR ? 0 : silent + samples.length / take.rate;
  if (before < SILENT && silent >= SILENT) say("No sound comes from the microphone. Check that it is not muted.");
  if (before >= SILENT && !silent) say("");
  push(samples);
  $("clock").textContent = clock(length());
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
  const time = new Date();
  const day = [time.getFullYear(), time.getMonth() + 1, time.getDate()].map(two).join("-");
  const [hours, minutes] = [time.getHours(), time.getMinutes()].map(two);
  silent = 0;
  begin(record(`Microphone, ${hours}:${minutes}`, `translation-${day}-${hours}${minutes}`), microphone.rate, 0, true);
}

async function translateFile(file) {
  say("");
  show("loading");
  let samples = null;
  try {
    samples = await decode(file);
  } catch {
    show("idle");
    return say(`The browser cannot decode ${file.name}. Open a file with audio, such as WAV, MP3, M4A, FLAC or Ogg.`);
  }
  const recording = record(file.name, file.name.replace(/\.[^.]*$/, ""));
  recording.section.classList.add("file");
  begin(recording, RATE, 0, false);
  push(samples);
  send("end");
}

function record(title, name) {
  const recording = new Recording(title, name, say);
  recordings.push(recording);
  return recording;
}

function unplugged() {
  if (state === "paused") close();
  else if (state === "listening") end(false);
  say("The microphone was disconnected.");
}

async function resume() {
  await microphone.resume();
  begin(take.recording, take.rate, length(), true);
}

/** Keep the screen on: talks are longer than that. A browser gives it up when it shows another page. */
async function stayAwake() {
  awake?.release();
  if (take) awake = await navigator.wakeLock?.request("screen").catch(() => null);
}

// ---- what can be chosen ----

/** Return a code of a language as pages write it. */
const language = () => ($("target").value || model.languages?.target || "").replace("_", "-");
const choice = () => ({ lagging: $("number").valueAsNumber, language: $("target").value });

/** Return the name of a language in English, or its code. */
function nameOf(code) {
  try {
    return new Intl.DisplayNames(["en"], { type: "language" }).of(code.replace("_", "-"));
  } catch {
    return code;
  }
}

/** Show k, and the speech before the first word. */
function showChoice() {
  const [from, to] = [model.languages?.source, language()].map((code) => code && nameOf(code));
  $("pair").textContent = from && to ? `${from} \u2192 ${to}` : to ? `Into ${to}` : "Translation on this device";
  document.title = $("pair").textContent;
  $("spoken-language").textContent = from ? ` ${from}` : "";
  const value = $("number").valueAsNumber;
  $("number-value").textContent = `${value}, waits ${inSeconds(value * model.policy.ratio * 40)}`;
}

/** Let the take change from its next sentence on. */
function choose() {
  showChoice();
  if (state !== "listening") return;
  send("choose", choice());
  say("This holds from the next sentence on.", 4);
}

function ready(config, { bytes }) {
  model = config;
  const [lowest, highest] = model.policy.lagging;
  Object.assign($("number"), { min: lowest, max: highest, value: Math.floor((lowest + highest) / 2) });
  $("number-label").hidden = lowest === highest;
  $("target").replaceChildren(...Object.keys(model.forced).map((code) => new Option(nameOf(code), code)));
  $("target-label").hidden = $("target").options.length < 2;
  $("choices").hidden = false;
  const place = offline ? "works offline" : "needs the network to load";
  const facts = [megabytes(bytes, 1), place, "all computed on this device"];
  $("model").textContent = facts.join(" \u00b7 ");
  showChoice();
  show("idle");
  if (!navigator.mediaDevices) say(INSECURE);
}

// ---- start ----

let offline = false; // whether the browser has all files

async function start() {
  offline = await store(
    (stored, total) => state === "loading" && loading(`Loading, ${megabytes(stored, 0)} of ${megabytes(total, 0)}`),
    () => say("A new version is stored. Close this page and open it again to use it."),
  );
  loading(STATES.loading);
  worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  worker.onerror = () => answers.error("the browser cannot run this page: use a newer one");
  worker.onmessage = ({ data }) => {
    const [name] = Object.keys(data);
    answers[name](data[name], data);
  };
}

/** Show what is loaded; a screen reader reads only what changes. */
function loading(text) {
  if ($("state").textContent !== text) $("state").textContent = text;
}

const megabytes = (bytes, digits) => `${(bytes / 1e6).toFixed(digits)} MB`;

function press() {
  if (state === "idle") listen();
  else if (state === "paused") close();
  else if (state === "listening" && take.live) end(false);
  else if (take) abandon();
}

$("main").addEventListener("click", press);
$("pause").addEventListener("click", () => (state === "paused" ? resume() : end(true)));
$("open").addEventListener("click", () => state === "idle" && $("file").click());
$("file").addEventListener("change", () => {
  const [file] = $("file").files;
  $("file").value = ""; // so that the same file can be opened again
  if (file && state === "idle") translateFile(file);
});
$("number").addEventListener("input", showChoice);
$("number").addEventListener("change", choose);
$("target").addEventListener("change", choose);
$("choices").addEventListener("submit", (event) => event.preventDefault());
window.addEventListener("beforeunload", (event) => {
  if (take || recordings.some(({ saved }) => !saved)) event.preventDefault();
});
document.addEventListener("visibilitychange", stayAwake);
start();
