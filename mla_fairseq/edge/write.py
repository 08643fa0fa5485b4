"""Export a model: graphs, checked against the model, and what a runtime must know, in one folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from mla_fairseq.edge.drive import Call, graph_call
from mla_fairseq.edge.export import export
from mla_fairseq.edge.folder import write_config, write_tokens, writing
from mla_fairseq.edge.page import write_page
from mla_fairseq.edge.quantise import quantise
from mla_fairseq.edge.runtime.names import TOKENS
from mla_fairseq.edge.step import Step

log = logging.getLogger(__name__)
INT8 = ".int8"  # before the suffix of a graph with 8-bit weights
EXACT = ("frontend", "magnitudes")  # steps that are never quantised: their matrices are no weights


def write_model(
    output: Path,
    steps: Mapping[str, Step],
    config: Mapping[str, Any],
    symbols: Iterable[str],
    metadata: Mapping[str, str],
    check: Callable[[Mapping[str, Call]], Mapping[str, float]],
    int8: bool = False,
    web: Path | None = None,
) -> None:
    """Write the folder of a model, which is there only once the graphs have passed ``check``.

    Args:
        output: the folder.
        steps: by the names of their graphs.
        config: the content of ``config.json`` without its files.
        symbols: of the dictionary.
        metadata: strings for the encoder's graph.
        check: compares the graphs, given their calls, with the model; returns the error of each part.
        int8: write matrices as 8-bit integers.
        web: ``node_modules`` with onnxruntime-web; the folder gets a page then.

    Raises:
        ValueError: the output exists and is something else, or a graph is not equal to the model.
        OSError: a file cannot be written.
    """
    with writing(output) as part:
        files = {}
        for name, step in steps.items():
            path = part / f"{name}.onnx"
            export(step, path, metadata if name == "encoder" else {})
            if int8 and name not in EXACT:
                exact, path = path, part / f"{name}{INT8}.onnx"
                quantise(exact, path)
                exact.unlink()
            files[name] = path
            log.info("%s: %.2f MB", path.name, path.stat().st_size / 1e6)
        errors = check({name: graph_call(path) for name, path in files.items()})
        log.info("relative errors: %s", ", ".join(f"{name} {error:.1e}" for name, error in errors.items()))
        write_tokens(part / TOKENS, symbols)
        write_config(part, config)
        if web:
            write_page(part, web)
