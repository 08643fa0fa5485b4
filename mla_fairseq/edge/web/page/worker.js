// Translates in a thread of its own, so that the page stays fluent. Messages: see `tasks`.

import * as ort from "./ort/ort.js";

import { LongSession } from "./long.js";
import { loadModel } from "./model.js";
import { Resampler } from "./resample.js";

const SLICE = 0.12; // s of audio between two answers to the page

ort.env.wasm.numThreads = 1; // more threads need headers that simple servers do not send
ort.env.logLevel = "error";

let model = null;
let bytes = 0; // of its files
let take = null; // the session, with its resampler and the time that it took
let work = load();

const tasks = {
  /** Begin to translate samples of a rate; `choice` as for `LongSession`. */
  begin({ rate, choice }) {
    take = { rate, resampler: new Resampler(rate), session: new LongSession(model, choice), heard: 0, spent: 0 };
  },

  /** Choose again; it holds from the next sentence on. */
  choose(choice) {
    if (take) take.session.choice = choice;
  },

  /** Translate samples in [-1, 1]. */
  async samples(samples) {
    const current = take;
    const size = Math.round(SLICE * (current?.rate ?? 1));
    for (let start = 0; start < samples.length && current && take === current; start += size) {
      await translate(samples.subarray(start, start + size), false);
      await new Promise((resolve) => setTimeout(resolve)); // so that a message to give up arrives
    }
  },

  /** Translate what is left. */
  async end() {
    if (!take) return;
    await translate(new Float32Array(0), true);
    take = null;
    postMessage({ end: true });
  },
};

/** Do one task after another; only giving up is done at once. */
onmessage = ({ data: { task, value } }) => {
  if (task === "abandon") take = null;
  else work = work.then(() => tasks[task](value)).catch(fail);
};

async function translate(samples, final) {
  const current = take;
  const begin = performance.now();
  current.heard += samples.length / current.rate;
  const emissions = await current.session.push(current.resampler.push(samples, final), final);
  current.spent += (performance.now() - begin) / 1000;
  if (take !== current) return;
  for (const emission of emissions) postMessage({ words: emission });
  postMessage({ heard: current.heard * 1000, factor: current.spent / current.heard });
}

async function load() {
  try {
    model = await loadModel(ort, read);
    postMessage({ ready: model.config, bytes });
  } catch (error) {
    fail(error);
  }
}

/** Return a file of the model, which is beside the page. */
async function read(name) {
  const response = await fetch(new URL(`../${name}`, import.meta.url));
  if (!response.ok) throw new Error(`${name} is missing (${response.status}): copy the whole folder to the server again`);
  const file = new Uint8Array(await response.arrayBuffer());
  bytes += file.length;
  return file;
}

function fail(error) {
  take = null;
  postMessage({ error: String(error.message ?? error) });
}
