// The translation of a recording of any length: the rules of mla_fairseq/streaming/long.py.

import { BLOCK, EnergyDetector, RATE, firstPause, onset, sentenceEnd } from "./detectors.js";
import { concat } from "./resample.js";
import { Session } from "./session.js";
import { Source } from "./source.js";

const LIKELY = 0.5; // probability above which a state is speech
const CERTAIN = 0.997; // the same before a stretch opens
const SPEECH = 6; // blocks of speech that open a stretch
const REST = 10; // blocks of speech after a cut that are worth a stretch
const LISTENING = 250; // blocks after which the encoder that listens to silence starts again
const PAUSE = 4; // blocks without speech that end a stretch

export class LongSession {
  /** `choice` of `Session` holds from the next stretch on; it may be replaced. */
  constructor(model, choice) {
    Object.assign(this, { model, choice });
    this.longest = Math.round((model.config.longest * RATE) / BLOCK);
    this.detector = model.boundary ? null : new EnergyDetector();
    this.stretch = -1; // number of the current or last one
    this.opened = 0; // its first sample
    this.silence = 0; // samples before the first one that is not 0
    this.tail = new Float32Array(0); // samples of the next block
    this.start = 0; // the first block kept
    this.kept = [];
    this.speech = []; // whether the kept blocks are speech, as far as that is known
    this.finished = this.written = false;
    this.decoded = null; // states at which the decoder ended the sentence of the stretch
    this.beginGap(false);
  }

  /** Process samples at 16 kHz and return the words that are final now. */
  async push(samples, final = false) {
    const waiting = this.withoutLeadingZeros(concat(this.tail, samples));
    const end = waiting.length - (waiting.length % BLOCK);
    this.tail = waiting.slice(end);
    const emissions = [];
    for (let place = 0; place < end; place += BLOCK) {
      emissions.push(...(await this.step(waiting.slice(place, place + BLOCK))));
    }
    this.finished = final;
    return final ? emissions.concat(await this.end()) : emissions;
  }

  /** Drop zeros at the start of the recording, so that any number of them gives the same blocks. */
  withoutLeadingZeros(waiting) {
    if (this.start || this.kept.length) return waiting;
    const first = waiting.findIndex((sample) => sample !== 0);
    const zeros = first < 0 ? waiting.length : first;
    this.silence += zeros;
    return waiting.slice(zeros);
  }

  async step(block) {
    this.kept.push(block);
    if (this.detector) this.speech.push(this.detector.push(block));
    const emissions = [];
    while (this.session || (await this.open())) {
      emissions.push(...(await this.feed())); // a stretch that ends may be followed by another one at once
      const end = this.findEnd();
      if (!end) break;
      emissions.push(...(await this.close(end)));
    }
    return emissions;
  }

  /** Wait for speech from the first kept block on; `afterCut`: the last stretch did not end with a pause. */
  beginGap(afterCut) {
    this.session = this.ear = null;
    this.afterCut = afterCut;
    this.fed = 0; // kept blocks that the current encoder got
    if (this.detector) return;
    this.speech = [];
    this.ear = new Source(this.model, { judges: true, keeps: false });
  }

  /** Open a stretch if speech has lasted; in any case drop the samples before it. */
  async open() {
    await this.listen();
    const first = onset(this.speech, PAUSE);
    const lasting = this.speech.slice(first).filter(Boolean).length >= SPEECH;
    this.drop(Math.max(0, first - 1));
    if (lasting) this.beginStretch();
    else if (this.ear?.speech.length >= LISTENING && !this.speech.some(Boolean)) {
      const answers = this.speech;
      this.beginGap(this.afterCut);
      this.speech = answers;
      this.fed = answers.length; // the new encoder starts with the first block that has no answer
    }
    return lasting;
  }

  /** Let the encoder process the kept blocks that are new to it, and take its answers. */
  async listen() {
    if (!this.ear) return;
    const known = this.ear.speech.length;
    await this.ear.push(this.newSamples(), this.finished);
    this.fed = this.kept.length;
    this.speech.push(...above(CERTAIN, this.ear.speech.slice(known)));
  }

  beginStretch() {
    this.stretch += 1;
    this.opened = this.silence + this.start * BLOCK;
    this.session = new Session(this.model, this.choice, !!this.model.boundary);
    this.ear = null;
    this.fed = 0;
    this.written = false;
    this.decoded = null;
  }

  /** Push the blocks that are new to the session. */
  async feed() {
    const emissions = [];
    for (; this.session && this.fed < this.kept.length; this.fed += 1) {
      emissions.push(...this.inStream(await this.session.push(this.kept[this.fed])));
    }
    return emissions;
  }

  /** Return the kept block at which the stretch ended, and whether it was cut there without a pause. */
  findEnd() {
    const { endings, speech } = this.session.source;
    const pause = firstPause(this.detector ? this.speech : above(LIKELY, speech), PAUSE, SPEECH);
    if (pause !== null) return { place: pause, cut: false };
    const sentence = this.model.boundary ? sentenceEnd(endings, this.decoded) : null;
    if (sentence !== null) return { place: sentence, cut: true };
    return this.kept.length >= this.longest ? { place: this.kept.length, cut: true } : null;
  }

  /** End the stretch: its session translates all samples so far, and the next one may begin at block `place`. */
  async close({ place, cut }) {
    const rest = this.afterCut && !cut && place < REST; // the last sounds of the sentence that was cut
    let emissions = [];
    if (this.session && (this.written || !rest)) {
      emissions = this.inStream(await this.session.push(this.newSamples(), true));
    }
    this.drop(place);
    this.beginGap(cut);
    return emissions;
  }

  /** Translate what is left at the end of the recording. */
  async end() {
    const emissions = this.session || (await this.open()) ? await this.feed() : [];
    return emissions.concat(await this.close({ place: this.kept.length, cut: false }));
  }

  /** Return the kept samples that the current encoder did not get; at the end of the recording, all others too. */
  newSamples() {
    return concat(...this.kept.slice(this.fed), this.finished ? this.tail : new Float32Array(0));
  }

  /** Drop the first kept blocks. */
  drop(blocks) {
    this.start += blocks;
    this.fed = Math.max(0, this.fed - blocks);
    this.kept = this.kept.slice(blocks);
    this.speech = this.speech.slice(blocks);
  }

  /** Return emissions of the current stretch with their place in the stream, in ms. */
  inStream(emissions) {
    this.written ||= emissions.some(({ text }) => text);
    this.decoded ??= emissions.find(({ ended }) => ended)?.states ?? null;
    const blocks = this.silence + (this.start + this.kept.length) * BLOCK;
    const time = ((blocks + (this.finished ? this.tail.length : 0)) * 1000) / RATE;
    const start = (this.opened * 1000) / RATE;
    return emissions.map(({ text, ended }) => ({ text, ended, time, stretch: this.stretch, start }));
  }
}

const above = (limit, probabilities) => probabilities.map((probability) => probability > limit);
