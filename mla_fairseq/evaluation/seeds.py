"""Compare systems that were trained with several seeds: means, deviations and paired bootstrap tests."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mla_fairseq.evaluation import offline
from mla_fairseq.files import check_file, read_json

Record = dict[str, Any]

SCORES = ("bleu", "chrf", "ctc_word_error_rate", "train_minutes")
"""Values of a record of which a row has the mean, and as ``KEY_deviation`` the standard deviation over the seeds."""

_ONLY_OF_A_RUN = ("commands", "seconds", "finished")
"""Values of a record that its system's row does not have."""

_OF_A_RUN = re.compile(r" --(seed|save-dir) \S+")
"""Flags of a training that may differ within a system."""


def compare(
    runs: Sequence[Path | str], manifest: Path | str, samples: int = 1000, earlier: Sequence[Record] = ()
) -> list[Record]:
    """Return a row for each system, in the order of the runs; runs whose trainings differ only in seed are one system.

    A row has the values of the system's first record, and those of ``SCORES``. All but the first have
    ``bleu_difference``, the mean difference from the first system, and ``p_value``: the largest of the bootstrap
    tests that compare the two systems seed by seed. ``by_seed`` and ``p_values`` have the values of each seed, and
    ``commit`` all commits.

    Args:
        runs: folders of finished recipes.
        manifest: the test set that they translated.
        samples: resamples of a test (sacrebleu's paired bootstrap, Koehn 2004).
        earlier: rows of an earlier comparison of these systems with other seeds, whose values are added.

    Raises:
        ValueError: a file is missing, a seed occurs twice or only in one system, or the runs cannot be compared.
    """
    systems = _systems([Path(run) for run in runs])
    before = _earlier(systems, earlier)
    (_, first), *others = systems.items()
    references = offline.read_references(manifest)
    outputs = {run: _translations(run, record, references) for system in systems.values() for run, record in system}
    rows = [_row(training, system, before) for training, system in systems.items()]
    for (_, system), row in zip(others, rows[1:], strict=True):
        for one, other, seed in _pairs(first, system):
            row["p_values"][seed] = _p_value(outputs[one], outputs[other], references, samples)
        row |= {"bleu_difference": row["bleu"] - rows[0]["bleu"], "p_value": max(row["p_values"].values())}
    return rows


def _systems(runs: list[Path]) -> dict[str, list[tuple[Path, Record]]]:
    """Return the runs and records of each system, named by the command of its training."""
    systems: dict[str, list[tuple[Path, Record]]] = {}
    for run in runs:
        record = read_json(check_file(run / "result.json", "complete the recipe first"))
        system = systems.setdefault(_OF_A_RUN.sub("", record["commands"]["train"]), [])
        if any(record["seed"] == other["seed"] for _, other in system):
            raise ValueError(
                f"{run} has the seed of another run of the same system ({record['seed']}): give one of them"
            )
        system.append((run, record))
    return systems


def _earlier(systems: dict[str, list[tuple[Path, Record]]], earlier: Sequence[Record]) -> dict[str, Record]:
    """Return the rows of an earlier comparison by the command of their training.

    Raises:
        ValueError: it compares other systems, another baseline, or one of the seeds.
    """
    rows = {row["training"]: row for row in earlier}
    if rows and (rows.keys() != systems.keys() or next(iter(rows)) != next(iter(systems))):
        before = ", ".join(row["name"] for row in earlier)
        now = ", ".join(system[0][1]["name"] for system in systems.values())
        raise ValueError(f"the earlier comparison is of {before}, this one of {now}: compare the same trainings")
    for training, row in rows.items():
        for run, record in systems[training]:
            if str(record["seed"]) in row["by_seed"]:
                raise ValueError(f"the earlier comparison has seed {record['seed']} of {run}: leave that run out")
    return rows


def _translations(run: Path, record: Record, references: list[str]) -> list[str]:
    generated = offline.read_generated(run / f"generate-{record['subset']}.txt")
    return offline.pair_up(generated, references)


def _pairs(first: list[tuple[Path, Record]], system: list[tuple[Path, Record]]) -> list[tuple[Path, Path, str]]:
    """Return the runs of both systems with the same seed, and the seed."""
    seeds = {record["seed"]: run for run, record in first}
    if alone := sorted(seeds.keys() ^ {record["seed"] for _, record in system}):
        raise ValueError(f"{system[0][0]} and {first[0][0]} have different seeds ({alone[0]} is in one): add that run")
    return [(seeds[record["seed"]], run, str(record["seed"])) for run, record in system]


def _row(training: str, system: list[tuple[Path, Record]], before: dict[str, Record]) -> Record:
    """Return the row of a system, without its tests."""
    earlier = before.get(training, {})
    keys = (*SCORES, "commit")
    by_seed = earlier.get("by_seed", {}) | {
        str(record["seed"]): {key: record.get(key) for key in keys} for _, record in system
    }
    shared = earlier or {key: value for key, value in system[0][1].items() if key not in _ONLY_OF_A_RUN}
    row = {**shared, "training": training, "seeds": ", ".join(by_seed), "by_seed": by_seed}
    row["p_values"] = dict(earlier.get("p_values", {}))
    row["commit"] = ", ".join(dict.fromkeys(str(scores["commit"]) for scores in by_seed.values()))
    for key in SCORES:
        values = [scores[key] for scores in by_seed.values() if scores[key] is not None]
        if values:
            row[key] = statistics.fmean(values)
            row[f"{key}_deviation"] = statistics.stdev(values) if len(values) > 1 else None
    return row


def _p_value(baseline: list[str], system: list[str], references: list[str], samples: int) -> float:
    """Return how probable a difference of BLEU as large as this one is between equal systems."""
    if baseline == system:
        return 1.0  # sacrebleu finds the difference 0 significant, because no resample has a larger one
    from sacrebleu.metrics import BLEU
    from sacrebleu.significance import PairedTest

    named = [("baseline", baseline), ("system", system)]
    test = PairedTest(named, {"BLEU": BLEU(references=[references])}, None, "bs", samples)
    return float(test()[1]["BLEU"][1].p_value)
