// Any sample rate to 16 kHz, as samples arrive: a sinc, windowed by Kaiser's window, one row of weights for each phase.

import { RATE } from "./detectors.js";

const CROSSINGS = 48; // zeros of the sinc on each side: 3 ms at 16 kHz
const BETA = 9; // Kaiser's parameter: what is cut off is 90 dB weaker
const EDGE = 0.945; // where the filter lets half through, as a part of the lower one of both Nyquist frequencies

export class Resampler {
  constructor(rate) {
    const common = divisor(RATE, rate);
    this.up = RATE / common; // phases: after `up` outputs the filter has moved by `down` samples
    this.down = rate / common;
    const cutoff = EDGE * Math.min(1, RATE / rate);
    this.half = Math.ceil(CROSSINGS / cutoff); // samples on each side
    this.rows = Array.from({ length: this.up }, (_, phase) => weights(phase / this.up, this.half, cutoff));
    this.held = new Float32Array(this.half - 1); // samples that the next output needs; zeros before the first one
    this.phase = 0;
    this.taken = this.given = 0; // samples
  }

  /** Return the samples at 16 kHz that the next samples complete; `final` adds those that the filter holds back. */
  push(samples, final = false) {
    if (this.up === this.down) return samples;
    this.taken += samples.length;
    const held = concat(this.held, samples, new Float32Array(final ? this.half + 1 : 0));
    const most = final ? Math.ceil((this.taken * this.up) / this.down) - this.given : Infinity;
    const out = [];
    let start = 0;
    while (start + 2 * this.half <= held.length && out.length < most) {
      out.push(dot(this.rows[this.phase], held, start));
      this.phase += this.down;
      start += Math.floor(this.phase / this.up);
      this.phase %= this.up;
    }
    this.held = held.slice(start);
    this.given += out.length;
    return Float32Array.from(out);
  }
}

function dot(row, samples, start) {
  let sum = 0;
  for (let i = 0; i < row.length; i += 1) sum += row[i] * samples[start + i];
  return sum;
}

/** Return the weights of the samples around a place that is `fraction` after one of them. */
function weights(fraction, half, cutoff) {
  const row = Float64Array.from({ length: 2 * half }, (_, i) => {
    const distance = i - (half - 1) - fraction;
    const x = Math.PI * cutoff * distance;
    const sinc = Math.abs(x) < 1e-9 ? 1 : Math.sin(x) / x;
    return sinc * bessel(BETA * Math.sqrt(Math.max(0, 1 - (distance / half) ** 2)));
  });
  const sum = row.reduce((total, weight) => total + weight, 0);
  return row.map((weight) => weight / sum); // the level of a constant does not depend on the phase
}

/** Return the modified Bessel function of order 0. */
function bessel(x) {
  let sum = 1;
  let term = 1;
  for (let n = 1; term > 1e-12 * sum; n += 1) sum += term *= (x / (2 * n)) ** 2;
  return sum;
}

const divisor = (a, b) => (b ? divisor(b, a % b) : a);

export function concat(...arrays) {
  const all = new Float32Array(arrays.reduce((length, array) => length + array.length, 0));
  let place = 0;
  for (const array of arrays) {
    all.set(array, place);
    place += array.length;
  }
  return all;
}
