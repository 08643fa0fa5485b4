// Where speech begins and ends: the rules and numbers of mla_fairseq/streaming/detectors.py and boundary.py.

export const RATE = 16000;
export const BLOCK = 640; // samples: 40 ms, the length of an encoder state

const FRAME = 320; // samples whose energy is one level
const MARGIN = 12; // dB above the noise floor from which a frame is speech
const RISE = 0.02; // dB per frame by which the floor follows noise that becomes louder
const LOWEST = -72; // dB of the lowest floor
const INITIAL = -40; // dB of the floor before the first frame

const FIRST = 10; // states of a sentence before the first one at which it can end
const ENDED = 0.5; // probability above which a sentence has ended
const WITNESSED = 0.25; // the same once the decoder has ended the sentence
const PATIENCE = 15; // judged states after which the end of the decoder is believed alone
const COMPARED = 3; // states whose probabilities are compared

/** A detector by energy, for models without a boundary output. */
export class EnergyDetector {
  floor = INITIAL;

  /** Return whether the last 20 ms of the next block are speech. */
  push(block) {
    let loud = false;
    for (let start = 0; start + FRAME <= block.length; start += FRAME) {
      const level = decibels(block.subarray(start, start + FRAME));
      this.floor = Math.max(LOWEST, Math.min(level, this.floor + RISE)); // falls at once, rises slowly
      loud = level > this.floor + MARGIN;
    }
    return loud;
  }
}

/** Return the level of samples in dB of full scale. */
export function decibels(samples) {
  let power = 0;
  for (const sample of samples) power += sample * sample;
  return 10 * Math.log10(power / samples.length + 1e-9);
}

/** Return the first block of speech after the last pause of `pause` blocks; the number of blocks if there is none. */
export function onset(speech, pause) {
  let first = speech.length;
  let quiet = 0;
  speech.forEach((loud, place) => {
    quiet = loud ? 0 : quiet + 1;
    if (quiet >= pause) first = speech.length;
    else if (loud && first === speech.length) first = place;
  });
  return first;
}

/** Return the first of `pause` blocks without speech, from block `after` on; null without a pause. */
export function firstPause(speech, pause, after) {
  let quiet = 0;
  for (let place = after; place < speech.length; place += 1) {
    quiet = speech[place] ? 0 : quiet + 1;
    if (quiet === pause) return place - pause + 1;
  }
  return null;
}

/**
 * Return the state at which a sentence ended; null: not yet known.
 *
 * `ended` has the probability at each judged state, `decoded` the states available when the decoder ended the sentence,
 * or null.
 */
export function sentenceEnd(ended, decoded) {
  const enough = decoded === null ? ENDED : WITNESSED;
  const first = ended.findIndex((probability, place) => place >= FIRST && probability > enough);
  if (first >= 0) return first + COMPARED <= ended.length ? likeliest(ended, first, first + COMPARED) : null;
  const patient = decoded !== null && ended.length >= Math.max(decoded + PATIENCE, FIRST + 1);
  return patient ? likeliest(ended, FIRST, ended.length) : null;
}

function likeliest(values, first, end) {
  let best = first;
  for (let place = first; place < end; place += 1) if (values[place] > values[best]) best = place;
  return best;
}
