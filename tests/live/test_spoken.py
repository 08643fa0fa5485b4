"""Sentences of the demo, spoken into the page, become words of its model; ``LIVE_CHECKPOINT`` names another model."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sacrebleu
import soundfile
import yaml
from tornado.testing import bind_unused_port

from tests.chromium import BINARY, Chromium, Loop
from tests.live.pages import LINES, SCREENSHOTS, button, is_state, ready

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = Path(os.environ.get("LIVE_CHECKPOINT", ROOT / "runs/demo_simul/checkpoint_average.pt"))
DATA = CHECKPOINT.parents[1] / "data"
SPEECH = DATA / "demo_corpus/en-de/data/tst-COMMON"
SENTENCES = 5
K = 3

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BINARY, reason="the page needs Chromium: apt-get install chromium"),
    pytest.mark.skipif(not CHECKPOINT.exists(), reason="the demo's model does not exist: make demo"),
]

# when the page first heard and first wrote something, when Stop was pressed, and when all was written
WATCH = """(() => {
  window.marks = {};
  const mark = (name) => (marks[name] ??= performance.now());
  const look = () => {
    if (Number(document.querySelector('#meter').ariaValueNow) > -50) mark('sound');
    if (document.querySelector('.words span')) mark('word');
    const state = document.querySelector('#state').textContent;
    if (state === 'Waiting for the last words') mark('stop');
    if (state === 'Stopped') mark('end');
  };
  new MutationObserver(look).observe(document.body, { subtree: true, childList: true, attributes: true });
})()"""


@pytest.fixture
def address() -> Iterator[str]:
    """Start ``mla-live`` with the demo's model, and return its address."""
    socket, port = bind_unused_port()
    socket.close()
    program = [sys.executable, "-c", "from mla_fairseq.cli.live import main; main()"]
    arguments = [CHECKPOINT, "--data", DATA / "demo/en-de", "--number", K, "--port", port]
    command = [*program, *map(str, arguments)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline() if process.stdout else ""
        assert line == f"open http://localhost:{port}\n", "mla-live does not start"
        yield line.split()[1]
        process.terminate()


@pytest.fixture
def speech(tmp_path: Path) -> tuple[Path, float, list[str]]:
    """Return a recording of the first sentences, the seconds from its first sound to its last, and translations."""
    segments = yaml.safe_load((SPEECH / "txt/tst-COMMON.yaml").read_text("utf-8"))[:SENTENCES]
    samples, rate = soundfile.read(SPEECH / "wav" / segments[0]["wav"])
    end = segments[-1]["offset"] + segments[-1]["duration"]
    spoken = np.concatenate((np.zeros(rate // 2), samples[: round(end * rate)], np.zeros(rate)))
    soundfile.write(tmp_path / "speech.wav", spoken, rate)
    translations = (SPEECH / "txt/tst-COMMON.de").read_text("utf-8").split("\n")[:SENTENCES]
    return tmp_path / "speech.wav", end - segments[0]["offset"], translations


def test_a_spoken_sentence_becomes_words(address: str, speech: tuple[Path, float, list[str]]) -> None:
    wav, seconds, references = speech
    loop = Loop()
    browser = Chromium(loop, f"{wav}%noloop")
    page = ready(browser, address)
    page.value(WATCH)
    button(page, "Start")
    page.wait(f"{LINES}.length >= 4 && {LINES}[3].split(' ').length > 3")
    page.resize(1060, 620, scale=1.4)
    if SCREENSHOTS:
        page.screenshot(Path(SCREENSHOTS) / "live.png")  # docs/live.png
    page.wait(f"performance.now() - marks.sound > {1000 * seconds}")
    button(page, "Stop")
    is_state(page, "Stopped")
    marks, lines = page.value("marks"), page.value(LINES)
    first, last = ((marks[b] - marks[a]) / 1000 for a, b in (("sound", "word"), ("stop", "end")))
    score = sacrebleu.corpus_chrf([" ".join(lines)], [[" ".join(references)]]).score
    late = page.value("[...document.querySelectorAll('.late')].map(e => e.textContent).join(' ')")
    print(f"\nfirst word {first:.2f} s after the first sound, last words {last:.2f} s after Stop, delays {late}")
    print(f"chrF {score:.1f}", *lines, sep="\n")
    assert score > 50 and not page.exceptions + page.problems
    browser.close()
    loop.stop()
