"""Write a run's ``result.json``: scores, speeds, machine, commit and commands; and its training curve."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any

from mla_fairseq.errors import install
from mla_fairseq.evaluation import offline
from mla_fairseq.evaluation.curves import draw_training_curve
from mla_fairseq.evaluation.quality_latency import read_points
from mla_fairseq.evaluation.training_log import read_training_log
from mla_fairseq.files import read_json, read_tsv, write_json
from mla_fairseq.recipes.check import parse
from mla_fairseq.recipes.recipe import Recipe

logger = logging.getLogger(__name__)

_SHOWN = ("bleu", "chrf", "word_error_rate", "ctc_word_error_rate", "recorded_word_error_rate", "mcd", "forced_mcd")
_SAMPLES = 5


def write_result(recipe: Recipe, records: dict[str, dict[str, Any]]) -> None:
    """Write ``result.json`` from the files of the stages; log its scores and some translations.

    Args:
        recipe: the recipe.
        records: the runner's records of the stages, by name.
    """
    train, path = parse(recipe, "train"), recipe.run / "result.json"
    readers = {"generate": _translation, "simul": _latencies, "synthesize": _speech, "long_recordings": _recordings}
    readers |= {"export": _device}
    scores = [pair for name, read in readers.items() if name in recipe.tree for pair in read(recipe).items()]
    result = {
        **{"name": recipe.name, "title": recipe.tree["title"], "command": recipe.again, "data": recipe.tree["data"]},
        **{"arch": train.arch, "attention": attention(vars(train)), "seed": train.seed},
        **{key: round(value, 3) if isinstance(value, float) else value for key, value in scores},
        **_training(recipe),
        "seconds": {name: record["seconds"] for name, record in records.items()},
        "commands": {name: record["command"] for name, record in records.items()},
        **{key: records["train"][key] for key in ("machine", "commit", "finished")},
    }
    write_json(path, result)
    try:
        draw_training_curve(recipe.run / "train.log", recipe.run / "training-curve", result["title"], "bleu" in result)
    except ValueError as error:  # a training of a few updates has no curve, but it has scores
        logger.warning("no training curve: %s", error)
    except ModuleNotFoundError as error:
        logger.warning("no training curve: %s: %s", error, install("plots"))
    figures = ", ".join(f"{key} {result[key]:.2f}" for key in _SHOWN if result.get(key) is not None)
    logger.info("%s: %s (%s)", recipe.name, figures, path)


def attention(train: dict[str, Any]) -> dict[str, str]:
    """Return the mechanism of each site; softmax if the flags name none."""
    every = train.get("attn_type") or "softmax"
    return {site: train.get(f"{site}_attn_type") or every for site in ("encoder", "decoder", "cross")}


def _translation(recipe: Recipe) -> dict[str, Any]:
    """Return BLEU and chrF, those of each set if there are several, and word error rates of transcripts."""
    generate = vars(parse(recipe, "generate"))
    subset, lower = generate["gen_subset"], bool(generate.get("sacrebleu_lowercase"))
    generated = offline.read_generated(recipe.makes("generate"), log=recipe.run / "generate.log")
    sets = offline.read_sets(recipe.manifest(subset).parent, subset)
    references = [text for one in sets.values() for text in one]
    texts = offline.pair_up(generated, references)
    for reference, text in offline.samples(texts, references, _SAMPLES):
        logger.info("  reference:   %s\n  translation: %s", reference, text)
    how = (generate.get("sacrebleu_tokenizer") or "13a", lower)
    quality = offline.score(texts, references, *how)
    each = offline.score_sets(texts, sets, *how) if len(sets) > 1 else {}
    points = {"sets": [{"subset": name, **asdict(one)} for name, one in each.items()]} if each else {}
    errors: dict[str, Any] = (
        {"word_error_rate": offline.word_error_rate(texts, references)} if subset.endswith("_asr") else {}
    )
    if generated.transcripts:
        spoken = [text for one in sets for text in offline.read_references(recipe.manifest(one), "src_text")]
        errors["ctc_word_error_rate"] = offline.ctc_word_error_rate(generated.transcripts, spoken)
    speed = {"decode_words_per_second": generated.tokens_per_second}
    return {"subset": subset, **asdict(quality), **points, **errors, **speed}


def _latencies(recipe: Recipe) -> dict[str, Any]:
    points = read_points(recipe.makes("simul"))
    return {"points": [{"setting": point.setting, **point.figures} for point in points]}


def _recordings(recipe: Recipe) -> dict[str, Any]:
    rows = read_json(recipe.makes("long_recordings"))
    return {"long_recordings": [{"speech": speech, **row} for speech, row in rows.items()]}


def _device(recipe: Recipe) -> dict[str, Any]:
    rows = read_json(recipe.makes("export"))
    return {"device": [{"precision": precision, **row} for precision, row in rows.items()]}


def _speech(recipe: Recipe) -> dict[str, Any]:
    """Return the scores of free synthesis, and the distortion from the recorded frames."""
    made = [name for name in ("synthesize", "force") if name in recipe.tree]
    scores = {name: read_json(recipe.makes(name)) for name in made}
    forced = {"forced_mcd": scores["force"]["mcd"]} if "force" in scores else {}
    return {**scores["synthesize"], **forced, "subset": parse(recipe, "synthesize").gen_subset}


def _training(recipe: Recipe) -> dict[str, Any]:
    """Return sizes and speeds; speeds are medians over the log's intervals: validations and pauses do not count."""
    log = read_training_log(recipe.run / "train.log")
    per_update = _frames(recipe) * log.epochs / log.updates if log.updates else 0
    return {
        "parameters": log.parameters,
        "updates": log.updates,
        "epochs": round(log.epochs, 2),
        "best_valid_loss": min((point.loss for point in log.valid), default=None),
        "train_words_per_second": log.words_per_second,
        "train_frames_per_second": round(per_update * log.updates_per_second) if log.updates_per_second else None,
        "train_minutes": round(log.minutes, 1),
    }


def _frames(recipe: Recipe) -> int:
    """Return the frames of one pass over the training set, without utterances that are too long."""
    train = parse(recipe, "train")
    limit = train.max_target_positions if train.task.startswith("text_to_speech") else train.max_source_positions
    manifests = [recipe.manifest(subset) for subset in train.train_subset.split(",")]
    lengths = [int(row["n_frames"]) for manifest in manifests for row in read_tsv(manifest)]
    return sum(length for length in lengths if length <= limit)
