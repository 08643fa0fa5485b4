"""The stages of a recipe: which program runs each section's flags, and how their files fit together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mla_fairseq.files import user_dir

PACKAGE = Path(__file__).resolve().parents[1]
CONFIGS = next(folder for folder in (PACKAGE / "configs", PACKAGE.parent / "configs") if folder.is_dir())
"""The recipes that come with the package: inside an installed one, beside it in a checkout."""


@dataclass(frozen=True)
class Stage:
    """One section of a recipe.

    Attributes:
        program: the command that takes the section's flags.
        makes: the file or folder that the stage writes, a format string over the recipe's sections.
        flags: the paths of its files; a recipe adds the other flags. ``${...}`` as in the recipe.
        positional: the key whose value the program takes without a flag.
        keep: refuse changed flags instead of running again, because hours or other runs depend on the result.
        shared: whether other recipes use the result too, which is a folder.
    """

    program: tuple[str, ...]
    makes: str
    flags: Mapping[str, Any] = field(default_factory=dict)
    positional: str = ""
    keep: bool = False
    shared: bool = False


_DATA = {"data": "${train.data}", "config_yaml": "${train.config_yaml}"}
_TASK = {**_DATA, "task": "${train.task}", "user_dir": "${train.user_dir}", "cpu": "${CPU}"}
_CORPUS: dict[str, Any] = {"keep": True, "shared": True}
_PREPARED: dict[str, Any] = {**_CORPUS, "flags": {"output": "${RUNS}/data/${data}"}}
_TRAINED = {"user_dir": user_dir(), "save_dir": "${RUN}/checkpoints", "cpu": "${CPU}"}
_TRAINED |= {"log_format": "json"}  # which the training curve is drawn from
_AVERAGED = {"inputs": "${train.save_dir}", "output": "${RUN}/checkpoint_average.pt"}
_SWEEP = {
    "subset": "${generate.gen_subset}",
    "tokenize": "${generate.sacrebleu_tokenizer}",
    "path": "${CHECKPOINT}",
}
_SWEEP |= {"max_len_a": "${generate.max_len_a}", "max_len_b": "${generate.max_len_b}", "output": "${RUN}/simul"}
_SWEEP |= {"system": "${NAME}", "title": "${title}", "cpu": "${CPU}"}
_SWEEP |= {"user_dir": "${train.user_dir}"}
_SPEECH = {"checkpoint": "${CHECKPOINT}", "data": "${train.data}", "device": "${DEVICE}"}
_SPEECH |= {"user_dir": "${train.user_dir}"}
_FORCED: dict[str, Any] = {key: f"${{synthesize.{key}}}" for key in ("gen_subset", "seed", "max_tokens")}
_FORCED |= {"teacher_forcing": True, "no_pictures": True, "output": "${RUN}/forced"}
_JOINED = {"checkpoint": "${CHECKPOINT}", "data_bin": "${train.data}", "config_yaml": "${train.config_yaml}"}
_JOINED |= {"data": "${prepare.data}", "pair": "${prepare.pairs}", "output": "${RUN}/long_recordings.json"}
_EXPORTED = {key: value for key, value in _JOINED.items() if key != "output"} | {"user_dir": "${train.user_dir}"}
_EXPORTED |= {"sweep": "${simul.output}", "tokenize": "${simul.tokenize}", "output": "${RUN}/device"}
_CONVERTED = {**_DATA, "output": "${RUN}/converted.pt"}
_GENERATED = {
    **_TASK,
    "path": "${CHECKPOINT}",
    "results_path": "${RUN}",
    "log_format": "tqdm",
    "gen_subset": "test",
}
_TEXTS = "{generate[results_path]}/generate-{generate[gen_subset]}.txt"
_SPOKEN = _SPEECH | {"output": "${RUN}/spoken"}

STAGES: dict[str, Stage] = {
    "corpus": Stage(("python", "-m", "examples.demo_corpus"), "{corpus[output]}", **_CORPUS),
    "prepare": Stage(("mla-prepare",), "{prepare[output]}", **_PREPARED),
    "prepare_speech": Stage(("mla-prepare-tts",), "{prepare_speech[output]}", positional="folder", **_PREPARED),
    "convert": Stage(("mla-linearize",), "{convert[output]}", _CONVERTED, positional="checkpoint"),
    "train": Stage(("fairseq-train",), "{train[save_dir]}/checkpoint_last.pt", _TRAINED, positional="data", keep=True),
    "average": Stage(("mla-average",), "{average[output]}", _AVERAGED),
    "generate": Stage(("fairseq-generate",), _TEXTS, _GENERATED, positional="data"),
    "simul": Stage(("mla-sweep",), "{simul[output]}/points.tsv", _DATA | _SWEEP, positional="data"),
    "long_recordings": Stage(
        ("python", "-m", "examples.long_recordings.measure"),
        "{long_recordings[output]}",
        _JOINED,
        positional="checkpoint",
    ),
    "export": Stage(
        ("python", "-m", "examples.on_device.compare"),
        "{export[output]}/comparison.json",
        _EXPORTED,
        positional="checkpoint",
    ),
    "synthesize": Stage(("mla-synthesize",), "{synthesize[output]}/scores.json", _SPOKEN, positional="checkpoint"),
    "force": Stage(("mla-synthesize",), "{force[output]}/scores.json", _SPEECH | _FORCED, positional="checkpoint"),
}
"""Every stage by the name of its section, in the order in which they run."""


def arguments(stage: Stage, section: Mapping[str, Any]) -> list[str]:
    """Return a section as words: ``key: value`` is ``--key value``, true a switch; false and null are left out."""
    first: list[str] = []
    words: list[str] = []
    for key, value in section.items():
        if value is None or value is False:
            continue
        values = [] if value is True else [str(one) for one in (value if isinstance(value, list) else [value])]
        if key == stage.positional:
            first = values
        else:
            words += [f"--{key.replace('_', '-')}", *values]
    return first + words
