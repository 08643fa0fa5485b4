"""The page in a headless Chromium, whose microphone plays tones that a model turns into sentences.

``LIVE_SCREENSHOTS=DIR`` keeps a picture of each state: light, dark, and 360 px wide.
"""

import asyncio
import re
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mla_fairseq.live.place import Place
from tests.chromium import BINARY, Chromium, Loop, Page
from tests.live import tones
from tests.live.pages import LINES, NOTICE, STATE, Live, button, is_state, ready, shoot, start

pytestmark = pytest.mark.skipif(not BINARY, reason="the page needs Chromium: apt-get install chromium")
TEXT = "document.querySelector('#notice-text')"
KEPT = "'What you say is kept for 20 s.'"
LEAVE = "((event) => { dispatchEvent(event); return event.defaultPrevented; })"  # whether the page asks back
# a microphone without sound, which the page can lose
SILENCE = """navigator.mediaDevices.getUserMedia = async () => {
  const { stream } = new AudioContext().createMediaStreamDestination();
  [window.track] = stream.getAudioTracks();
  return stream;
}"""
# an audio context that tests can suspend
AUDIO = "window.AudioContext = class extends AudioContext { constructor() { super(); window.audio = this; } }"
BELOW = "((page) => page.scrollHeight - page.scrollTop - page.clientHeight)(document.documentElement)"  # px
ALL = list(tones.SENTENCES.values())


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.stop()


