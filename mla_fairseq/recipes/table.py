"""A markdown table of finished runs, each row with the command that makes it again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mla_fairseq.evaluation.quality_latency import Point, read_points

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
_SPEECH_HEADER = (
    *_HEADER[:2],
    "MCD: upon the recorded frames",
    "of its own",
    "error of duration",
    "ended by itself",
    "parameters",
    "updates",
    "training: frames/s",
    "minutes",
    "synthesis: real-time factor",
)
_SIMUL_HEADER = (*_HEADER[:2], "k", "BLEU", "chrF", "AL", "LAAL", "AP", "DAL", "of the BLEU with the whole source")
_RIGHT_FROM = 2
_MCD = (
    "MCD: root mean square difference of 13 mel cepstra, mean along the best path of dynamic time warping, against the "
    "recorded spectrogram through the same vocoder; training's frames/s are of 11.6 ms unless the data say otherwise"
)


def read_results(folders: Iterable[Path]) -> list[dict[str, Any]]:
    """The ``result.json`` of each folder that has one, in the order given; ``simul``: its points of latency.

    Raises:
        ValueError: none has one, or one was not written by the score stage.
    """
    folders = list(folders)
    results = [
        {**_read(path), "simul": _read_simul(folder / "simul" / "points.tsv")}
        for folder in folders
        if (path := folder / "result.json").is_file()
    ]
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
    known = result if isinstance(result, dict) else {}
    missing = {"mcd" if _is_speech(known) else "bleu", "attention", "command", "machine"} - set(known)
    if missing:
        raise ValueError(f"{path} has no {sorted(missing)[0]}; run the recipe with --redo score.")
    return result


def _read_simul(path: Path) -> list[Point]:
    return read_points(path) if path.is_file() else []


def render(results: list[dict[str, Any]]) -> str:
    """The tables: of translations, of the simultaneous runs' latencies, of voices; below them the metrics' signatures,
    the machines and commits, and one command per row."""
    voices = [result for result in results if _is_speech(result)]
    texts = [result for result in results if not _is_speech(result)]
    points = [cells for result in texts for cells in _simul_cells(result)]
    tables = (
        (_HEADER, [_cells(result) for result in texts]),
        (_SIMUL_HEADER, points),
        (_SPEECH_HEADER, [_speech_cells(result) for result in voices]),
    )
    lines = [line for header, rows in tables if rows for line in (*_head(header), *map(_line, rows), "")]
    lines += [f"- {line}" for line in _footnotes(texts, voices)]
    lines += ["", "Each row again:", "", "```sh", *(result["command"] for result in results), "```"]
    return "\n".join(lines) + "\n"


def _is_speech(result: dict[str, Any]) -> bool:
    return result.get("kind") == "speech"


def _head(titles: tuple[str, ...]) -> list[str]:
    return [_line(titles), _line("---" if index < _RIGHT_FROM else "---:" for index in range(len(titles)))]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(result: dict[str, Any]) -> list[str]:
    return [
        *_name(result),
        f"{result['bleu']:.1f}",
        f"{result['chrf']:.1f}",
        f"{result['parameters'] / 1e6:.2f} M",
        f"{result['updates']:,}",
        _number(result["train_words_per_second"]),
        _number(result["train_frames_per_second"]),
        _number(result["train_minutes"]),
        _number(result["decode_words_per_second"]),
    ]


def _speech_cells(result: dict[str, Any]) -> list[str]:
    return [
        *_name(result),
        f"{result['forced_mcd']:.2f}",
        f"{result['mcd']:.2f}",
        f"{result['duration_error']:.0%}",
        f"{result['ended']:.0%}",
        f"{result['parameters'] / 1e6:.2f} M",
        f"{result['updates']:,}",
        _number(result["train_frames_per_second"]),
        _number(result["train_minutes"]),
        f"{result['real_time_factor']:.3f}",
    ]


def _name(result: dict[str, Any]) -> list[str]:
    attention = result["attention"]
    same = len(set(attention.values())) == 1
    mix = f"{attention['encoder']} everywhere" if same else " / ".join(attention[site] for site in _SITES)
    return [f"{result['corpus']}, {result['subset']}", mix]


def _simul_cells(result: dict[str, Any]) -> Iterator[list[str]]:
    for point in result["simul"]:
        figures = point.figures
        formats = {"bleu": ".1f", "chrf": ".1f", "al": ",.0f", "laal": ",.0f", "ap": ".2f", "dal": ",.0f"}
        whole = figures["offline_bleu"]
        share = f"{figures['bleu'] / whole:.0%}" if whole else "-"
        yield [
            *_name(result),
            point.setting,
            *(format(figures[key], kind) for key, kind in formats.items()),
            share,
        ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _footnotes(texts: list[dict[str, Any]], voices: list[dict[str, Any]]) -> list[str]:
    """What all rows share is said once; where rows differ, every variant is named."""
    results = [*texts, *voices]
    notes: dict[str, None] = {}
    if texts:
        notes["words are target tokens of the vocabulary"] = None
    notes |= {f"BLEU: `{result['bleu_signature']}`": None for result in texts}
    notes |= {f"chrF: `{result['chrf_signature']}`": None for result in texts}
    if any(result["simul"] for result in texts):
        notes["AL, LAAL and DAL in ms of speech, AP as a ratio; k and the whole source with beam 1"] = None
    if voices:
        notes[_MCD] = None
    notes |= {_heard(result): None for result in voices if "word_error_rate" in result}
    notes |= {f"machine: {_machine(result['machine'])}": None for result in results}
    seeds = sorted({result["seed"] for result in results})
    commits = sorted({result["commit"] or "unknown" for result in results})
    return [*notes, f"seed: {', '.join(map(str, seeds))}; commit: {', '.join(commits)}"]


def _heard(result: dict[str, Any]) -> str:
    made, recorded = result["word_error_rate"], result["recorded_word_error_rate"]
    return (
        f"{result['name']}: an independent recogniser's word error rate is {made:.1f} % of the synthesised speech, "
        f"{recorded:.1f} % of the recorded speech through the same vocoder"
    )


def _machine(machine: dict[str, Any]) -> str:
    device = "" if machine["device"] == "cpu" else f"{machine['device']}; "
    return f"{device}{machine['cpu']}, {machine['threads']} of {machine['cores']} cores; torch {machine['torch']}"
