"""Make the demo that mla-edge is installed with: the int8 model of a run, and three test sentences with their words.

The sentences last 2 to 4 seconds, and the words that mla-edge emits are those of the reference. int8 and float32 emit
the same words at the same times: so other processors, which round otherwise, can be expected to do so too. Of these
sentences, the one with the most words that none before had is taken three times; the first one of equals.

    mla-recipe configs/demo/st.yaml
    mla-recipe configs/demo/simul.yaml --set train.max_update=7000 --name demo_talks
    python -m examples.on_device.ship runs/demo_talks

The same run gives the same files, but for the commit in demo.json.
"""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from examples.on_device.compare import write_folder
from mla_fairseq.checkpoints import load_checkpoint
from mla_fairseq.cli import edge
from mla_fairseq.cli.options import Help, run_command
from mla_fairseq.data.corpus import Segment
from mla_fairseq.data.layouts import open_corpus
from mla_fairseq.edge.folder import check_replaceable, write_config, writing
from mla_fairseq.edge.runtime.demo import FOLDER, NUMBER, SENTENCES
from mla_fairseq.edge.runtime.model import EdgeTranslator
from mla_fairseq.edge.runtime.names import CONFIG
from mla_fairseq.files import read_json, write_bytes, write_json
from mla_fairseq.recipes.process import commit
from mla_fairseq.speech import SAMPLE_RATE, read_audio
from mla_fairseq.speech.audio import wav_bytes
from mla_fairseq.speech.samples import INT16_RANGE

SPLIT = "tst-COMMON"
SHORTEST, LONGEST = 2.0, 4.0  # seconds
COUNT = 3

Words = list[tuple[float, str]]


@dataclass(frozen=True)
class Spoken:
    """A test sentence, its samples (N,) int16, and the words that the model emits."""

    segment: Segment
    samples: NDArray
    words: Words


def emitted(model: EdgeTranslator, samples: NDArray) -> Words:
    """Return the words that ``mla-edge`` emits for samples (N,), with their times in seconds."""
    session = edge.begin(edge.build_parser().parse_args(["--demo", "--number", str(NUMBER)]), model)
    found = [*session.push(samples), *session.finish()]
    return [(round(one.milliseconds / 1000, 2), one.text) for one in found if one.text]


def candidates(segments: Sequence[Segment], int8: Path, float32: Path) -> list[Spoken]:
    """Return the sentences from which those of the demo are taken."""
    model, exact = EdgeTranslator.load(int8), EdgeTranslator.load(float32)
    found = []
    for one in tqdm([one for one in segments if SHORTEST <= one.length / SAMPLE_RATE <= LONGEST], unit="sentence"):
        samples = (read_audio(one.wav, one.start, one.length) * INT16_RANGE).astype(np.int16)
        words = emitted(model, samples)
        if " ".join(text for _, text in words) == one.target and words == emitted(exact, samples):
            found.append(Spoken(one, samples, words))
    return found


def choose(found: Sequence[Spoken]) -> list[Spoken]:
    """Return the sentences of the demo: each time the one with the most words that none before has.

    Raises:
        ValueError: there are not enough.
    """
    if len(found) < COUNT:
        raise ValueError(f"{len(found)} sentences are suitable, but {COUNT} are needed: train the model longer")
    chosen: list[Spoken] = []
    known: set[str] = set()
    for _ in range(COUNT):
        rest = [one for one in found if one not in chosen]
        chosen.append(max(rest, key=lambda one: len(vocabulary(one) - known)))
        known |= vocabulary(chosen[-1])
    return chosen


def vocabulary(one: Spoken) -> set[str]:
    """Return the words of the source text."""
    return set(re.findall(r"\w+", one.segment.source.lower()))


def describe(run: Path, chosen: Sequence[Spoken]) -> dict[str, object]:
    """Return the content of demo.json."""
    state = load_checkpoint(run / "checkpoint_average.pt")
    return {
        "command": f"python -m examples.on_device.ship runs/{run.name}",
        "commit": commit(),
        "model": {
            "updates": state["optimizer_history"][-1]["num_updates"],
            "seed": state["cfg"]["common"]["seed"],
            "commit": read_json(run / ".stage-train.json")["commit"],
        },
        "licence": "MIT; the speech is synthetic, by eSpeak NG",
        "sentences": [
            {"wav": name(number), "id": one.segment.id, "source": one.segment.source, "words": one.words}
            for number, one in enumerate(chosen, 1)
        ],
    }


def name(number: int) -> str:
    """Return the name of a wav file."""
    return f"{number}.wav"


def write(output: Path, model: Path, chosen: Sequence[Spoken], description: dict[str, object]) -> None:
    """Write the folder of the demo: an exported model whose config.json has the sums of all files."""
    with writing(output) as folder:
        shutil.copytree(model, folder, dirs_exist_ok=True)
        for number, one in enumerate(chosen, 1):
            write_bytes(folder / name(number), wav_bytes(one.samples))
        write_json(folder / SENTENCES, description)
        config = read_json(folder / CONFIG)
        (folder / CONFIG).unlink()
        write_config(folder, {key: value for key, value in config.items() if key not in ("format", "files")})


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ``python -m examples.on_device.ship``."""
    parser = argparse.ArgumentParser("python -m examples.on_device.ship", description=__doc__, formatter_class=Help)
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="run of configs/demo/simul.yaml, beside the data of the recipe")
    add("--output", type=Path, default=FOLDER, metavar="DIR", help="folder to write or to replace")
    return parser


def run(args: argparse.Namespace) -> None:
    """Export the model of the run, choose the sentences, and write the folder.

    Raises:
        ValueError, OSError: files or flags are wrong, or too few sentences are translated right.
    """
    check_replaceable(args.output)
    data = args.run.absolute().parent / "data"
    segments = open_corpus(data / "demo_corpus/en-de").read(SPLIT)
    with TemporaryDirectory() as part:
        export = argparse.Namespace(
            checkpoint=args.run / "checkpoint_average.pt", data_bin=data / "demo/en-de", config_yaml="config_st.yaml",
            user_dir=None, output=Path(part),
        )  # fmt: skip
        int8, float32 = (write_folder(export, precision) for precision in ("int8", "float32"))
        found = candidates(segments, int8, float32)
        chosen = choose(found)
        write(args.output, int8, chosen, describe(args.run, chosen))
    print(f"{args.output}: {len(found)} sentences are suitable; taken: {', '.join(one.segment.id for one in chosen)}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``python -m examples.on_device.ship``."""
    run_command(build_parser(), run, argv)


if __name__ == "__main__":
    main()