@pytest.fixture(scope="module")
def browser(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """Return a browser whose microphone hears all sentences again and again."""
    wav = tmp_path_factory.mktemp("microphone") / "tones.wav"
    soundfile.write(wav, tones.speech(), tones.RATE)
    browser = Chromium(loop, str(wav))
    yield browser
    browser.close()


@pytest.fixture
def live(loop: Loop) -> Iterator[Live]:
    live = Live(loop, tones.model())
    yield live
    live.kill()


@pytest.fixture
def page(browser: Chromium, live: Live) -> Iterator[Page]:
    """Return the page, ready; afterwards, it must have reported no error and loaded nothing from elsewhere."""
    page = ready(browser, live.address)
    yield page
    page.close()
    assert not page.problems + page.exceptions
    assert {re.sub(r"(?<=[0-9]/).*", "", url) for url in page.requests if url.startswith("http")} == {live.address}


def test_the_page_shows_the_model_and_what_can_be_chosen(page: Page) -> None:
    assert (
        page.value("document.querySelector('h1').textContent")
        == "English \u2192 German"
        == page.value("document.title")
    )
    assert page.value("document.querySelector('#model').textContent") == "demo/checkpoint_best.pt"
    assert page.value("[...document.querySelector('#policy').options].map(o => o.value)")[0] == "wait-k"
    assert page.value("document.querySelector('#number-value').textContent") == "4, waits 0.5 s"
    shoot(page, "ready")


def test_words_come_while_they_are_spoken_and_the_last_ones_after_stop(page: Page) -> None:
    start(page)
    page.wait("+getComputedStyle(document.querySelector('#meter div')).transform.split(/[(,]/)[1] > 0.5")
    first = page.wait(f"{LINES}[0]")
    assert any(sentence.startswith(first) for sentence in ALL)
    page.wait(f"{LINES}.length > 2")
    shoot(page, "listening")
    button(page, "Stop")
    is_state(page, "Stopped")
    assert tones.follow(page.value(LINES))
    behind = page.value("[...document.querySelectorAll('.late')].map(e => e.textContent)")
    assert all(re.fullmatch(r"\+\d\.\d s", text) for text in behind)
    shoot(page, "stopped")


def test_saved_subtitles_last_from_the_start_of_the_speech_to_the_last_word(
    page: Page, live: Live, tmp_path: Path
) -> None:
    start(page, lines=3)
    button(page, "Stop")
    is_state(page, "Stopped")
    saved = page.download(".subtitles", tmp_path)
    assert re.fullmatch(r"translation-\d{4}-\d\d-\d\d-\d{4}\.de\.vtt", saved.name)
    head, *cues = saved.read_text("utf-8").strip().split("\n\n")
    assert head == "WEBVTT" and len(cues) == 3
    texts = [cue.split("\n")[1] for cue in cues]
    assert texts == page.value(LINES) and tones.follow(texts)
    times = [[seconds(time) for time in cue.split("\n")[0].split(" --> ")] for cue in cues]
    for i, ((begin, end), (following, _)) in enumerate(pairwise(times)):
        wrapped = tones.LEAD if texts[i] == ALL[-1] else 0
        assert following - begin == pytest.approx(tones.TONE + tones.PAUSE + wrapped, abs=0.09)  # blocks have 0.04 s
        assert end - begin == pytest.approx(tones.TONE + tones.REST * 0.04, abs=0.09)
    text = page.download(".text", tmp_path)
    assert text.suffix == ".txt" and text.read_text("utf-8").split("\n")[:-1] == page.value(LINES)


def seconds(time: str) -> float:
    hours, minutes, rest = time.split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(rest)


def test_the_text_is_copied(page: Page, live: Live) -> None:
    page.allow(live.address, "clipboard-write")
    page.allow(live.address, "clipboard-read")
    start(page)
    button(page, "Stop")
    is_state(page, "Stopped")
    assert page.value(f"{LEAVE}(new Event('beforeunload', {{ cancelable: true }}))"), "words would be lost"
    page.click(".copy")
    page.wait(f"{NOTICE} === 'The text is copied.'")
    assert page.value("navigator.clipboard.readText()").split("\n")[:-1] == page.value(LINES)
    assert not page.value(f"{LEAVE}(new Event('beforeunload', {{ cancelable: true }}))")
    shoot(page, "copied")


def test_a_pause_brings_the_last_words_and_frees_the_place(page: Page, live: Live) -> None:
    start(page)
    button(page, "Pause")
    is_state(page, "Paused")
    lines = page.value(LINES)
    assert set(lines) <= set(ALL) and not live.service.clients
    shoot(page, "paused")
    before = page.value("document.querySelector('#clock').textContent")
    button(page, "Resume")
    page.wait(f"{LINES}.length > {len(lines) + 1}")
    button(page, "Stop")
    is_state(page, "Stopped")
    assert page.value(LINES)[: len(lines)] == lines
    times = page.value("[...document.querySelectorAll('time')].map(e => e.textContent)")
    assert times == sorted(times) and times[len(lines)] >= before
    assert page.value("document.querySelectorAll('section').length") == 1


def test_a_recording_can_go_on_before_the_last_words_have_come(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    start(page)
    monkeypatch.setattr(Place, "push", late)
    button(page, "Pause")
    is_state(page, "Waiting for the last words")
    button(page, "Resume")
    assert page.value("document.querySelector('#pause').textContent") == "Pause"
    is_state(page, "Listening")
    assert page.value("document.querySelectorAll('section').length") == 1


def test_k_changes_from_the_next_sentence_on(page: Page, live: Live) -> None:
    start(page)
    page.value("document.querySelector('#number').focus()")
    page.press("ArrowRight")
    page.wait(f"{NOTICE} === 'This holds from the next sentence on.'")
    page.value(f"new MutationObserver(() => {{ window.again = true }}).observe({TEXT}, {{ childList: true }})")
    page.press("ArrowLeft")
    page.press("ArrowRight")
    assert not page.value("window.again"), "a screen reader would read it again"
    page.wait(f"{LINES}.length > 1")
    (client,) = live.service.clients
    assert client.place.setting.number == 5
    shoot(page, "changed")
    button(page, "Stop")
    is_state(page, "Stopped")


def test_a_killed_server_costs_no_sentence(browser: Chromium, live: Live) -> None:
    page = ready(browser, live.address)
    start(page, lines=2)
    live.kill()
    is_state(page, "Not connected")
    assert page.value(NOTICE) == ("The server does not answer. Next attempt in 1 s. What you say is kept for 20 s.")
    shoot(page, "server_gone")
    page.wait(f"{NOTICE}.includes('Next attempt in 2 s')")
    live.start()
    page.wait(f"{LINES}.length > 4")
    assert page.value("document.querySelector('#notice').hidden")
    button(page, "Stop")
    is_state(page, "Stopped")
    assert tones.follow(page.value(LINES))
    page.close()


def test_two_attempts_make_one_connection(browser: Chromium, live: Live) -> None:
    page = ready(browser, live.address)
    start(page)
    live.kill()
    page.wait(f"{NOTICE}.includes('Next attempt in 2 s')")
    live.start()
    page.value("for (let i = 0; i < 2; i++) document.querySelector('#again').click()")
    is_state(page, "Listening")
    assert len(live.service.connections) == 1
    page.close()


def test_a_server_that_comes_back_with_another_model_is_used(browser: Chromium, live: Live) -> None:
    page = ready(browser, live.address)
    start(page)
    live.kill()
    live.model = tones.model(("fr", "es"))
    is_state(page, "Not connected")
    live.start()
    is_state(page, "Listening")
    assert page.value("document.querySelector('h1').textContent") == "English \u2192 French"
    page.wait("[...document.querySelectorAll('.words')].at(-1)?.lang === 'fr'")
    page.close()


def test_attempts_become_rare_where_the_model_always_fails(
    browser: Chromium, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise ValueError("the scores of the model are not finite")

    monkeypatch.setattr(tones.Listener, "push", fail)
    page = ready(browser, live.address)
    button(page, "Start")
    page.wait(f"{NOTICE} === 'The server failed: try again, or look at its log. Next attempt in 4 s. ' + {KEPT}")
    page.close()


def test_a_page_waits_for_a_place(browser: Chromium, loop: Loop) -> None:
    live = Live(loop, tones.model(), places=1)
    first, second = ready(browser, live.address), ready(browser, live.address)
    start(first)
    button(second, "Start")
    is_state(second, "Not connected")
    assert second.value(NOTICE).startswith("All places are taken (1): try again later. Next attempt in 1 s.")
    shoot(second, "full")
    button(first, "Stop")
    is_state(first, "Stopped")
    second.wait(f"{LINES}.length")
    first.close()
    second.close()
    live.kill()


def test_a_server_that_stops_says_so(page: Page, live: Live) -> None:
    start(page)
    page.browser.loop.loop.call_soon_threadsafe(live.service.stop)
    page.wait(f"{NOTICE}.startsWith('The server has stopped: start it again.')")
    button(page, "Stop")
    is_state(page, "Stopped")
    assert re.match(r"The last \d+\.\d s were not translated\.", page.value(NOTICE))


def test_a_refused_microphone_is_reported(page: Page, live: Live) -> None:
    page.allow(live.address, "microphone", "denied")
    button(page, "Start")
    page.wait(f"{NOTICE}.startsWith('The microphone was refused. Allow it in the address bar')")
    is_state(page, "Ready")
    shoot(page, "refused")


def test_a_speaker_who_is_not_heard_and_a_lost_microphone_are_reported(page: Page) -> None:
    page.value(f"void ({SILENCE})")
    button(page, "Start")
    page.wait(f"{NOTICE} === 'No sound comes from the microphone. Check that it is not muted.'")
    shoot(page, "muted")
    page.value("void track.dispatchEvent(new Event('ended'))")
    page.wait(f"{NOTICE} === 'The microphone was disconnected.'")
    is_state(page, "Stopped")


def test_a_microphone_that_the_browser_suspends_is_woken(page: Page) -> None:
    page.value(f"void ({AUDIO})")
    start(page)
    page.value("audio.suspend()")
    page.wait("audio.state === 'running'")
    page.wait(f"{LINES}.length > 2")
    assert page.value(STATE) == "Listening"


def test_a_page_without_audio_frees_its_place_once(page: Page, live: Live) -> None:
    page.value(f"void ({AUDIO})")
    start(page)
    live.service.idle = 1.0
    page.wait(f"{LINES}.length > 1")  # audio came after the change
    page.value("audio.resume = async () => {}; audio.suspend()")
    page.wait(f"{NOTICE} === 'No audio for 1 s, so your place is free for others: start again.'")
    is_state(page, "Stopped")


def test_a_target_language_is_chosen(browser: Chromium, loop: Loop) -> None:
    live = Live(loop, tones.model(("de", "pt_BR")))
    page = ready(browser, live.address)
    start(page)
    page.value("document.querySelector('#target').focus()")
    page.press("ArrowDown")
    page.wait("document.querySelector('h1').textContent === 'English \u2192 Brazilian Portuguese'")
    page.wait(f"{LINES}.length > 2")
    assert page.value("[...document.querySelectorAll('.words')].map(e => e.lang)")[::2] == ["de", "pt-BR"]
    (client,) = live.service.clients
    assert client.place.setting.tgt_lang == "pt_BR"
    shoot(page, "languages")
    page.close()
    live.kill()


@pytest.mark.slow
def test_a_server_that_hangs_is_left(browser: Chromium, live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    page = ready(browser, live.address)
    start(page, lines=2)
    with monkeypatch.context() as patch:
        patch.setattr(Place, "push", never)
        is_state(page, "Not connected")  # after 15 s
    page.wait(f"{LINES}.length > 4")
    assert tones.follow(page.value(LINES))
    page.close()


@pytest.mark.slow
def test_what_a_long_outage_cost_is_shown(browser: Chromium, live: Live) -> None:
    page = ready(browser, live.address)
    start(page, lines=2)
    live.kill()
    page.wait("document.querySelector('#clock').textContent > '0:26'")
    before = page.value(LINES)
    live.start()
    text = page.wait("document.querySelector('.gap')?.textContent")
    gap = re.fullmatch(r"0:(\d\d) to 0:(\d\d) was not translated: the connection was lost for too long", text)
    assert gap and 3 < int(gap[2]) - int(gap[1]) < 60
    first = page.wait("document.querySelector('.gap ~ li .words')?.textContent")
    assert page.value(LINES)[: len(before)] == before
    assert any(sentence.startswith(first) for sentence in ALL)
    shoot(page, "gap")
    page.close()


@pytest.mark.slow
def test_silence_before_an_outage_is_not_missing(browser: Chromium, live: Live) -> None:
    page = ready(browser, live.address)
    page.value(f"void ({SILENCE})")
    button(page, "Start")
    page.wait("document.querySelector('#clock').textContent > '0:23'")
    live.kill()
    is_state(page, "Not connected")
    live.start()
    is_state(page, "Listening")
    assert not page.value("document.querySelector('.gap')")
    page.close()


async def late(*arguments: object) -> list[object]:
    """Translate nothing, after some time."""
    await asyncio.sleep(0.5)
    return []


async def never(*arguments: object) -> None:
    """Wait for ever."""
    await asyncio.Event().wait()


def test_a_file_is_translated_faster_than_it_plays(page: Page, tmp_path: Path) -> None:
    samples = np.tile(tones.speech(), 8)
    soundfile.write(tmp_path / "a talk.flac", np.stack((samples, samples), 1), tones.RATE)
    began = time.monotonic()
    page.give("#file", tmp_path / "a talk.flac")
    page.wait(f"{LINES}.length > 2")
    shoot(page, "file")
    is_state(page, "Stopped")
    assert page.value(LINES) == 8 * ALL
    assert not page.value("document.querySelector('#spoken').textContent"), "a screen reader would read for long"
    page.wait(f"{BELOW} < 2")
    page.resize(360, 700)
    page.wait(f"document.documentElement.clientWidth === 360 && {BELOW} < 2")
    page.resize(1100, 760)
    assert time.monotonic() - began < len(samples) / tones.RATE
    assert page.value("document.querySelector('h2').textContent") == "a talk.flac"
    saved = page.download(".subtitles", tmp_path / "saved")
    assert saved.name == "a talk.de.vtt" and "00:00:00.400 --> 00:00:01.640\n" in saved.read_text("utf-8")


def test_a_file_goes_on_after_a_lost_connection(browser: Chromium, live: Live, tmp_path: Path) -> None:
    copies = 60  # enough that the server is killed before the end
    soundfile.write(tmp_path / "talk.wav", np.tile(tones.speech(), copies), tones.RATE)
    page = ready(browser, live.address)
    page.give("#file", tmp_path / "talk.wav")
    page.wait(f"{LINES}.length > 16")
    page.value("scrollTo(0, 0)")  # to read what came first
    live.kill()
    is_state(page, "Not connected")
    assert page.value(f"{LINES}.length") < copies * len(ALL)
    live.start()
    is_state(page, "Stopped")
    assert page.value(LINES) == copies * ALL
    assert page.value("document.documentElement.scrollTop") == 0
    page.close()


def test_what_is_no_audio_is_reported(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "letter.wav"
    file.write_text("no audio")
    page.give("#file", file)
    page.wait(f"{NOTICE}.startsWith('The browser cannot decode letter.wav.')")
    is_state(page, "Ready")
    shoot(page, "no_audio")


def test_the_keyboard_is_enough_and_a_screen_reader_gets_whole_sentences(page: Page) -> None:
    focused = "document.activeElement.textContent"
    for _ in range(4):
        page.press("Tab")
        if page.value(focused) == "Start":
            break
    page.press("Enter")
    page.wait(f"{LINES}.length > 1")
    assert page.value(focused) == "Stop"
    assert page.value("document.querySelector('#spoken').innerText").strip() == page.value(f"{LINES}[0]")
    assert (
        page.value("document.querySelector('#spoken p').lang")
        == "de"
        == page.value("document.querySelector('.words').lang")
    )
    page.press("Tab")
    assert page.value(focused) == "Pause"
    page.press(" ")
    is_state(page, "Paused")
    page.press(" ")
    is_state(page, "Listening")
    names = page.call("Accessibility.getFullAXTree")["nodes"]
    unnamed = [
        node
        for node in names
        if node.get("role", {}).get("value") in ("button", "combobox", "slider", "meter", "log", "progressbar")
        and not node.get("name", {}).get("value")
    ]
    assert not unnamed
