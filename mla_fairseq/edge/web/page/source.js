// The source side of a session: samples in, encoder states out, as in mla_fairseq/streaming/source.py.

import { concat } from "./resample.js";

const WINDOW = 400; // samples of a frame
const SHIFT = 160; // samples between the starts of two frames
const BANKS = 80; // values of a frame
const UNKNOWN = 1e9; // frames of a recording that has not ended
const JUDGED = { ended: 0, speech: 1 }; // columns of the boundary output

export class Source {
  /** `judges`: keep the answers of the boundary output; `keeps`: keep the states, because a decoder needs them. */
  constructor(model, { judges = false, keeps = true } = {}) {
    Object.assign(this, { model, judges, keeps });
    this.state = model.fresh("encoder");
    this.tail = new Float32Array(0); // samples of the next frames
    this.samples = this.calls = 0;
    this.read = 0; // frames that the encoder got
    this.waiting = []; // states that are not taken
    this.taken = 0;
    this.ended = false;
    this.endings = []; // the probability that a sentence ended, at each judged state
    this.speech = []; // the probability of speech there
  }

  /** Frames of the samples so far. */
  get frames() {
    return this.samples < WINDOW ? 0 : 1 + Math.floor((this.samples - WINDOW) / SHIFT);
  }

  /** States so far, also those that were taken. */
  get available() {
    return this.taken + this.waiting.length;
  }

  async push(samples, final) {
    this.samples += samples.length;
    this.ended = final;
    if (!this.judges && !this.keeps) return;
    this.tail = concat(this.tail, samples);
    while (this.tail.length >= WINDOW + (this.wanted - 1) * SHIFT) await this.encode(this.wanted);
    if (!final) return;
    while (this.encoded < this.end || (this.judges && this.endings.length < this.end)) {
      await this.encode(Math.min(this.wanted, this.frames - this.read));
    }
  }

  /** Frames that the next step of the encoder needs; before those of the first step there is padding. */
  get wanted() {
    const { window, padding } = this.model.config;
    return this.calls ? window : window - padding;
  }

  /** Place of the first state of the next step; `lead` states come before the real ones. */
  get encoded() {
    const { chunk, lead } = this.model.config;
    return chunk * this.calls - lead;
  }

  /** States of the whole recording, once it has ended. */
  get end() {
    return this.ended ? Math.ceil(this.frames / this.model.config.frames_per_state) : Infinity;
  }

  /** Run a step of the encoder on the next `count` frames; at the end of the recording there may be none. */
  async encode(count) {
    const { window, chunk } = this.model.config;
    const input = new Float32Array(window * BANKS);
    if (count > 0) input.set(await this.banks(count), (window - this.wanted) * BANKS);
    const first = this.encoded;
    const frames = this.model.floats(input, [1, window, BANKS]);
    const length = this.model.integers(this.ended ? this.frames : UNKNOWN);
    const { outputs, state } = await this.model.step("encoder", { frames, length }, this.state);
    this.state = state;
    this.calls += 1;
    this.read += count;
    const real = (place) => place >= 0 && place < this.end;
    for (let i = 0; i < chunk; i += 1) {
      if (this.keeps && real(first + i)) this.waiting.push(row(outputs.states, i));
      if (this.judges && real(first + i - this.model.boundary.ahead)) this.judge(row(outputs.boundary, i));
    }
  }

  /** Return the next frames, normalised. */
  async banks(count) {
    const samples = new Float32Array(WINDOW + (this.model.config.window - 1) * SHIFT);
    samples.set(this.tail.subarray(0, samples.length));
    const { outputs } = await this.model.step("frontend", { samples: this.model.floats(samples, [1, samples.length]) });
    this.tail = this.tail.slice(count * SHIFT);
    return outputs.frames.data.subarray(0, count * BANKS); // those after them have samples that have not come
  }

  judge(logits) {
    this.endings.push(sigmoid(logits[JUDGED.ended]));
    this.speech.push(sigmoid(logits[JUDGED.speech]));
  }

  /** Remove and return the states before `upto`. */
  take(upto) {
    const states = this.waiting.splice(0, Math.max(0, upto - this.taken));
    this.taken += states.length;
    return states;
  }

  /** Keep no more states: no token will be decoded from them. */
  discard() {
    this.keeps = false;
    this.waiting = [];
  }
}

/** Return a row of a tensor (N, C). */
function row({ data, dims }, index) {
  const width = dims.at(-1);
  return data.slice(index * width, (index + 1) * width);
}

const sigmoid = (x) => 1 / (1 + Math.exp(-x));
