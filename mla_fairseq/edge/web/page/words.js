// Pieces of subwords become whole words, as in mla_fairseq/streaming/words.py.

const SPACE = "\u2581"; // begins a word
const DROPPED = /^(<s>|<lang:.+>)$/s; // the beginning of a sentence, and tags of target languages

/** Return the text of pieces. */
export function join(pieces) {
  const text = pieces.filter((piece) => !DROPPED.test(piece)).join("");
  return text.replaceAll(SPACE, " ").trim();
}

/** Return how many pieces are in whole words: those before the last piece that begins a word. */
export function whole(pieces) {
  return Math.max(0, pieces.findLastIndex((piece) => piece.startsWith(SPACE)));
}
