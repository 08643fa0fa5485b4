"""What is run on a mutated folder: every command, the files that it reads, and what its result is."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TextIO

import torch

from mla_fairseq.cli import recipe, sweep, sweep_agent
from mla_fairseq.errors import user_errors
from mla_fairseq.evaluation import programs
from mla_fairseq.evaluation.curves import draw_training_curve
from mla_fairseq.evaluation.offline import read_generated
from mla_fairseq.recipes import process
from tests.fuzz.world import JOINT, JOINT_TRAINING, KINDS, MODELS, SPEAKER, TEXT, UPDATES, text_task
from tests.programs import ENTRY_POINTS, Done, run

ENTRY_POINTS |= {
    "fairseq-validate": "fairseq_cli.validate:cli_main",
    "fairseq-interactive": "fairseq_cli.interactive:cli_main",
    "sweep": "tests.fuzz.commands:sweep_here",
    "sweep-agent": "tests.fuzz.commands:sweep_here",
    "whole-recipe": "tests.fuzz.commands:whole_recipe",
    "training-curve": "tests.fuzz.commands:training_curve",
    "read-generated": "tests.fuzz.commands:generated",
}


def run_here(command: list[str], stdout: TextIO, stderr: TextIO, **_: object) -> subprocess.CompletedProcess:
    """Run a program as ``subprocess.run`` does, but in a forked child."""
    done = run(Path(command[0]).name, command[1:])
    stderr.write(done.err)
    stdout.write(done.out)
    return subprocess.CompletedProcess(command, done.code)


def sweep_here() -> None:
    """Run ``mla-sweep`` or ``mla-sweep-agent``, and forked children in place of the programs that they start."""
    programs.subprocess = SimpleNamespace(run=run_here)  # this process is the case's own
    main = {"sweep": sweep.main, "sweep-agent": sweep_agent.main}[sys.argv[0]]
    main()


class Forked:
    """A program in a forked child, with what ``mla-recipe`` uses of ``subprocess.Popen``."""

    def __init__(self, command: list[str], **_: object) -> None:
        done = run(Path(command[0]).name, command[1:])
        self.stdout, self.returncode = tempfile.TemporaryFile(), done.code  # noqa: SIM115 -- __exit__ closes it
        self.stdout.write((done.err + done.out).encode())
        self.stdout.seek(0)

    def __enter__(self) -> "Forked":
        return self

    def __exit__(self, *_: object) -> None:
        self.stdout.close()

    def terminate(self) -> None:
        """Do nothing: it has ended."""


def whole_recipe() -> None:
    """Run ``mla-recipe`` and forked children in place of the programs that it starts; print the logs of this run."""
    os.environ["DATA"], *sys.argv[1:] = sys.argv[1:]
    process.subprocess = SimpleNamespace(**{**vars(subprocess), "Popen": Forked})
    try:
        recipe.main()
    finally:
        folder = Path(sys.argv[sys.argv.index("--out") + 1], "whole")
        for log in filter(Path.is_file, sorted(folder.glob("*.log"))):  # not a pipe
            print(log.read_bytes().decode("utf-8", "replace").rpartition("# session")[2])


def scores(folder: str) -> Callable[[Done, Path], object]:
    """Return the scores in the result of a recipe."""

    def read(_: Done, place: Path) -> object:
        result = json.loads((place / folder / "whole/result.json").read_text())
        return [(name, result[name]) for name in ("bleu", "chrf", "sentences", "updates", "attention")]

    return read


def training_curve() -> None:
    """Draw a training curve, as ``mla-recipe`` does at its end."""
    with user_errors(types=(ValueError, OSError)):
        draw_training_curve(sys.argv[1], sys.argv[2])


def generated() -> None:
    """Read the output of ``fairseq-generate``, as ``mla-recipe`` and ``mla-sweep`` do."""
    with user_errors(types=(ValueError, OSError)):
        print(read_generated(sys.argv[1]))


@dataclass(frozen=True)
class Command:
    """A command line with ``{}`` for the case's folder.

    Attributes:
        line: program and arguments.
        reads: beginnings of the names of files in ``KINDS``.
        result: what must not change silently, of the run and the case's folder.
        seconds: time after which it counts as hanging.
    """

    line: str
    reads: tuple[str, ...]
    result: Callable[[Done, Path], object]
    seconds: int = 60

    @property
    def files(self) -> list[str]:
        """Return the names of the files that are mutated for this command."""
        return [name for name in KINDS if name.startswith(self.reads)]

    def run(self, folder: Path) -> Done:
        """Run the command in a forked child."""
        program, *words = self.line.replace("{}", str(folder)).split()
        return run(program, words, seconds=self.seconds)


def printed(done: Done, folder: Path) -> object:
    """Return standard output without the case's folder."""
    return done.out.replace(str(folder), "")


def starting(*starts: str) -> Callable[[Done, Path], object]:
    """Return the lines of the output with one of these beginnings."""
    return lambda done, _: [line for start in starts for line in done.lines(start)]


