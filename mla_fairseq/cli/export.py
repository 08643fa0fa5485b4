"""Export a trained model to ONNX graphs that run without PyTorch, such as on a phone or in a browser.

The model translates simultaneously, or speaks. Writes a folder: graphs with static shapes (filter banks, encoder,
reader, decoder; or encoder, decoder, post-net, magnitudes), config.json and tokens.txt. Before it is there, the graphs
are compared with the model. mla-edge FOLDER FILE translates with it, and mla-edge FOLDER --text TEXT speaks.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from mla_fairseq.cli.options import Help, add_user_dir, at_least, import_user_dir, run_command
from mla_fairseq.errors import needs

EXAMPLE = "example: mla-export checkpoint_best.pt --data prepared/en-de --output model --int8"
SHORTEST, LONGEST = 1.0, 3600.0


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ``mla-export``."""
    parser = argparse.ArgumentParser(prog="mla-export", description=__doc__, formatter_class=Help, epilog=EXAMPLE)
    add = parser.add_argument
    add("checkpoint", type=Path, help="checkpoint of fairseq-train: a chunked encoder, or text to speech")
    add("--data", type=Path, required=True, metavar="DIR", help="prepared data folder of the model")
    names = "config_st.yaml, or config.yaml in text to speech"
    add("--config-yaml", metavar="FILE", help=f"data configuration in that folder (default: {names})")
    add_user_dir(parser)
    add("--output", type=Path, required=True, metavar="FOLDER", help="folder to write, or an exported model to replace")
    add("--int8", action="store_true", help="8-bit weights: a quarter of the size, and faster")
    add(
        "--web", nargs="?", type=Path, const=Path("node_modules"), metavar="NODE_MODULES",
        help="add a page that translates in browsers, with onnxruntime-web of this folder (default: node_modules)",
    )  # fmt: skip
    add("--beam", type=at_least(1), default=1, metavar="N", help="hypotheses that the decoder's graph takes")
    add(
        "--longest", type=float, default=30.0, metavar="S", help="longest speech in seconds that softmax attention sees"
    )
    return parser


def run(args: argparse.Namespace) -> None:
    """Export the checkpoint.

    Raises:
        ValueError: the flags, the checkpoint and the data do not fit together, or the model cannot be exported.
    """
    if not SHORTEST <= args.longest <= LONGEST:
        raise ValueError(f"--longest is {args.longest:g}: give {SHORTEST:g} to {LONGEST:g} seconds")
    # here and below: fairseq takes seconds, and --help needs none
    from mla_fairseq.checkpoints import load_training
    from mla_fairseq.edge.export import check_installed
    from mla_fairseq.edge.folder import check_replaceable
    from mla_fairseq.edge.page import find_runtime

    check_installed()
    check_replaceable(args.output)
    if args.web:
        find_runtime(args.web)
    import_user_dir(args.user_dir)
    speaks = load_training(args.checkpoint)[1].startswith("tts_transformer")
    (_export_voice if speaks else _export_translator)(args)
    print(f"{args.output}: exported")
    if args.web:
        print(f"run python -m http.server 8000 --directory {args.output} and open http://localhost:8000")


def _export_translator(args: argparse.Namespace) -> None:
    from mla_fairseq.edge.speech_to_text import export_speech
    from mla_fairseq.streaming.search import SearchOptions
    from mla_fairseq.streaming.translator import Translator

    translator = Translator.load(args.checkpoint, args.data, args.config_yaml or "config_st.yaml")
    logging.getLogger("mla_fairseq").setLevel(logging.INFO)
    options = SearchOptions(beam=args.beam)
    export_speech(translator, args.data, args.output, args.longest, options, args.int8, args.web)


def _export_voice(args: argparse.Namespace) -> None:
    with needs("tts"):
        import librosa  # noqa: F401 -- for the mel filters
    from mla_fairseq.edge.text_to_speech import export_voice
    from mla_fairseq.synthesis.speaker import Speaker

    if args.beam > 1:
        raise ValueError(f"--beam is {args.beam}, but text to speech has no beam search: remove it")
    if args.web:
        raise ValueError(f"--web is {args.web}, but the page only translates, and this model speaks: remove it")
    speaker = Speaker(args.checkpoint, args.data, args.config_yaml or "config.yaml")
    logging.getLogger("mla_fairseq").setLevel(logging.INFO)
    export_voice(speaker, args.output, args.int8)


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``mla-export``."""
    run_command(build_parser(), run, argv, logging.WARNING)
