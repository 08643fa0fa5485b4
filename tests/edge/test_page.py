# ruff: noqa: F811 -- arguments are fixtures
"""The page of an exported model in a headless Chromium, whose microphone plays speech.

The model is that of the demo; ``LIVE_CHECKPOINT`` names another one. ``LIVE_SCREENSHOTS=DIR`` keeps pictures.
"""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sacrebleu
import soundfile

from mla_fairseq.edge.page import write_page
from mla_fairseq.edge.speech_to_text import export_speech
from mla_fairseq.streaming import SearchOptions, Translator
from mla_fairseq.streaming.choice import begin_long
from tests.chromium import BINARY, Chromium, Loop, Page
from tests.edge.site import PACKAGES, Site
from tests.live.pages import LINES, NOTICE, STATE, button, shoot
from tests.live.test_spoken import CHECKPOINT, DATA, speech  # noqa: F401 -- a fixture

K = 3
PATIENCE = 300.0  # s that a busy machine may take
FACTOR = "+/[0-9.]+/.exec(document.querySelector('#behind').textContent)[0]"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BINARY, reason="the page needs Chromium: apt-get install chromium"),
    pytest.mark.skipif(not PACKAGES.exists(), reason=f"{PACKAGES} does not exist: see INSTALL in edge/page.py"),
    pytest.mark.skipif(not CHECKPOINT.exists(), reason="the demo's model does not exist: make demo"),
]


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.stop()


@pytest.fixture(scope="module")
def translator() -> Translator:
    return Translator.load(CHECKPOINT, DATA / "demo/en-de")


@pytest.fixture(scope="module")
def folder(translator: Translator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of the model with float graphs, whose words are those of PyTorch."""
    folder = tmp_path_factory.mktemp("page") / "model"
    export_speech(translator, DATA / "demo/en-de", folder, 30.0, SearchOptions(), int8=False)
    write_page(folder, PACKAGES)
    return folder


@pytest.fixture
def site(loop: Loop, folder: Path) -> Iterator[Site]:
    site = Site(loop, folder)
    yield site
    site.stop()


@pytest.fixture
def browser(loop: Loop, speech: tuple[Path, float, list[str]]) -> Iterator[Chromium]:
    browser = Chromium(loop, f"{speech[0]}%noloop")
    yield browser
    browser.close()


@pytest.fixture
def page(browser: Chromium, site: Site) -> Iterator[Page]:
    """Return the page, ready; afterwards, it must have reported no error and loaded nothing from elsewhere."""
    page = browser.open(site.address)
    settles(page, "Ready")
    yield page
    page.close()
    assert not page.problems + page.exceptions
    assert {re.sub(r"(?<=[0-9]/).*", "", url) for url in page.requests if url.startswith("http")} == {site.address}


def settles(page: Page, state: str) -> None:
    """Wait until the page is in a state."""
    page.wait(f"{STATE} === '{state}'", PATIENCE)


def choose(page: Page, lagging: int) -> None:
    """Set k as a user does."""
    number = "document.querySelector('#number')"
    page.value(f"{number}.value = {lagging}; {number}.dispatchEvent(new Event('input'))")


def test_spoken_sentences_appear_and_the_last_words_come_after_stop(
    page: Page,
    speech: tuple[Path, float, list[str]],
) -> None:
    assert page.value("document.querySelector('h1').textContent") == "English \u2192 German"
    assert "works offline" in page.value("document.querySelector('#model').textContent")
    choose(page, K)
    shoot(page, "device_ready")
    button(page, "Start")
    page.wait(f"{LINES}.length >= 4 && {LINES}[3].split(' ').length > 3", PATIENCE)
    shoot(page, "device")
    page.wait(f"document.querySelector('#clock').textContent >= '0:{speech[1] + 0.5:02.0f}'", PATIENCE)
    before = page.value(LINES)
    button(page, "Stop")
    settles(page, "Stopped")
    lines = page.value(LINES)
    score = sacrebleu.corpus_chrf([" ".join(lines)], [[" ".join(speech[2])]]).score
    print(f"\nchrF {score:.1f}, real-time factor {page.value(FACTOR)}", *lines, sep="\n")
    assert score > 50
    assert len(" ".join(lines)) >= len(" ".join(before)) and lines[: len(before) - 1] == before[:-1]
    spoken = page.value("[...document.querySelectorAll('#spoken p')].map(e => e.textContent)")
    assert spoken == lines[-5:], "a screen reader gets whole sentences"


def test_a_file_has_the_words_of_pytorch_also_without_a_network(
    page: Page,
    site: Site,
    translator: Translator,
    speech: tuple[Path, float, list[str]],
    tmp_path: Path,
) -> None:
    session = begin_long(translator, number=K)
    samples = soundfile.read(speech[0], dtype="int16")[0]
    stretches: dict[int, list[str]] = {}
    for emission in session.push(samples, final=True):
        if emission.text:
            stretches.setdefault(emission.stretch, []).append(emission.text)
    expected = [" ".join(words) for words in stretches.values()]
    site.stop()
    page.call("Page.navigate", url=site.address)
    page.wait(f"document.querySelector('#state') && {STATE} === 'Ready'", PATIENCE)
    choose(page, K)
    page.give("#file", speech[0])
    settles(page, "Stopped")
    assert page.value(LINES) == expected
    assert page.download(".text", tmp_path / "saved").read_text("utf-8").split("\n")[:-1] == expected
    print(f"\nreal-time factor {page.value(FACTOR)}")


def test_pause_brings_the_last_words_and_resume_continues(page: Page) -> None:
    button(page, "Start")
    page.wait(f"{LINES}.length >= 1 && {LINES}[0].split(' ').length > 2", PATIENCE)
    button(page, "Pause")
    settles(page, "Paused")
    before = page.value(LINES)
    button(page, "Resume")
    page.wait(f"{LINES}.length > {len(before)}", PATIENCE)
    assert page.value(LINES)[: len(before)] == before
    button(page, "Stop")
    settles(page, "Stopped")
    assert page.value("document.querySelectorAll('h2').length") == 1


def test_what_is_no_audio_is_reported_and_the_keyboard_is_enough(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "letter.wav"
    file.write_text("no audio")
    page.give("#file", file)
    page.wait(f"{NOTICE}.startsWith('The browser cannot decode letter.wav.')")
    settles(page, "Ready")
    focused = "document.activeElement.textContent"
    for _ in range(3):
        page.press("Tab")
        if page.value(focused) == "Start":
            break
    page.press("Enter")
    settles(page, "Listening")
    assert page.value(focused) == "Stop"
    page.press("Enter")
    settles(page, "Stopped")
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    roles = ("button", "combobox", "slider", "meter", "log", "progressbar")
    assert all(node["name"]["value"] for node in nodes if node.get("role", {}).get("value") in roles)


def test_a_damaged_folder_is_reported(browser: Chromium, loop: Loop, folder: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(folder, tmp_path / "damaged"))
    graph = damaged / "decoder.onnx"
    graph.write_bytes(np.frombuffer(graph.read_bytes(), np.uint8)[:-1].tobytes())
    site = Site(loop, damaged)
    page = browser.open(site.address)
    page.wait(
        f"{NOTICE} === 'The page cannot start: decoder.onnx is damaged: copy the whole folder to the server again.'",
        PATIENCE,
    )
    settles(page, "Not ready")
    assert page.value("document.querySelector('#main').disabled")
    page.close()
    site.stop()