def predictions(_: Done, folder: Path) -> object:
    """Return the words and delays of SimulEval's log."""
    lines = map(json.loads, (folder / "out/instances.log").read_text().splitlines())
    return [(line["prediction"], line["delays"]) for line in lines]


def weights(name: str) -> Callable[[Done, Path], object]:
    """Return a digest of the weights of a checkpoint that the command writes."""

    def read(_: Done, folder: Path) -> object:
        model = torch.load(folder / name, weights_only=True)["model"]
        return {key: hashlib.sha256(tensor.numpy().tobytes()).hexdigest() for key, tensor in model.items()}

    return read


def files(pattern: str) -> Callable[[Done, Path], object]:
    """Return digests of the files that the command writes, by name.

    Archives are left out: the names of their members change with the times of audio files.
    """

    def read(_: Done, folder: Path) -> object:
        found = sorted(path for path in folder.glob(pattern) if path.is_file())
        return {
            path.name: hashlib.sha256(path.read_bytes().replace(str(folder).encode(), b"")).hexdigest()
            for path in found
        }

    return read


GENERATE = f"{{}}/data {text_task('generate')} --gen-subset dev_st --beam 2 --max-len-b 10 --cpu --num-workers 0"
SIMULEVAL = (
    "simuleval --model-path {}/models/%s.pt --data-bin {}/data --source {}/live/source --target {}/live/target "
    "--output {}/out --source-segment-size 280 --max-len-a 0.05 --max-len-b 5 --agent-class mla_fairseq.agents."
)
DATA = ("data/config", "data/dev", "data/fbank", "data/gcmvn", "data/spm")
MODEL = ("data/config", "data/gcmvn", "data/spm")
HYPOTHESES = starting("H-")

