"""Propose the decoder layer and the heads whose attention AlignAtt and EDAtt use.

Translates recordings of a dev set, and measures for each head, and for all heads of each layer, how well it separates
tokens that stay from tokens that more audio changes: the probability that a token that stays attends farther from the
end of the audio (0.5 is chance). Prints the choices, the best first, and the flags of the best.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from mla_fairseq.cli.options import Help, add_user_dir, at_least, import_user_dir, run_command
from mla_fairseq.speech import SAMPLE_RATE, load_audio


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ``mla-heads``."""
    parser = argparse.ArgumentParser(prog="mla-heads", description=__doc__, formatter_class=Help)
    add = parser.add_argument
    add("checkpoint", type=Path, help="checkpoint of the model")
    add("files", nargs="+", type=Path, metavar="FILE", help="audio file of one sentence; a few hundred are enough")
    add("--data", type=Path, required=True, metavar="DIR", help="prepared data folder of the model")
    add("--config-yaml", default="config_st.yaml", metavar="FILE", help="data configuration in that folder")
    add_user_dir(parser)
    add("--segment-size", type=at_least(1), default=280, metavar="MS", help="audio that arrives at once, in ms")
    skip = "encoder states whose weights are dropped"
    add("--skip-last", type=at_least(0), default=1, metavar="N", help=f"last {skip}")
    add("--skip-first", type=at_least(0), default=0, metavar="N", help=f"first {skip}")
    add("--tgt-lang", metavar="LANG", help="target language of a multilingual model, such as de (default: none)")
    return parser


def run(args: argparse.Namespace) -> None:
    """Measure and report.

    Raises:
        ValueError: flags, model or a file cannot be used.
    """
    from mla_fairseq.streaming import SearchOptions, Translator  # here: fairseq takes seconds, and --help needs none
    from mla_fairseq.streaming.alignment import AlignmentMeter

    import_user_dir(args.user_dir)
    translator = Translator.load(args.checkpoint, args.data, args.config_yaml)
    segment, options = args.segment_size * SAMPLE_RATE // 1000, SearchOptions(tgt_lang=args.tgt_lang)
    meter = AlignmentMeter(translator, segment, args.skip_last, args.skip_first, options)
    for path in tqdm(args.files, desc="heads", unit="file"):
        meter.add(load_audio(path))
    ranking = meter.ranking()
    print("layer  heads       separation")
    for alignment in ranking:
        print(f"{alignment.layer:<6} {names(alignment.heads):<11} {alignment.separation:.3f}")
    print(f"use --attn-layer {ranking[0].layer} --attn-heads {names(ranking[0].heads)}")


def names(heads: Sequence[int]) -> str:
    """Return heads as a flag has them."""
    return " ".join(map(str, heads))


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``mla-heads``."""
    run_command(build_parser(), run, argv)
