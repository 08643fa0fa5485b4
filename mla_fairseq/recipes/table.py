"""A markdown table of finished runs, each row with the command that makes it again."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_SITES = ("encoder", "decoder", "cross")
_HEADER = (
    "corpus, test set",
    "attention: encoder / decoder / cross",
    "BLEU",
    "chrF",
    "parameters",
    "updates",
    "training: words/s",
    "frames/s",
    "minutes",
    "decoding: words/s",
)
_RIGHT_FROM = 2


def read_results(folders: Iterable[Path]) -> list[dict[str, Any]]:
    """The ``result.json`` of each folder that has one, in the order given.

    Raises:
        ValueError: none has one, or one was not written by the score stage.
    """
    folders = list(folders)
    results = [_read(path) for folder in folders if (path := folder / "result.json").is_file()]
    if not results:
        raise ValueError(
            f"no result.json in {', '.join(map(str, folders)) or 'no folder'}; run a recipe to its end first."
        )
    return results


def _read(path: Path) -> dict[str, Any]:
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}); run the recipe with --redo score.") from error
    missing = {"bleu", "attention", "command", "machine"} - set(result if isinstance(result, dict) else ())
    if missing:
        raise ValueError(f"{path} has no {sorted(missing)[0]}; run the recipe with --redo score.")
    return result


def render(results: list[dict[str, Any]]) -> str:
    """The table; below it the metrics' signatures, the machines and commits, and one command per row."""
    rules = ["---" if index < _RIGHT_FROM else "---:" for index in range(len(_HEADER))]
    lines = [_line(_HEADER), _line(rules), *(_line(_cells(result)) for result in results), ""]
    lines += [f"- {line}" for line in _footnotes(results)]
    lines += ["", "Each row again:", "", "```sh", *(result["command"] for result in results), "```"]
    return "\n".join(lines) + "\n"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(result: dict[str, Any]) -> list[str]:
    attention = result["attention"]
    same = len(set(attention.values())) == 1
    mix = f"{attention['encoder']} everywhere" if same else " / ".join(attention[site] for site in _SITES)
    return [
        f"{result['corpus']}, {result['subset']}",
        mix,
        f"{result['bleu']:.1f}",
        f"{result['chrf']:.1f}",
        f"{result['parameters'] / 1e6:.2f} M",
        f"{result['updates']:,}",
        _number(result["train_words_per_second"]),
        _number(result["train_frames_per_second"]),
        _number(result["train_minutes"]),
        _number(result["decode_words_per_second"]),
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _footnotes(results: list[dict[str, Any]]) -> list[str]:
    """What all rows share is said once; where rows differ, every variant is named."""
    notes = {
        "words are target tokens of the vocabulary": None,
        **{f"BLEU: `{result['bleu_signature']}`": None for result in results},
        **{f"chrF: `{result['chrf_signature']}`": None for result in results},
        **{f"machine: {_machine(result['machine'])}": None for result in results},
    }
    seeds = sorted({result["seed"] for result in results})
    commits = sorted({result["commit"] or "unknown" for result in results})
    return [*notes, f"seed: {', '.join(map(str, seeds))}; commit: {', '.join(commits)}"]


def _machine(machine: dict[str, Any]) -> str:
    device = "" if machine["device"] == "cpu" else f"{machine['device']}; "
    return f"{device}{machine['cpu']}, {machine['threads']} of {machine['cores']} cores; torch {machine['torch']}"
