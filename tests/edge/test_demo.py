"""The demo of both distributions says what it said when it was made, without torch and without a network."""

import re
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from mla_fairseq.cli.edge import DEMO, build_parser, check_flags, check_sources
from mla_fairseq.edge.runtime import demo
from tests.documents import TEXTS
from tests.edge.test_torch_free import run_blocked
from tests.programs import ROOT, run

MOST = 3_500_000  # bytes

AT_ONCE = """
import socket, time
from mla_fairseq.cli.edge import main

def offline(event, _):
    if event.startswith("socket."):
        raise OSError("there is no network")

sys.addaudithook(offline)
time.sleep = lambda seconds: None
main(["--demo", *{flags}])
"""


def run_demo(*flags: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run ``mla-edge --demo`` without waiting for the speech, where only numpy and onnxruntime can be imported."""
    return run_blocked(AT_ONCE.format(flags=flags), folder)


def expected() -> list[str]:
    """Return what the command prints before the cost."""
    lines = [DEMO]
    for sentence in demo.sentences():
        lines += [sentence.source, *(f"{seconds:8.2f}  {text}" for seconds, text in sentence.words)]
    return lines


def check_demo(done: subprocess.CompletedProcess[str]) -> None:
    """Check the output of the demo.

    Words and times must be equal on every processor, although 8-bit products are not: without VNNI, sums may saturate.
    The sentences were chosen so that float32 emits the same, and rounds more differently than any processor does. qemu
    emulated one with AVX2 alone (Haswell) and one without (Nehalem): both emitted the same.
    """
    assert done.returncode == 0, done.stderr
    *lines, cost = done.stdout.splitlines()
    assert lines == expected()
    assert re.fullmatch(r"demo: \d\.\d s of audio, real-time factor \d\.\d{3}, peak memory \d+ MiB", cost), cost


def test_the_demo_says_the_words_that_it_was_shipped_with() -> None:
    sentences = demo.sentences()
    assert len({one.source for one in sentences}) == len(sentences) == 3
    assert all(len(one.words) > 3 and one.words[-1][0] > one.words[0][0] for one in sentences)
    check_demo(run_demo())


def test_a_policy_of_the_user_replaces_that_of_the_demo() -> None:
    first = demo.sentences()[0]
    done = run_demo("--number", "1")
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.splitlines()[2].split()[0]) < first.words[0][0]


def test_the_demo_is_small() -> None:
    assert sum(path.stat().st_size for path in demo.FOLDER.iterdir()) <= MOST
    for sentence in demo.sentences():
        with wave.open(str(sentence.path), "rb") as file:
            assert file.getparams()[:3] == (1, 2, 16_000)


def test_a_damaged_demo_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in demo.FOLDER.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes()[: -1 if path.name == "2.wav" else None])
    monkeypatch.setattr(demo, "FOLDER", tmp_path)
    done = run("mla-edge", "--demo")
    assert done.code == 1 and re.search(r"2\.wav has \d+ bytes, but \d+ were written: copy the folder", done.last_line)


def test_blocks_arrive_when_they_are_spoken(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [7.0]
    clock = type(sys)("clock")
    clock.monotonic, clock.sleep = (lambda: now[0]), (lambda seconds: now.append(now.pop() + seconds))
    monkeypatch.setattr(demo, "time", clock)
    arrived = []
    for block in demo.as_spoken(np.zeros(size) for size in (1_600, 1_600, 800)):
        arrived.append((len(block), round(now[0], 3)))
        now[0] += 0.13 if len(arrived) == 1 else 0  # a slow step: the next block is late, those after it are not
    assert arrived == [(1_600, 7.1), (1_600, 7.23), (800, 7.25)]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "no model is given: name a FOLDER that mla-export wrote, or try --demo"),
        (["--microphone"], "no model is given: name a FOLDER that mla-export wrote, or try --demo"),
        (["--demo", "model"], "--demo has its own model and speech, but more is given (model): remove it, or --demo"),
        (["model", "a.wav", "--demo"], "(model, a.wav)"),
        (["--demo", "--microphone"], "(--microphone)"),
        (["--demo", "--text", "Hello.", "--symbols", "h e"], "(--text, --symbols)"),
        ([__file__], f"{__file__} is a file, not a folder: name the folder of mla-export first"),
        (["model"], "no speech or text is given: name audio files, or give --microphone, --text or --symbols"),
        (["model", "1.wav", "--text", "Hi."], "both audio files and --text are given (1.wav, Hi.): remove one"),
        (["model", "--microphone", "--symbols", "h e"], "both --microphone and --symbols are given (h e): remove one"),
    ],
)
def test_a_command_line_that_names_no_or_two_sources(flags: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        check_sources(build_parser().parse_args(flags))


@pytest.mark.parametrize("source", [["model", "1.wav"], ["model", "--microphone"], ["--demo"]])
@pytest.mark.parametrize("flag", [["--output", "o"], ["--seed", "0"], ["--speaker", "x"]])
def test_a_flag_of_text_to_speech_is_refused_for_speech(source: list[str], flag: list[str]) -> None:
    check_flags(build_parser().parse_args([*source, "--beam", "2", "--detector", "energy"]))
    with pytest.raises(ValueError, match=rf"{flag[0]} is given \({flag[1]}\), but it is for a model that speaks text"):
        check_flags(build_parser().parse_args([*source, *flag]))


@pytest.mark.parametrize("source", ["--text", "--symbols"])
@pytest.mark.parametrize(
    "flag", [["--policy", "x"], ["--number", "0"], ["--beam", "1"], ["--tgt-lang", "de"], ["--detector", "energy"]]
)
def test_a_flag_of_translation_is_refused_for_text(source: str, flag: list[str]) -> None:
    check_flags(build_parser().parse_args(["model", source, "a", "--output", "o", "--seed", "3", "--speaker", "x"]))
    with pytest.raises(ValueError, match=rf"{flag[0]} is given \({flag[1]}\), but it is for a model that translates"):
        check_flags(build_parser().parse_args(["model", source, "a", *flag]))


def test_the_command_refuses_a_flag_that_does_nothing(tmp_path: Path) -> None:
    done = run("mla-edge", tmp_path, "1.wav", "--seed", 3)
    assert (done.code, done.last_line[:26]) == (1, "error: --seed is given (3)")


def test_a_precision_that_the_demo_lacks_is_reported() -> None:
    done = run("mla-edge", "--demo", "--precision", "float32")
    assert done.code == 1 and "has no encoder.onnx: name another precision" in done.last_line


def test_the_readme_shows_the_output() -> None:
    assert "\n".join(expected()) in TEXTS["README.md"]
