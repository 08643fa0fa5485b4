"""Export a simultaneous speech translation model."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

from mla_fairseq.edge.build import SpeechSteps
from mla_fairseq.edge.check import check_speech
from mla_fairseq.edge.page import check_policy
from mla_fairseq.edge.write import write_model
from mla_fairseq.streaming.languages import manifest_languages
from mla_fairseq.streaming.search import SearchOptions
from mla_fairseq.streaming.translator import Translator


def export_speech(
    translator: Translator,
    data: Path,
    output: Path,
    longest: float,
    options: SearchOptions,
    int8: bool,
    web: Path | None = None,
) -> None:
    """Write the folder of a model; see ``SpeechSteps`` and ``write_model`` for the arguments and errors.

    ``data`` is the prepared folder of the model, whose manifests name its languages.
    """
    speech = SpeechSteps(translator, longest, options)
    source, target = (sorted(found) for found in manifest_languages(data))
    languages = {"source": source[0] if len(source) == 1 else None, "target": target[0] if len(target) == 1 else None}
    version = sys.modules[__name__.partition(".")[0]].__version__
    config: dict[str, Any] = {**speech.config, "languages": languages, "version": version}
    if web:
        check_policy(config)
    metadata = {
        "model_type": "mla_simul",
        "version": version,
        "decode_chunk_len": str(speech.encoder.window),
        "T": str(speech.encoder.window),
        **mechanisms(translator),
    }
    check = partial(check_speech, speech, int8=int8)
    write_model(output, speech.steps, config, translator.dictionary.symbols, metadata, check, int8, web)


def mechanisms(translator: Translator) -> dict[str, str]:
    """Return the mechanism of each attention site."""
    encoder, decoder = translator.model.encoder.layers[0], translator.model.decoder.layers[0]
    sites = {"encoder": encoder.self_attn, "decoder": decoder.self_attn, "cross": decoder.encoder_attn}
    return {f"{site}_attention": type(attention.mechanism).__name__ for site, attention in sites.items()}
