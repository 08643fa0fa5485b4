"""The stages of a recipe: which program runs each section's flags, and how their files fit together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Stage:
    """One section of a recipe.

    Attributes:
        program: the command that takes the section's flags.
        makes: the file or folder that the stage leaves, a format string over the recipe's sections.
        flags: where its files are; a recipe adds the rest. ``${...}`` as in the recipe.
        positional: the key whose value the program takes without a flag.
        keep: results that other runs or hours depend on; changed flags are refused instead of run again.
        shared: the result is a folder that other recipes use too.
    """

    program: tuple[str, ...]
    makes: str
    flags: Mapping[str, Any] = field(default_factory=dict)
    positional: str = ""
    keep: bool = False
    shared: bool = False


def _script(name: str) -> tuple[str, str]:
    return ("python", os.path.relpath(ROOT / "scripts" / name))


_DATA = {"data": "${train.data}", "config_yaml": "${train.config_yaml}"}
_TASK = {**_DATA, "task": "${train.task}", "user_dir": "${train.user_dir}", "cpu": "${CPU}"}
_CORPUS = {"keep": True, "shared": True}
_PREPARED = {**_CORPUS, "flags": {"output": "${RUNS}/data/${data}"}}
_TRAINED = {"user_dir": os.path.relpath(ROOT / "mla_fairseq"), "save_dir": "${RUN}/checkpoints", "cpu": "${CPU}"}
_TRAINED |= {"log_format": "json"}  # which the training curve is drawn from
_AVERAGED = {"inputs": "${train.save_dir}", "output": "${RUN}/checkpoint_average.pt"}
_SWEEP = {"subset": "${generate.gen_subset}", "tokenize": "${generate.sacrebleu_tokenizer}", "path": "${CHECKPOINT}"}
_SWEEP |= {"max_len_a": "${generate.max_len_a}", "max_len_b": "${generate.max_len_b}", "output": "${RUN}/simul"}
_SWEEP |= {"system": "${NAME}", "title": "${title}", "cpu": "${CPU}"}
_SPEECH = {"checkpoint": "${CHECKPOINT}", "data": "${train.data}", "device": "${DEVICE}"}
_FORCED = {key: f"${{synthesize.{key}}}" for key in ("gen_subset", "seed", "max_tokens")}
_FORCED |= {"teacher_forcing": True, "no_pictures": True, "output": "${RUN}/forced"}
_CONVERTED = {**_DATA, "output": "${RUN}/converted.pt"}
_GENERATED = {**_TASK, "path": "${CHECKPOINT}", "results_path": "${RUN}", "log_format": "tqdm", "gen_subset": "test"}
_TEXTS = "{generate[results_path]}/generate-{generate[gen_subset]}.txt"
_SPOKEN = _script("synthesize.py"), "{synthesize[output]}/scores.json", _SPEECH | {"output": "${RUN}/spoken"}

STAGES = {
    "corpus": Stage(("python", "-m", "examples.demo_corpus"), "{corpus[output]}", **_CORPUS),
    "prepare": Stage(_script("prep_mustc.py"), "{prepare[output]}", **_PREPARED),
    "prepare_speech": Stage(_script("prep_ljspeech.py"), "{prepare_speech[output]}", positional="folder", **_PREPARED),
    "convert": Stage(_script("linearize.py"), "{convert[output]}", _CONVERTED, positional="checkpoint"),
    "train": Stage(("fairseq-train",), "{train[save_dir]}/checkpoint_last.pt", _TRAINED, positional="data", keep=True),
    "average": Stage(_script("average_checkpoints.py"), "{average[output]}", _AVERAGED),
    "generate": Stage(("fairseq-generate",), _TEXTS, _GENERATED, positional="data"),
    "simul": Stage(_script("sweep_wait_k.py"), "{simul[output]}/points.tsv", _DATA | _SWEEP, positional="data"),
    "synthesize": Stage(*_SPOKEN, positional="checkpoint"),
    "force": Stage(_script("synthesize.py"), "{force[output]}/scores.json", _SPEECH | _FORCED, positional="checkpoint"),
}
"""By the name of the section, in the order in which they run."""


def arguments(stage: Stage, section: Mapping[str, Any]) -> list[str]:
    """Return a section as words: ``key: value`` is ``--key value``, true a switch; false and null are left out."""
    first, words = [], []
    for key, value in section.items():
        if value is None or value is False:
            continue
        values = [] if value is True else [str(one) for one in (value if isinstance(value, list) else [value])]
        if key == stage.positional:
            first = values
        else:
            words += [f"--{key.replace('_', '-')}", *values]
    return first + words
