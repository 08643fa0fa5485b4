"""Language models for shallow fusion (``fairseq-generate --lm-path``): fairseq's ``transformer_lm``, built as data.

fairseq builds one from the options in its file, with the dictionary ``dict.txt`` of the data folder. Options that
``transformer_lm`` evaluates as Python, and those of parts that are not needed here, are refused.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairseq.data import Dictionary
from fairseq.models import ARCH_MODEL_NAME_REGISTRY
from fairseq.models.transformer_lm import TransformerLanguageModel

UNSUPPORTED = (
    "character_embeddings",  # evaluates character_filters
    "adaptive_input",  # evaluates adaptive_input_cutoff
    "adaptive_softmax_cutoff", "decoder_xformers_att_config",  # evaluated
    "base_layers", "decoder_layers_to_keep",
)  # fmt: skip
TASK = "language_modeling"


def is_language_model(name: str) -> bool:
    """Return whether ``name`` is an architecture of fairseq's ``transformer_lm``."""
    return ARCH_MODEL_NAME_REGISTRY.get(name) == "transformer_lm"


def for_fusion(name: str, overrides: Mapping[str, Any]) -> bool:
    """Return whether a command loads a language model, of the architecture ``name``, as ``--lm-path``.

    ``fairseq-generate`` then overrides the data folder; ``fairseq-validate``, which does so too, also overrides --path.
    """
    return is_language_model(name) and "data" in overrides and "path" not in overrides


def check_language_model(path: object, options: Mapping[str, Any], data: object) -> None:
    """Check that the options in a language model's file name no part that evaluates options, and that it has symbols.

    Raises:
        ValueError: they do, or the data folder has no ``dict.txt`` or a broken one.
    """
    for option in UNSUPPORTED:
        if value := options.get(option):
            raise ValueError(
                f"{path} has an option that is not supported in a language model ({option}={str(value)[:40]!r}): train "
                "a transformer_lm without it"
            )
    if not (file := Path(str(data), "dict.txt")).is_file():
        raise ValueError(
            f"--lm-path needs the symbols of the language model ({file} is missing): copy the dictionary that the data "
            "configuration names there"
        )
    try:
        Dictionary.load(str(file))
    except Exception as error:  # fairseq raises plain ones
        reason = " ".join(str(error).split())
        raise ValueError(f"{file} is not a dictionary ({reason}): copy that of the data configuration there") from error


def set_language_task(state: dict[str, Any], data: object) -> None:
    """Replace the task in a language model's checkpoint by fairseq's of language models, and remove the criterion."""
    if state.get("args") is None:
        state["cfg"] |= {"task": {"_name": TASK, "data": str(data)}, "criterion": None}
        return
    replaced = {"task", "criterion", "data", "output_dictionary_size", "self_target", "future_target", "past_target"}
    options = {option: value for option, value in vars(state["args"]).items() if option not in replaced}
    state["args"] = Namespace(**options, task=TASK, data=str(data), output_dictionary_size=-1)


def check_same_symbols(model: Any, symbols: list[str]) -> None:
    """Check that ``--lm-path`` has a language model, of the symbols of the translation model in their order.

    Raises:
        ValueError: it has another model, or other symbols.
    """
    if not isinstance(model, TransformerLanguageModel):
        raise ValueError(f"--lm-path has no language model ({type(model).__name__}): give a transformer_lm of fairseq")
    if list(model.decoder.dictionary.symbols) != symbols:
        raise ValueError(
            "--lm-path has other symbols than the model (dict.txt of the data folder): copy the dictionary that the "
            "data configuration names to dict.txt, and train the language model with it"
        )