COMMANDS = {
    "train": Command(
        f"fairseq-train {{}}/data {text_task('train')} {TEXT} {MODELS['offline']} {UPDATES} --save-dir {{}}/out",
        (*DATA, "data/train"),
        weights("out/checkpoint_last.pt"),
    ),
    "finetune": Command(
        f"fairseq-train {{}}/data {text_task('train')} {TEXT} {MODELS['offline']} {UPDATES} --save-dir {{}}/out "
        "--disable-validation --finetune-from-model {}/models/offline.pt",
        ("models/offline",),
        weights("out/checkpoint_last.pt"),
    ),
    "resume": Command(
        f"fairseq-train {{}}/data {text_task('train')} {TEXT} {MODELS['offline']} {UPDATES} --max-update 3 "
        "--disable-validation --save-dir {}/out --restore-file {}/models/offline.pt",
        ("models/offline",),
        weights("out/checkpoint_last.pt"),
    ),
    "train-tts": Command(
        f"fairseq-train {{}}/speech {SPEAKER} {UPDATES} --train-subset train --valid-subset test --save-dir {{}}/out",
        ("speech/",),
        weights("out/checkpoint_last.pt"),
    ),
    "generate": Command(
        f"fairseq-generate {GENERATE} --path {{}}/models/offline.pt --scoring sacrebleu",
        (*DATA, "models/offline"),
        HYPOTHESES,
    ),
    "generate-wait-k": Command(
        f"fairseq-generate {GENERATE} --path {{}}/models/simul.pt --beam 1 --simul-waitk-lagging 2 "
        "--simul-log {}/out/instances.log",
        (*DATA, "models/simul"),
        HYPOTHESES,
    ),
    "validate": Command(
        f"fairseq-validate {{}}/data {text_task('validate')} --path {{}}/models/offline.pt --valid-subset dev_st --cpu "
        "--num-workers 0 --batch-size 4",
        (*DATA, "models/offline"),
        lambda done, _: [line.partition("|")[2] for line in done.out.splitlines() if "| loss " in line],
    ),
    "interactive": Command(
        f"fairseq-interactive {GENERATE.replace('--gen-subset dev_st', '')} --path {{}}/models/offline.pt "
        "--input {}/live/names.txt",
        (*MODEL, "models/offline", "live/one.npy", "live/names"),
        HYPOTHESES,
    ),
    "prepare": Command(
        "mla-prepare --data {}/corpus --pairs en-de --output {}/out --vocab-type char --cmvn global --workers 1",
        ("corpus/en-de",),
        files("out/en-de/*.[tny]*"),
    ),
    "prepare-joint": Command(
        "mla-prepare --data {}/corpus --pairs en-de en-fr --joint --output {}/out --vocab-type char --workers 1",
        ("corpus/",),
        files("out/*.[tny]*"),
    ),
    "train-joint": Command(
        f"fairseq-train {{}}/joint {JOINT_TRAINING} {UPDATES} --save-dir {{}}/out",
        ("joint/",),
        weights("out/checkpoint_last.pt"),
    ),
    "generate-joint": Command(
        f"fairseq-generate {{}}/joint {JOINT} --gen-subset dev_de_st,dev_fr_st --prefix-size 1 --beam 2 --max-len-b 10 "
        "--cpu --num-workers 0 --path {}/models/joint.pt",
        ("joint/", "models/joint"),
        HYPOTHESES,
    ),
    "segments": Command(
        "mla-segments --data {}/corpus --pair en-de --split dev --output {}/out",
        ("corpus/en-de/data/dev",),
        files("out/**/*"),
    ),
    "segments-unsegmented": Command(
        "mla-segments --data {}/corpus --pair en-de --split dev --output {}/out --unsegmented",
        ("corpus/en-de/data/dev",),
        files("out/*"),
    ),
    "prepare-tts": Command(
        "mla-prepare-tts {}/voice --output {}/out --dev 2 --test 2 --workers 1", ("voice/",), files("out/*.[tny]*")
    ),
    "average": Command(
        "mla-average --inputs {}/models/offline.pt {}/models/second.pt --output {}/out/mean.pt",
        ("models/offline", "models/second"),
        weights("out/mean.pt"),
    ),
    "linearize": Command(
        "mla-linearize {}/models/offline.pt --data {}/data --cross-attn-type relu --distill-updates 2 "
        "--output {}/out/linear.pt",
        (*MODEL, "data/train", "data/fbank", "models/offline"),
        weights("out/linear.pt"),
    ),
    "heads": Command(
        "mla-heads {}/models/offline.pt {}/live/one.wav --data {}/data --segment-size 100",
        (*MODEL, "models/offline", "live/one.wav"),
        printed,
    ),
    "sweep": Command(
        "sweep {}/data --path {}/models/simul.pt --laggings 2 --subset dev_st --max-len-a 0 --max-len-b 10 --cpu "
        "--output {}/out --timelines",
        (*DATA, "models/simul"),
        files("out/points.tsv"),
    ),
    "sweep-agent": Command(
        "sweep-agent --agent HoldAgent --option hold --values 1,3 --output {}/out -- "
        + SIMULEVAL.removeprefix("simuleval ").partition(" --output")[0] % "offline"
        + " --source-segment-size 280 --max-len-a 0.05 --max-len-b 5",
        (*MODEL, "models/offline"),
        lambda _, folder: [line.split("\t")[:4] for line in (folder / "out/points.tsv").read_text().splitlines()],
    ),
    "evaluate": Command("mla-evaluate {}/logs/k1 --timeline 1 --transcript 2 --pictures {}/out", ("logs/k1",), printed),
    "evaluate-long-form": Command(
        "mla-evaluate {}/talks --long-form {}/talks/dev.segments.yaml --references {}/talks/dev.segments.de",
        ("talks/",),
        printed,
    ),
    "plot": Command("mla-plot {}/logs/points.tsv --output {}/out/plot", ("logs/points",), files("out/plot.svg")),
    "training-curve": Command("training-curve {}/logs/train.log {}/out/curve", ("logs/train",), files("out/curve.svg")),
    "read-generated": Command("read-generated {}/logs/generate.txt", ("logs/generate",), printed),
    "recipe": Command("mla-recipe {}/recipe/recipe.yaml --out {}/out --dry-run", ("recipe/",), printed),
    "whole-recipe": Command(
        "whole-recipe {}/corpus {}/recipe/whole.yaml --name whole --out {}/out --set data=noise",
        ("corpus/en-de",),
        scores("out"),
        seconds=120,
    ),
    "continued-recipe": Command(
        "whole-recipe {}/corpus {}/recipe/whole.yaml --name whole --out {}/runs --set data=noise train.max_update=4",
        ("runs/",),
        scores("runs"),
        seconds=120,
    ),
    "synthesize-hifi-gan": Command(
        "mla-synthesize {}/models/tts.pt --data {}/speech --output {}/out --text abc fed --no-pictures "
        "--vocoder-checkpoint {}/vocoder/generator.pt --vocoder-config {}/vocoder/settings.json",
        ("vocoder/",),
        files("out/*.wav"),
    ),
    "synthesize": Command(
        "mla-synthesize {}/models/tts.pt --data {}/speech --output {}/out --text abc fed --no-pictures",
        ("speech/config", "speech/gcmvn", "speech/dict", "models/tts"),
        files("out/*.wav"),
    ),
    "synthesize-set": Command(
        "mla-synthesize {}/models/tts.pt --data {}/speech --output {}/out --gen-subset test --no-pictures",
        ("speech/config", "speech/gcmvn", "speech/dict", "speech/test", "speech/mel80", "models/tts"),
        files("out/*.wav"),
    ),
    "translate": Command(
        "mla-translate {}/models/offline.pt {}/live/one.wav --data {}/data --beam 2 --max-len-b 10",
        (*MODEL, "models/offline", "live/one.wav"),
        printed,
    ),
    "agent-wait-k": Command(
        f"{SIMULEVAL % 'simul'}WaitKAgent --waitk-lagging 2",
        (*MODEL, "models/simul", "live/one.wav"),
        predictions,
    ),
    "agent-long-form": Command(
        f"{SIMULEVAL % 'simul'}WaitKAgent --waitk-lagging 2 --long-form --detector energy",
        (*MODEL, "models/simul", "live/one.wav"),
        predictions,
    ),
    "agent-align-att": Command(
        f"{SIMULEVAL % 'offline'}AlignAttAgent --frame-num 2",
        (*MODEL, "models/offline", "live/one.wav"),
        predictions,
    ),
}
