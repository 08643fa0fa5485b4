"""The last stage: scores, speeds and circumstances of a run in ``result.json``; its training curve beside it."""

from __future__ import annotations

import csv
import json
import logging
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mla_fairseq.errors import install
from mla_fairseq.evaluation import offline
from mla_fairseq.evaluation.curves import draw_training_curve
from mla_fairseq.evaluation.training_log import TrainingLog, read_training_log
from mla_fairseq.files import write_json
from mla_fairseq.recipes.commands import Paths
from mla_fairseq.recipes.records import read_record
from mla_fairseq.recipes.schema import AnyModel, Recipe

logger = logging.getLogger(__name__)

_OF_FREE = (
    "duration_error",
    "duration_ratio",
    "ended",
    "utterances",
    "real_time_factor",
    "word_error_rate",
    "recorded_word_error_rate",
)
_TITLES = {"bleu": "BLEU", "chrf": "chrF", "word_error_rate": "word error rate"}


def write_scores(paths: Paths) -> None:
    """Scores the translations, draws the curve, writes ``result.json``, logs a summary and a few translations."""
    recipe = paths.recipe
    generated = offline.read_generated(paths.generated, log=paths.log("decode"))
    references = offline.read_references(paths.manifest(recipe.decode.subset))
    translations = offline.pair_up(generated, references)
    quality = offline.score(translations, references, recipe.score.tokenize, recipe.score.lowercase)
    training = read_training_log(paths.log("train"))
    _draw_curve(paths)
    result = {
        **describe(recipe),
        **{key: round(value, 2) if isinstance(value, float) else value for key, value in asdict(quality).items()},
        **_word_errors(recipe, translations, references),
        **_training_facts(training, _train_frames(paths)),
        "decode_words_per_second": generated.tokens_per_second,
        "decode_sentences_per_second": generated.sentences_per_second,
        **_circumstances(paths),
    }
    write_json(paths.result, result)
    for reference, translation in offline.samples(translations, references, recipe.score.samples):
        logger.info("  reference:   %s\n  translation: %s", reference, translation)
    figures = ", ".join(f"{_TITLES[key]} {result[key]:.2f}" for key in _TITLES if key in result)
    logger.info("%s: %s (%s)", recipe.name, figures, paths.result)


def write_speech_scores(paths: Paths) -> None:
    """Puts what ``scripts/synthesize.py`` measured, freely and upon the recorded frames, into ``result.json``."""
    free, forced = (
        json.loads((folder / "scores.json").read_text(encoding="utf-8")) for folder in (paths.spoken, paths.forced)
    )
    training = read_training_log(paths.log("train"))
    _draw_curve(paths)
    result = {
        **describe(paths.recipe),
        "mcd": round(free["mcd"], 3),
        "forced_mcd": round(forced["mcd"], 3),
        **{key: value for key, value in free.items() if key in _OF_FREE},
        **_training_facts(training, _train_frames(paths)),
        **_circumstances(paths),
    }
    write_json(paths.result, result)
    heard = "word error rate {word_error_rate:.1f} %, of the recorded speech {recorded_word_error_rate:.1f} %, "
    figures = "MCD {mcd:.2f}, upon the recorded frames {forced_mcd:.2f}"
    text = ((heard if "word_error_rate" in result else "") + figures).format(**result)
    logger.info("%s: %s (%s)", paths.recipe.name, text, paths.result)


def _word_errors(recipe: Recipe, transcripts: list[str], references: list[str]) -> dict[str, float]:
    """The measure of recognition; a translation is not wrong where its words differ."""
    if recipe.data.task != "asr":
        return {}
    return {"word_error_rate": round(offline.word_error_rate(transcripts, references), 2)}


def _draw_curve(paths: Paths) -> None:
    """A picture is worth having, but no score depends on it."""
    title = paths.recipe.description or paths.recipe.name
    try:
        draw_training_curve(paths.log("train"), paths.run / "training-curve", title, paths.recipe.kind == "translation")
    except ModuleNotFoundError as error:
        logger.warning("no training curve: %s; %s", error, install("plots"))


def describe(recipe: Recipe) -> dict[str, Any]:
    """What was run, and the line that runs it again."""
    return {
        "name": recipe.name,
        "kind": recipe.kind,
        "description": recipe.description,
        "command": recipe_command(recipe),
        "corpus": recipe.data.corpus,
        "subset": recipe.decode.subset,
        "arch": recipe.model.arch,
        "attention": attention_sites(recipe.model),
        "seed": recipe.train.seed,
    }


def recipe_command(recipe: Recipe) -> str:
    words = ["python", "scripts/run_recipe.py", recipe.source]
    words += [word for override in recipe.overrides for word in ("--set", override)]
    if recipe.name != Path(recipe.source).stem:
        words += ["--name", recipe.name]
    return shlex.join(words)


def attention_sites(model: AnyModel) -> dict[str, str]:
    """Mechanism by site; softmax where nothing is said."""
    default = model.attn_type or "softmax"
    return {
        "encoder": model.encoder_attn_type or default,
        "decoder": model.decoder_attn_type or default,
        "cross": model.cross_attn_type or default,
    }


def _training_facts(log: TrainingLog, frames_per_epoch: int) -> dict[str, Any]:
    """Speeds are medians over the log's intervals, so validations and pauses do not count."""
    frames = None
    if log.updates_per_second and log.epochs:
        frames = round(log.updates_per_second * frames_per_epoch * log.epochs / log.updates)
    return {
        "parameters": log.parameters,
        "updates": log.updates,
        "epochs": round(log.epochs, 2),
        "best_valid_loss": min((point.loss for point in log.valid), default=None),
        "train_words_per_second": log.words_per_second,
        "train_frames_per_second": frames,
        "train_minutes": round(log.minutes, 1),
    }


def _train_frames(paths: Paths) -> int:
    """Frames of one pass over the training set, too long utterances left out."""
    train = paths.recipe.train
    limit = train.max_target_positions if paths.recipe.kind == "speech" else train.max_source_positions
    with open(paths.manifest(paths.recipe.data.train), encoding="utf-8", newline="") as stream:
        lengths = [int(row["n_frames"]) for row in csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)]
    return sum(length for length in lengths if length <= limit)


def _circumstances(paths: Paths) -> dict[str, Any]:
    """Wall time and command of each stage; machine and commit of the training."""
    records = {stage: read_record(path) for stage, path in paths.records().items()}
    records = {stage: record for stage, record in records.items() if record.finished}
    trained = records["train"]
    return {
        "seconds": {name: round(record.seconds, 1) for name, record in records.items()},
        "commands": {name: record.command for name, record in records.items() if record.command},
        "machine": trained.machine,
        "commit": trained.commit,
        "trained": trained.finished,
    }
