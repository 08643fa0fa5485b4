"""simulstream runs an agent: the words and delays of SimulEval, over whole talks, with one model for all streams."""

import json
import re
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import yaml

from mla_fairseq.errors import UserError
from tests.programs import ROOT, run
from tests.streaming.conftest import RATE
from tests.streaming.test_agent import simuleval
from tests.streaming.test_long import STREAM

if find_spec("simulstream") is None:
    pytest.skip("needs the extra simulstream", allow_module_level=True)

from mla_fairseq.agents.simulstream import AgentProcessor

TALK = np.concatenate([STREAM, STREAM])
EVALUATION = SimpleNamespace(detokenizer_type="simuleval", latency_unit="word")


def configuration(data: Path, checkpoint: Path, **changes: object) -> dict:
    return {
        "type": "mla_fairseq.agents.simulstream.AgentProcessor",
        "speech_chunk_size": 0.28,
        "agent": "WaitKAgent",
        "model_path": str(checkpoint),
        "data_bin": str(data),
        "max_len_a": 0.05,
        "max_len_b": 5,
        "waitk_lagging": 2,
        **changes,
    }


def processor(config: dict) -> AgentProcessor:
    AgentProcessor.load_model(SimpleNamespace(**config))
    return AgentProcessor(SimpleNamespace(**config))


def feed(stream: AgentProcessor, samples: np.ndarray) -> list[str]:
    """Translate int16 samples in chunks of 0.28 s; return the words."""
    parts = np.split(samples.astype(np.float32) / 32_768, range(4_480, len(samples), 4_480))
    outputs = [*(stream.process_chunk(part) for part in parts), stream.end_of_stream()]
    assert all(output.new_string == "".join(f" {word}" for word in output.new_tokens) for output in outputs)
    assert not any(output.deleted_tokens or output.deleted_string for output in outputs)
    return [word for output in outputs for word in output.new_tokens]


def test_its_log_has_the_words_and_delays_of_simuleval(save, data: Path, tmp_path: Path) -> None:
    from simulstream.metrics.readers import LogReader

    wavs = [tmp_path / "talk.wav", tmp_path / "second.wav"]
    soundfile.write(wavs[0], TALK, RATE)
    soundfile.write(wavs[1], STREAM[RATE:], RATE)
    (tmp_path / "wavs").write_text("".join(f"{wav}\n" for wav in wavs))
    (tmp_path / "processor.yaml").write_text(yaml.dump(configuration(data, save())))
    files = ["--speech-processor-config", tmp_path / "processor.yaml", "--wav-list-file", tmp_path / "wavs"]
    done = run("simulstream_inference", *files, "--metrics-log-file", tmp_path / "log", "--tgt-lang", "de", cwd=ROOT)
    assert done.code == 0, done.err[-3000:]
    logged = LogReader(EVALUATION, str(tmp_path / "log")).final_outputs_and_latencies()
    lines = simuleval(tmp_path / "run", data, save(), wavs, "--waitk-lagging", 2, "--long-form")
    for wav, line in zip(wavs, lines, strict=True):
        assert logged[wav.stem].final_text == line["prediction"] != ""
        assert np.allclose(np.array(logged[wav.stem].ideal_delays) * 1000, line["delays"], atol=1e-6)
    assert len({json.loads(line).get("id") for line in (tmp_path / "log").read_text().splitlines()} - {None}) == 2


def test_streams_share_a_model_and_nothing_else(save, data: Path) -> None:
    config = configuration(data, save())
    first = processor(config)
    second = AgentProcessor(SimpleNamespace(**config))
    assert first.agent.translator is second.agent.translator
    alone = feed(first, STREAM)
    assert alone and feed(first, STREAM) == alone  # another stream after the end of the first
    first.process_chunk(TALK[:20_000].astype(np.float32) / 32_768)
    assert feed(second, STREAM) == alone
    first.clear()
    assert feed(first, STREAM) == alone


def test_a_client_chooses_the_language(multilingual, joint: Path) -> None:
    config = configuration(joint, multilingual(), tgt_lang="de")
    stream, other = processor(config), AgentProcessor(SimpleNamespace(**config))
    german = feed(stream, STREAM)
    stream.set_target_language("fr")
    with pytest.raises(ValueError, match="xx"):
        stream.set_target_language("xx")
    french = feed(stream, STREAM)
    assert french != german == feed(other, STREAM)
    assert feed(stream, STREAM) == french  # the same client
    stream.clear()
    assert feed(stream, STREAM) == german


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"agent": "wait-k"}, r"names no agent \(agent: wait-k\): set it to one of AlignAttAgent, "),
        ({"waitk_lagging": "two"}, "argument --waitk-lagging: invalid int value: 'two'"),
        ({"wait_k": 3}, "unrecognized arguments: --wait-k 3"),
        ({"pause": 0.01}, "--pause or --longest: the shortest pause"),
        ({"long_form": False, "pause": 0.3}, "--pause has no effect without --long-form"),
        *[
            (
                {"speech_chunk_size": size},
                r"no length of a chunk \(speech_chunk_size: .*\): set it to seconds, at least",
            )
            for size in (0, -1, float("nan"), float("inf"), 0.00001, "x", None, [1])
        ],
        ({"model_overrides": "x"}, "--model-overrides is 'x': give a Python dictionary of literals"),
    ],
)
def test_a_wrong_configuration_is_one_line(save, data: Path, capsys, changes: dict, message: str) -> None:
    with pytest.raises(SystemExit) as raised:
        processor(configuration(data, save(), **changes))
    assert isinstance(raised.value, UserError) or raised.value.code == 2
    said = str(raised.value) + capsys.readouterr().err
    assert len(said.strip().splitlines()) == 1
    assert re.search(message, said)


def test_model_overrides_may_be_a_mapping(save, data: Path) -> None:
    for given in ({"attn_type": "relu"}, SimpleNamespace(attn_type="relu"), "{'attn_type': 'relu'}"):
        stream = processor(configuration(data, save(), model_overrides=given))
        assert type(stream.agent.translator.model.decoder.layers[0].self_attn.mechanism).__name__ == "ReLUAttention"
