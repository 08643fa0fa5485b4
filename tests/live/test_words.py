"""The words of a live stream are those of a long session on the same samples."""

import asyncio
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mla_fairseq.live.model import Model, Setting
from mla_fairseq.speech.resample import Samples
from mla_fairseq.streaming import Emission, LongSession, SearchOptions, Translator
from mla_fairseq.streaming.choice import begin_long
from tests.live.serving import END, FIRST, Live, Message, play
from tests.streaming.conftest import RATE
from tests.streaming.test_long import STREAM, Spy, hiss, voice


def expected(session: LongSession, samples: np.ndarray, rate: int = RATE) -> list[Message]:
    """Return the words of a session on samples that come at once."""
    resampler = Samples()
    resampler.add(samples.astype(np.float32) / 32_768, rate)
    return [message(emission) for emission in session.push(resampler.take(final=True), final=True)]


def message(emission: Emission) -> Message:
    return {
        "words": emission.text,
        "stretch": emission.stretch,
        "start": round(emission.start),
        "time": round(emission.milliseconds),
        "sentence_ended": emission.sentence_ended,
    }


def words(answers: list[Message]) -> list[Message]:
    """Return the messages with words, without the time of computing."""
    found = [answer for answer in answers if "words" in answer]
    assert all(answer.pop("computing") > 0 for answer in found)
    return found


def blocks(samples: np.ndarray, size: int = 2048) -> list[np.ndarray]:
    """Return samples as a client sends them."""
    return [samples[start : start + size] for start in range(0, len(samples), size)]


@pytest.mark.parametrize(("rate", "size"), [(16_000, 2048), (16_000, 731), (44_100, 32_768), (48_000, 2048)])
def test_the_words_are_those_of_a_long_session(model: Model, rate: int, size: int) -> None:
    samples = np.repeat(STREAM, 3) if rate > RATE else STREAM

    async def scenario(live: Live) -> None:
        client = await live.connect(FIRST | {"sample_rate": rate})
        await client.send(*blocks(samples, size), END)
        answers, code = await client.read_all()
        assert (answers[0], code) == ({"ready": True}, 1000)
        assert answers[-1] == {"end": True, "heard": round(len(samples) * 1000 / rate)}
        assert words(answers) == expected(begin_long(model.translator), samples, rate)

    play(model, scenario)


def test_what_was_heard_is_reported_where_there_are_no_words(model: Model) -> None:
    async def scenario(live: Live) -> None:
        client = await live.ready()
        for _ in range(2):
            await client.send(hiss(0.5))
            assert await client.read() in [{"heard": heard} for heard in range(100, 700, 100)]
            await asyncio.sleep(0.3)

    play(model, scenario)


CHANGES = {"number": {"number": 3}, "policy": {"policy": "hold", "number": 2}, "default": {"policy": "align-att"}}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_holds_from_the_next_stretch_on(model: Model, change: str) -> None:
    """It comes in the middle of the second stretch of three."""
    cut = round(2.2 * RATE)
    before = expected(begin_long(model.translator, "wait-k", 1), STREAM)
    after = expected(begin_long(model.translator, **CHANGES[change]), STREAM)
    assert before != after

    async def scenario(live: Live) -> None:
        client = await live.ready(policy="wait-k", number=1)
        await client.send(*blocks(STREAM[:cut]), CHANGES[change], *blocks(STREAM[cut:]), END)
        answers, _ = await client.read_all()
        wanted = [m for m in before if m["stretch"] < 2] + [m for m in after if m["stretch"] == 2]
        assert words(answers) == wanted

    play(model, scenario)


def test_the_start_of_a_stretch_is_that_of_its_samples(model: Model) -> None:
    """Also of a stretch that ends in the push in which the next one opens."""
    session = begin_long(model.translator)
    spy = Spy(session.fresh, segment=session.segment)
    found = spy.push(np.concatenate([STREAM, voice(0.4, 3)]), final=True)
    assert {e.stretch: e.start for e in found} == {
        stretch: first * 1000 / RATE for stretch, (first, _) in enumerate(spy.slices)
    }


def test_the_model_is_described(model: Model) -> None:
    default = Setting("hold", 3)

    async def scenario(live: Live) -> None:
        await live.ready()
        answer = await live.get("/model")
        assert json.loads(answer.body) == {
            "name": "folder/small",
            "source": "en",
            "target": ["de"],
            "policies": [
                {"name": "hold", "number": "tokens", "default": 3, "lowest": 0, "highest": 20},
                {"name": "wait-k", "number": "k", "default": 2, "lowest": 1, "highest": 3},
                {"name": "align-att", "number": "frames", "default": 4, "lowest": 0, "highest": 25},
                {"name": "local-agreement", "number": "hypotheses", "default": 2, "lowest": 2, "highest": 5},
            ],
            "step_ms": 120,
            "places": 8,
            "free": 7,
            "idle_seconds": 60,
        }

    play(dataclasses.replace(model, setting=default), scenario)


def test_the_page_is_served_and_nothing_else(model: Model) -> None:
    async def scenario(live: Live) -> None:
        page = await live.get("/")
        assert (page.code, page.headers["Content-Type"]) == (200, "text/html")
        assert page.headers["Content-Security-Policy"].startswith("default-src 'self'")
        assert page.headers["X-Content-Type-Options"] == "nosniff"
        assert page.headers["Referrer-Policy"] == "no-referrer"
        for path in ("/client.py", "/../client.py", "/%2e%2e/client.py", "//etc/passwd", "/page/"):
            answer = await live.get(path)
            assert answer.code in (403, 404), path
            assert answer.headers["Content-Security-Policy"]

    play(model, scenario)


@pytest.mark.slow
def test_a_client_chooses_its_language(
    multilingual: Callable[..., Path], joint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    translator = Translator.load(multilingual(), joint)
    served = Model(translator, "several")
    assert served.describe()["target"] == translator.languages == ["de", "fr"]
    assert dataclasses.replace(served, setting=Setting("wait-k", 1, "fr")).describe()["target"] == ["fr", "de"]
    wanted = {
        name: expected(begin_long(translator, options=SearchOptions(tgt_lang=name)), STREAM) for name in ["de", "fr"]
    }
    assert wanted["de"] != wanted["fr"]

    async def scenario(live: Live) -> None:
        for name, choice in (("de", {}), ("fr", {"tgt_lang": "fr"})):
            client = await live.ready(**choice)
            await client.send(*blocks(STREAM), END)
            assert words((await client.read_all())[0]) == wanted[name]
        client = await live.ready()
        cut = round(2.2 * RATE)
        await client.send(*blocks(STREAM[:cut]), {"tgt_lang": "fr"}, *blocks(STREAM[cut:]), END)
        found = words((await client.read_all())[0])
        assert found == [m for m in wanted["de"] if m["stretch"] < 2] + [m for m in wanted["fr"] if m["stretch"] == 2]

    play(served, scenario)
