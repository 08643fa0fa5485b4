"""Agents with --long-form: whole talks under SimulEval, and the flags."""

import logging
from argparse import ArgumentParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
from simuleval.data.segments import SpeechSegment

from mla_fairseq.agents import AlignAttAgent, LocalAgreementAgent, MonotonicAgent, StreamingAgent, WaitKAgent
from mla_fairseq.errors import UserError
from mla_fairseq.streaming import EnergyDetector, LongSession
from tests.streaming.conftest import RATE
from tests.streaming.test_agent import LONGEST, MONOTONIC, attempt, simuleval
from tests.streaming.test_long import STREAM

AGENTS = {
    "wait-k": (WaitKAgent, "", "--waitk-lagging 2", 1),
    "monotonic": (MonotonicAgent, MONOTONIC, "", 1),
    "alignatt": (AlignAttAgent, "", "--frame-num 2", 7),
    "agreement": (LocalAgreementAgent, "--encoder-chunk-size 0", "", 7),
}


@pytest.fixture
def build(save, data: Path):
    """``build(agent, model, flags)``: an agent, as SimulEval builds it."""

    def build(agent: type[StreamingAgent], model: str = "", flags: str = "") -> StreamingAgent:
        parser = ArgumentParser()
        parser.add_argument("--source-segment-size", type=int, default=280)  # SimulEval's
        agent.add_args(parser)
        model_flags = ["--model-path", str(save(model)), "--data-bin", str(data)]
        return agent(parser.parse_args([*model_flags, *LONGEST, *flags.split()]))

    return build


def feed(agent: StreamingAgent, samples: np.ndarray, milliseconds: int = 280) -> list[tuple[float, str]]:
    """Pass a recording to an agent as SimulEval does; return (ms of audio, text) of every action with words."""
    size, found = milliseconds * RATE // 1000, []
    for start in range(0, len(samples), size):
        part, end = samples[start : start + size], start + size >= len(samples)
        output = agent.pushpop(SpeechSegment(content=part.tolist(), sample_rate=RATE, finished=end))
        assert output.finished is end  # an earlier end would drop the rest of the recording
        if output.content:
            found.append((min(start + size, len(samples)) * 1000 / RATE, output.content))
    return found


@pytest.mark.parametrize("name", AGENTS)
def test_a_talk_is_translated_to_its_end(build, name: str) -> None:
    kind, model, flags, segment = AGENTS[name]
    agent = build(kind, model, f"--long-form {flags}")
    talk = np.concatenate([STREAM, STREAM]).astype(np.float32) / 32_768
    session = LongSession(agent.build_session(), segment=segment)
    expected = session.push(talk, final=True)
    assert session.stretch >= 5 and len({emission.stretch for emission in expected}) >= 5
    end = len(talk) * 1000 / RATE
    for _ in range(2):  # the second recording starts from scratch
        found = feed(agent, talk)
        agent.reset()
        assert " ".join(words for _, words in found) == " ".join(e.text for e in expected if e.text)
        # words appear with the first segment that completes their audio
        times = {min(end, -(-e.milliseconds // 280) * 280) for e in expected if e.text}
        assert {ms for ms, _ in found} == times
        assert min(times) < 2_000 and max(times - {end}) > 8_000


def test_without_the_flag_a_long_recording_warns_once(build, caplog) -> None:
    part = SpeechSegment(content=[0.0] * 25 * RATE, sample_rate=RATE)
    agents = [build(WaitKAgent, "", "--waitk-lagging 2"), build(WaitKAgent, "", "--long-form")]
    with caplog.at_level(logging.WARNING):
        for agent in agents:
            for _ in range(2):
                for _ in range(4):
                    agent.push(part)  # the samples wait until SimulEval asks for an action
                agent.reset()
    assert [r.getMessage() for r in caplog.records if r.name.startswith("mla_fairseq")] == [
        "a recording of more than 60 s is translated as one sentence: add --long-form"
    ]


def test_the_flags_reach_the_session(build) -> None:
    session = build(WaitKAgent, "", "--long-form --pause 0.4 --longest 5 --detector energy").states.session
    assert (session.pause, session.longest, session.segment) == (10, 125, 1)
    assert isinstance(session.detector, EnergyDetector)
    other = build(AlignAttAgent, "", "--long-form --source-segment-size 1").states.session
    assert (other.pause, other.longest, other.segment) == (4, 750, 1)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--pause 0.2", "--pause has no effect without --long-form: add it, or remove the flag"),
        ("--detector energy", "--detector has no effect without --long-form"),
        ("--long-form --pause 0.01", "--pause or --longest: the shortest pause must be at least 0.04 s"),
        ("--long-form --longest nan", "--pause or --longest: the shortest pause must be at least"),
        ("--long-form --detector boundary", "this model has no boundary output: use --detector energy"),
    ],
)
def test_flags_that_cannot_be_followed_are_refused(build, flags: str, message: str) -> None:
    with pytest.raises(UserError, match=f"error: {message}"):
        build(WaitKAgent, "", flags)


def test_a_talk_under_simuleval(save, data: Path, tmp_path: Path) -> None:
    """One line per recording, one delay per word; words of all stretches."""
    wavs = [tmp_path / "talk.wav", tmp_path / "silence.wav"]
    soundfile.write(wavs[0], np.concatenate([STREAM] * 2), RATE)
    soundfile.write(wavs[1], np.zeros(3 * RATE, np.int16), RATE)
    flags = ["--waitk-lagging", 2, "--long-form"]
    talk, silence = simuleval(tmp_path / "run", data, save(), wavs, *flags)
    assert len(talk["delays"]) == len(talk["elapsed"]) == len(talk["prediction"].split()) > 10
    assert talk["delays"] == sorted(talk["delays"])
    for second in range(0, 10, 2):  # in every stretch: a session alone stops after the first
        assert any(second * 1000 <= delay <= (second + 2) * 1000 for delay in talk["delays"])
    assert silence["prediction"] == "" and silence["delays"] == []
    done = attempt(tmp_path / "bad", data, save(), wavs, "--detector", "energy")
    assert done.code == 1 and done.last_line.startswith("error: --detector has no effect"), done.err[-2000:]
