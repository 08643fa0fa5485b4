// The translation of one stretch of speech under wait-k, by the likeliest token at each step, as in
// mla_fairseq/streaming/incremental.py with a beam of 1.

import { concat } from "./resample.js";
import { Source } from "./source.js";
import { join, whole } from "./words.js";

export class Session {
  /** `choice`: `lagging` (k), and `language` of a model that has several. */
  constructor(model, choice, judges = false) {
    Object.assign(this, { model, lagging: choice.lagging });
    this.forced = model.config.forced[choice.language] ?? [];
    this.source = new Source(model, { judges });
    this.reader = model.fresh("reader");
    this.decoder = model.fresh("decoder");
    this.tokens = []; // with those that are forced
    this.committed = 0; // tokens whose words were emitted
    this.ended = false;
  }

  /** Process samples at 16 kHz and return the words that are final now. */
  async push(samples, final = false) {
    const before = this.source.available;
    await this.source.push(samples, final);
    return this.source.available > before || final ? this.decode() : [];
  }

  async decode() {
    const emissions = [];
    while (!this.ended) {
      const { states, atEnd } = this.ask();
      if (!states) break;
      await this.extend(states, atEnd);
      if (this.ended || !atEnd) emissions.push(...this.commit());
    }
    if (this.ended) this.source.discard();
    return emissions;
  }

  /** Return how many states the next token reads, 0 if it waits, and whether only because no more will come. */
  ask() {
    const { available, ended } = this.source;
    const required = this.model.config.policy.ratio * (this.lagging + Math.max(0, this.length));
    if (available >= required) return { states: required, atEnd: false };
    return { states: ended ? available : 0, atEnd: true };
  }

  /** Tokens that are not forced; negative while some of those are missing. */
  get length() {
    return this.tokens.length - this.forced.length;
  }

  /** Decode a token from the first `states` states. */
  async extend(states, atEnd) {
    await this.readStates(states);
    const { eos } = this.model.config;
    const last = this.tokens.at(-1) ?? eos;
    const data = { tokens: this.model.integers(...Array(this.model.beam).fill(last)), ...this.memories };
    const { outputs, state } = await this.model.step("decoder", data, this.decoder);
    this.decoder = state;
    const token = this.choose(outputs.scores.data, outputs.scores.dims.at(-1), atEnd);
    if (token === eos) this.ended = true;
    else this.tokens.push(token);
  }

  /** Give the decoder the states before `upto`. */
  async readStates(upto) {
    const { chunk } = this.model.config;
    const states = this.source.take(upto);
    for (let start = 0; start < states.length; start += chunk) {
      const some = states.slice(start, start + chunk);
      const rows = concat(...some, new Float32Array((chunk - some.length) * some[0].length));
      const data = { states: this.model.floats(rows, [chunk, some[0].length]), count: this.model.integers(some.length) };
      this.reader = (await this.model.step("reader", data, this.reader)).state;
    }
  }

  /** What the decoder gets from the reader. */
  get memories() {
    const names = this.model.graphs.decoder.inputNames.filter((name) => name in this.reader);
    return Object.fromEntries(names.map((name) => [name, this.reader[name]]));
  }

  /** Return the likeliest token among those that may come next. */
  choose(scores, symbols, atEnd) {
    const { eos, pad } = this.model.config;
    if (this.length < 0) return this.forced[this.tokens.length];
    if (this.length >= this.longest(atEnd)) return eos;
    let best = -1;
    for (let token = 0; token < symbols; token += 1) {
      if (Number.isNaN(scores[token])) throw new Error("the scores of the model are not finite: export another checkpoint");
      if (token === pad || (token === eos && this.length === 0)) continue;
      if (best < 0 || scores[token] > scores[best]) best = token;
    }
    return best;
  }

  /** Return the largest number of tokens, from the frames that the token may depend on. */
  longest(atEnd) {
    const { max_len_a: a, max_len_b: b, frames_per_state: each, ahead } = this.model.config;
    const { frames, taken } = this.source;
    return Math.max(1, Math.floor(a * (atEnd ? frames : Math.min(frames, each * taken + ahead)) + b));
  }

  /** Return the words that have become final. */
  commit() {
    const pieces = this.tokens.slice(this.forced.length).map((token) => this.model.symbols[token]);
    const end = this.ended ? pieces.length : whole(pieces);
    const text = join(pieces.slice(this.committed, end));
    this.committed = Math.max(this.committed, end);
    return text || this.ended ? [{ text, states: this.source.available, ended: this.ended }] : [];
  }
}
