"""Score offline translation: read the output of ``fairseq-generate``, compute BLEU and chrF with sacrebleu."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from pathlib import Path

from mla_fairseq.files import check_file, read_text, read_tsv
from mla_fairseq.transcripts import normalise

logger = logging.getLogger(__name__)

_SPEED = re.compile(r"Translated .* in [\d.]+s \(([\d.]+) sentences/s, ([\d.]+) tokens/s\)")


_TRANSLATION = re.compile(r"D-(\d+)\t[^\t]*\t(.*)")
_TRANSCRIPT = re.compile(r"C-(\d+)\t(.*)")


@dataclass(frozen=True)
class Generated:
    """An output of ``fairseq-generate``: the best translation for each row of the manifest, and the decoding speed.

    ``transcripts`` are those of CTC, and empty without such an output.
    """

    translations: dict[int, str]
    sentences_per_second: float | None = None
    tokens_per_second: float | None = None
    transcripts: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Quality:
    """Corpus scores (0 to 100), with sacrebleu's signatures: how they were computed."""

    bleu: float
    chrf: float
    bleu_signature: str
    chrf_signature: str
    sentences: int


def read_generated(path: str | Path, log: str | Path | None = None) -> Generated:
    """Read the first ``D-`` line (detokenised) of each sentence, and its ``C-`` line (transcript) if there is one.

    Args:
        path: standard output of ``fairseq-generate``.
        log: its standard error, which contains the speed if logging was configured before fairseq did it.

    Raises:
        ValueError: a missing file, or no translation in it.
    """
    path = check_file(Path(path), "run fairseq-generate (the decode stage) first")
    translations: dict[int, str] = {}
    lines = read_text(path).split("\n")
    for line in lines:
        if line.startswith("D-"):
            if not (match := _TRANSLATION.fullmatch(line)):
                raise ValueError(f"{path} has a line that is cut short ({line[:40]!r}): run fairseq-generate again")
            translations.setdefault(int(match[1]), match[2])
    if not translations:
        raise ValueError(f"{path} contains no translation (no line starts with 'D-'): run fairseq-generate again")
    if log and Path(log).is_file():
        lines += read_text(Path(log)).split("\n")
    transcripts = {int(match[1]): match[2] for line in lines if (match := _TRANSCRIPT.fullmatch(line))}
    return Generated(translations, *_last_speed(lines), transcripts)


def _last_speed(lines: list[str]) -> tuple[float | None, float | None]:
    """Return sentences and tokens per second of the last run in the lines; a log may contain several."""
    for line in reversed(lines):
        if match := _SPEED.search(line):
            return float(match.group(1)), float(match.group(2))
    return None, None


def read_references(manifest: str | Path, column: str = "tgt_text") -> list[str]:
    """Return a column of a manifest, in the order of its rows.

    Raises:
        ValueError: a row has no such column, or the file is not UTF-8.
    """
    rows = read_tsv(Path(manifest))
    for number, row in enumerate(rows, start=2):
        if column not in row:
            raise ValueError(f"{manifest}:{number} has no {column}: prepare the data again")
    return [row[column] for row in rows]


def read_sets(folder: Path, subset: str) -> dict[str, list[str]]:
    """Return the references of each set that ``--gen-subset`` names, such as ``a,b``; see ``read_references``."""
    return {name: read_references(folder / f"{name}.tsv") for name in subset.split(",")}


def score_sets(
    texts: list[str], references: dict[str, list[str]], tokenize: str = "13a", lowercase: bool = False
) -> dict[str, Quality]:
    """Return the scores of each set; ``texts`` are the translations of all sets, one after the other."""
    scores, begin = {}, 0
    for name, lines in references.items():
        scores[name] = score(texts[begin : begin + len(lines)], lines, tokenize, lowercase)
        begin += len(lines)
    return scores


def pair_up(generated: Generated, references: list[str]) -> list[str]:
    """Return the translations in the order of the references; a skipped sentence gets an empty one.

    Raises:
        ValueError: a translation of a row that the manifest does not have.
    """
    beyond = [row for row in generated.translations if row >= len(references)]
    if beyond:
        raise ValueError(
            f"the translation of row {beyond[0]} has no reference (the manifest has {len(references)} rows): "
            "the output is of another split, decode this one again"
        )
    missing = [row for row in range(len(references)) if row not in generated.translations]
    if missing:
        logger.warning("%d of %d sentences were not translated and are scored as empty", len(missing), len(references))
    return [generated.translations.get(row, "") for row in range(len(references))]


def score(translations: list[str], references: list[str], tokenize: str = "13a", lowercase: bool = False) -> Quality:
    """Return corpus BLEU and chrF."""
    from sacrebleu.metrics import BLEU, CHRF

    bleu, chrf = BLEU(tokenize=tokenize, lowercase=lowercase), CHRF(lowercase=lowercase)
    bleu_score, chrf_score = (metric.corpus_score(translations, [references]).score for metric in (bleu, chrf))
    # after scoring: the signature contains the number of references
    bleu_signature, chrf_signature = (str(metric.get_signature()) for metric in (bleu, chrf))
    return Quality(bleu_score, chrf_score, bleu_signature, chrf_signature, sentences=len(references))


def word_error_rate(transcripts: list[str], references: list[str]) -> float:
    """Return substitutions, insertions and deletions per 100 reference words, over the corpus.

    Texts are split at white space; differences of case and punctuation are errors.

    Raises:
        ValueError: no word in the references, or another number of transcripts than of references.
    """
    from jiwer import wer

    transcripts, references = ([" ".join(text.split()) for text in texts] for texts in (transcripts, references))
    if not any(references):
        raise ValueError(f"no word in {len(references)} references: give references with words")
    return 100.0 * wer(references, transcripts)


def ctc_word_error_rate(transcripts: dict[int, str], references: list[str]) -> float | None:
    """Return the errors of normalised transcripts per 100 words of the references; ``None`` if there are no words."""
    texts = [normalise(text) for text in transcripts.values()]
    wanted = [normalise(references[row]) for row in transcripts]
    return word_error_rate(texts, wanted) if any(wanted) else None


def samples(translations: list[str], references: list[str], count: int) -> list[tuple[str, str]]:
    """Return ``count`` (reference, translation) pairs, evenly spaced over the test set."""
    count = min(count, len(references))
    rows = [index * len(references) // count for index in range(count)]
    return [(references[row], translations[row]) for row in rows]
