#!/usr/bin/env python3
r"""Measure the page of exported models in a headless Chromium: its time and its CPU time, divided by that of the audio.

The page translates a file twice, in one thread, as fast as it can: at first, the browser still compiles. Models take
turns in one browser, each time in a new page. `--untrained` measures models with random weights, which emit as many
tokens as the limit allows: 6 for each second of speech.

    python scripts/bench_browser.py model --wav talk.wav --web node_modules \
        --untrained "--attn-type relu" --untrained "--attn-type cosformer"
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import benchmark
import soundfile
from bench_streaming import build

from mla_fairseq.cli.options import at_least
from mla_fairseq.edge.page import write_page
from mla_fairseq.edge.speech_to_text import export_speech
from mla_fairseq.streaming import SearchOptions

sys.path.append(str(benchmark.ROOT))
from tests.chromium import Chromium, Loop
from tests.edge.site import Site

HEAD = (
    "",
    "real-time factor, first time",
    "second time",
    "the same of CPU, first time",
    "second time",
    "words",
    "MB to load",
)
TIMES = 2
LIMITS = SearchOptions(max_len_a=0.06, max_len_b=1)  # tokens of a frame
PATIENCE = 3600.0  # s for a recording
STATE = "document.querySelector('#state').textContent"
FACTOR = "+/[0-9.]+/.exec(document.querySelector('#behind').textContent)[0]"
FILES = "document.querySelectorAll('h2').length"
WORDS = "[...document.querySelectorAll('.words')].map((e) => e.textContent).join(' ')"


def pages(args: argparse.Namespace, folder: Path) -> dict[str, Path]:
    """Return the folder of each model, with its page: those that have a page are used as they are."""
    found = {}
    for i, model in enumerate(args.models):
        found[model.name] = model
        if not (model / "index.html").exists():
            found[model.name] = Path(shutil.copytree(model, folder / f"model{i}"))
            write_page(found[model.name], args.web)
    for i, flags in enumerate(args.untrained):
        name, target = f"{args.arch} {flags}", folder / f"untrained{i}"
        flags = f"{flags} --waitk-lagging {args.lagging} --share-decoder-input-output-embed"
        export_speech(build(args, flags), folder, target, 30.0, LIMITS, int8=True, web=args.web)
        found[name] = target
    return found


def cpu(browser: Chromium) -> float:
    """Return the seconds of CPU that the processes of all pages took, with their workers."""
    processes = browser.call("SystemInfo.getProcessInfo")["processInfo"]
    return sum(process["cpuTime"] for process in processes if process["type"] == "renderer")


def turn(loop: Loop, browser: Chromium, folder: Path, args: argparse.Namespace) -> list[float]:
    """Return the real-time factors of a recording each time, the same of CPU, and the number of words."""
    site = Site(loop, folder)
    page = browser.open(site.address)
    page.wait(f"{STATE} === 'Ready'", PATIENCE)
    number = "document.querySelector('#number')"
    page.value(f"{number}.value = {args.lagging}; {number}.dispatchEvent(new Event('input'))")
    factors, spent = [], [cpu(browser)]
    for time in range(TIMES):
        page.give("#file", args.wav)
        page.wait(f"{FILES} === {time + 1} && {STATE} === 'Stopped'", PATIENCE)
        factors.append(page.value(FACTOR))
        spent.append(cpu(browser))
    words = len(page.value(WORDS).split()) / TIMES
    page.close()
    site.stop()
    seconds = soundfile.info(args.wav).duration
    return [*factors, *((after - before) / seconds for before, after in pairwise(spent)), words]


@contextmanager
def chromium(wav: Path) -> Iterator[tuple[Loop, Chromium]]:
    """Start a browser, and end it."""
    loop = Loop()
    browser = Chromium(loop, f"{wav}%noloop")
    try:
        yield loop, browser
    finally:
        browser.close()
        loop.stop()


def measure(args: argparse.Namespace) -> str:
    """Return the report."""
    with tempfile.TemporaryDirectory() as name, chromium(args.wav) as (loop, browser):
        models = pages(args, Path(name))
        turns: dict[str, list[list[float]]] = {model: [] for model in models}
        for _ in range(args.turns):
            for model, folder in models.items():
                turns[model].append(turn(loop, browser, folder, args))
                print(model, turns[model][-1], file=sys.stderr, flush=True)  # a busy machine takes minutes for a turn
        sizes = {model: sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
                 for model, folder in models.items()}  # fmt: skip
        version = browser.call("Browser.getVersion")["product"]
    rows = []
    for model, found in turns.items():
        *factors, words = zip(*found, strict=True)
        rows.append([model, *(benchmark.spread(each, 3) for each in factors), f"{words[0]:.0f}", f"{sizes[model]:.1f}"])
    seconds = f"{soundfile.info(args.wav).duration:.0f} s"
    about = f"A recording of {seconds}, k = {args.lagging}, one thread, {args.turns} turns: median (least-greatest)."
    return "\n\n".join(["# Exported models in a browser", about, benchmark.table(HEAD, rows),
                        f"{benchmark.signature()}; {version}"])  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path, help="folders of mla-export")
    parser.add_argument("--wav", type=Path, required=True, help="recording")
    parser.add_argument("--web", type=Path, default=Path("node_modules"), help="as for mla-export")
    parser.add_argument("--untrained", action="append", default=[], metavar="FLAGS", help="flags of an untrained model")
    parser.add_argument("--arch", default="s2t_transformer_simul_mla_s", help="its architecture (default: %(default)s)")
    parser.add_argument("--vocabulary", type=int, default=8000, help="its target symbols (default: %(default)s)")
    parser.add_argument("--lagging", type=at_least(1), default=5, help="k of wait-k (default: %(default)s)")
    parser.add_argument("--turns", type=at_least(1), default=3, help="turns of each model (default: %(default)s)")
    benchmark.add_common_args(parser)
    return parser


def main() -> None:
    args = build_parser().parse_args()
    benchmark.check_tree(args)
    benchmark.publish(measure(args), args.output)


if __name__ == "__main__":
    main()
