"""simulstream runs long sessions: the words and delays of SimulEval's agent, one model, languages, and clear errors."""

import asyncio
import json
import re
import shutil
import sys
from argparse import ArgumentParser
from functools import partial
from http.server import ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import soundfile
import yaml
from simuleval.data.segments import SpeechSegment

from mla_fairseq.agents import AlignAttAgent, LocalAgreementAgent, StreamingAgent, WaitKAgent
from mla_fairseq.errors import UserError
from mla_fairseq.evaluation.latency import length_adaptive_average_lagging
from mla_fairseq.streaming import SearchOptions, Translator
from mla_fairseq.streaming.choice import begin_long
from tests.programs import ROOT, run
from tests.streaming.conftest import RATE
from tests.streaming.test_agent import simuleval
from tests.streaming.test_long import STREAM

if find_spec("simulstream") is None:
    pytest.skip("needs the extra simulstream", allow_module_level=True)

from simulstream.client.wav_reader_client import stream_wav_files
from simulstream.metrics.readers import LogReader, YamlReferenceReader
from simulstream.server import websocket_server
from simulstream.server.speech_processors import SpeechProcessor
from simulstream.server.speech_processors.remote.http_proxy_speech_processor import HttpProxySpeechProcessor
from simulstream.server.speech_processors.remote.http_speech_processor_server import (
    HttpSpeechProcessorHandler,
    SpeechProcessorSessionManager,
)
from simulstream.server.speech_processors.simuleval_wrapper import SimulEvalWrapper
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

from mla_fairseq.streaming.simulstream import Processor

TALK = np.concatenate([STREAM, STREAM])
SCORING = {"detokenizer_type": "simuleval", "latency_unit": "spm"}
LIMITS = {"max_len_a": 0.05, "max_len_b": 5}


def configuration(data: Path, checkpoint: Path, **changes: object) -> dict:
    given = {"type": "mla_fairseq.streaming.simulstream.Processor", "model_path": str(checkpoint)}
    return {**given, "data_bin": str(data), **changes}


def processor(config: dict) -> Processor:
    Processor.load_model(SimpleNamespace(**config))
    return Processor(SimpleNamespace(**config))


def feed(stream: SpeechProcessor, samples: np.ndarray, size: int = 4_480) -> list[str]:
    """Translate int16 samples in chunks; return the tokens."""
    parts = np.split(samples.astype(np.float32) / 32_768, range(size, len(samples), size))
    outputs = [*(stream.process_chunk(part) for part in parts), stream.end_of_stream()]
    assert not any(output.deleted_tokens or output.deleted_string for output in outputs)
    if isinstance(stream, Processor):
        assert all(output.new_string == stream.tokens_to_string(output.new_tokens) for output in outputs)
    return [token for output in outputs for token in output.new_tokens]


def words(translator: Translator, samples: np.ndarray, *choice: object, **limits: object) -> list[str]:
    """Return the words of a long session, with the sign that tokens begin with."""
    emissions = begin_long(translator, *choice, options=SearchOptions(**limits)).push(samples, final=True)
    return ["\u2581" + word for emission in emissions for word in emission.text.split()]


@pytest.mark.parametrize(
    ("model", "choice"),
    [("", {}), ("", {"policy": "wait-k", "number": 1, "beam": 2}), ("--encoder-chunk-size 0", {}),
     ("--simul-type infinite_lookback", {})],
    ids=["defaults", "wait-k", "offline", "monotonic"],
)  # fmt: skip
def test_its_words_are_those_of_a_long_session(translator, save, data: Path, model: str, choice: dict) -> None:
    stream = processor(configuration(data, save(model), **choice))
    found = feed(stream, STREAM)
    limits = {key: value for key, value in choice.items() if key == "beam"}
    assert found == words(translator(model), STREAM, choice.get("policy"), choice.get("number"), **limits) != []
    if not choice:
        assert feed(stream, STREAM, 9_999) == found, "another stream, in other chunks"


def test_its_log_is_read_by_all_scorers(save, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """simulstream_inference writes the words and delays of SimulEval's agent, as all readers understand them."""
    wavs = [tmp_path / "talk.wav", tmp_path / "second.wav"]
    soundfile.write(wavs[0], TALK, RATE)
    soundfile.write(wavs[1], STREAM[RATE:], RATE)
    (tmp_path / "wavs").write_text("".join(f"{wav}\n" for wav in wavs))
    config = configuration(data, save(), **LIMITS, **SCORING, number=2, speech_chunk_size=0.28)
    (tmp_path / "processor.yaml").write_text(yaml.dump(config))
    files = ["--speech-processor-config", tmp_path / "processor.yaml", "--wav-list-file", tmp_path / "wavs"]
    languages = ["--src-lang", "en", "--tgt-lang", "de"]
    done = run("simulstream_inference", *files, *languages, "--metrics-log-file", tmp_path / "log", cwd=ROOT)
    assert done.code == 0, done.err[-3000:]
    logged = LogReader(SimpleNamespace(**SCORING), str(tmp_path / "log")).final_outputs_and_latencies()
    lines = simuleval(tmp_path / "run", data, save(), wavs, "--waitk-lagging", 2, "--long-form")
    for wav, line in zip(wavs, lines, strict=True):
        assert logged[wav.stem].final_text == line["prediction"] != ""
        assert np.allclose(np.array(logged[wav.stem].ideal_delays) * 1000, line["delays"], atol=1e-6)
    seconds = [line["source_length"] / 1000 for line in lines]
    segments = [{"wav": wav.name, "offset": 0.0, "duration": s} for wav, s in zip(wavs, seconds, strict=True)]
    (tmp_path / "segments.yaml").write_text(yaml.dump(segments))
    (tmp_path / "references").write_text("ein haus am see\n" * 2)
    assert np.isclose(stream_laal(tmp_path, logged, monkeypatch) * 1000, own_laal(lines))
    check_omnisteval(tmp_path, lines)


def stream_laal(folder: Path, logged: dict, patch: pytest.MonkeyPatch) -> float:
    """Return StreamLAAL in s, by simulstream's scorer; each recording has one reference, so nothing is aligned."""
    aligner = ModuleType("mweralign")  # GPL: not installed here
    aligner.mweralign = SimpleNamespace(align_texts=lambda references, hypothesis: hypothesis)
    segmenter = ModuleType("mweralign.segmenter")
    segmenter.CJSegmenter = None
    patch.setitem(sys.modules, "mweralign", aligner)
    patch.setitem(sys.modules, "mweralign.segmenter", segmenter)
    from simulstream.metrics.scorers.latency import LatencyScoringSample
    from simulstream.metrics.scorers.latency.stream_laal import StreamLaal

    references = YamlReferenceReader(str(folder / "segments.yaml"), str(folder / "references")).references
    samples = [LatencyScoringSample(name, logged[name], references[name]) for name in references]
    return StreamLaal(SimpleNamespace(latency_unit="word")).score(samples).ideal_latency


def own_laal(lines: list[dict]) -> float:
    return np.mean([length_adaptive_average_lagging(line["delays"], line["source_length"], 4) for line in lines])


def check_omnisteval(folder: Path, lines: list[dict]) -> None:
    """Check that OmniSTEval reads the words and delays of SimulEval's lines from a log of simulstream."""
    data = pytest.importorskip("omnisteval.data", reason="needs the extra long-form")
    names = [Path(line["source"][0]).stem for line in lines]
    found = data.load_hypothesis_simulstream(str(folder / "log"), str(folder / "processor.yaml"), False, names)
    for line, read in zip(lines, found, strict=True):
        assert [word.text for word in read] == line["prediction"].split()
        assert np.allclose([word.emission_cu for word in read], line["delays"])


def test_a_pool_has_one_model(save, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    load = Translator.load
    monkeypatch.setattr(Translator, "load", lambda *given: loaded.append(given) or load(*given))
    monkeypatch.setattr(Processor, "latest", None)
    config = configuration(data, save(), number=2)
    first, second = processor(config), processor(config)
    assert first.service is second.service and len(loaded) == 1
    alone = feed(first, STREAM)
    assert alone and feed(first, STREAM) == alone  # another stream after the end of the first
    first.process_chunk(TALK[:20_000].astype(np.float32) / 32_768)
    assert feed(second, STREAM) == alone
    first.clear()
    assert feed(first, STREAM) == alone
    processor({**config, "number": 3})
    assert len(loaded) == 2 and feed(first, STREAM) == alone, "a processor keeps the model of its configuration"


def test_the_device_is_honoured(save, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = []
    monkeypatch.setattr(Translator, "to", lambda self, device: moved.append(device))
    processor(configuration(data, save(), device="cuda:1"))
    assert moved == ["cuda:1"]


def test_chunks_are_as_long_as_a_step_of_the_model(save, data: Path) -> None:
    assert processor(configuration(data, save())).speech_chunk_size == 0.12
    assert processor(configuration(data, save(), speech_chunk_size=1)).speech_chunk_size == 1
    assert processor(configuration(data, save("--encoder-chunk-size 0"))).speech_chunk_size == 0.28


def test_a_client_chooses_the_language(multilingual, joint: Path) -> None:
    config = configuration(joint, multilingual(), tgt_lang="de", **LIMITS)
    stream, other = processor(config), processor(config)
    german = feed(stream, STREAM)
    stream.set_target_language("fr")
    french = feed(stream, STREAM)
    assert french != german == feed(other, STREAM)
    assert feed(stream, STREAM) == french  # the same client
    stream.clear()
    assert feed(stream, STREAM) == german
    stream.process_chunk(STREAM[:RATE].astype(np.float32) / 32_768)
    session = stream.session
    stream.set_target_language("fr")  # nothing pushed so far is lost
    assert stream.session is session and session.fresh.options.tgt_lang == "fr"
    free = processor(configuration(joint, multilingual(), **LIMITS))
    with pytest.raises(ValueError, match=r"several languages \(de, fr\): choose one by tgt_lang"):
        feed(free, STREAM)
    free.set_target_language("fr")
    assert feed(free, STREAM) == french


def test_a_language_that_the_model_lacks_is_not_translated(save, data: Path, multilingual, joint: Path) -> None:
    for stream, targets in (
        (processor(configuration(data, save())), "de"),
        (processor(configuration(joint, multilingual(), tgt_lang="de")), "de or fr"),
    ):
        expected = feed(stream, STREAM)
        for choose, kind, known in (
            (stream.set_source_language, "source", "en"),
            (stream.set_target_language, "target", targets),
        ):
            message = f"^'xx' is no {kind} language of this model: use {known}$"
            with pytest.raises(ValueError, match=message):
                choose("xx")
            with pytest.raises(ValueError, match=message):  # the server only logs the first
                feed(stream, STREAM)
            assert stream.end_of_stream().new_tokens == []
            choose(known.partition(" ")[0])
            assert feed(stream, STREAM) == expected
            with pytest.raises(ValueError, match=message):
                choose("xx")
            stream.clear()  # another client
            assert feed(stream, STREAM) == expected


def test_the_configuration_names_languages_that_the_data_do_not(save, data: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(data, bare, ignore=shutil.ignore_patterns("*.tsv", "data"))
    stream = processor(configuration(bare, save()))
    stream.set_source_language("it")
    stream.set_target_language("xx")
    stream = processor(configuration(bare, save(), src_lang="en", tgt_lang="de"))
    assert feed(stream, STREAM)
    with pytest.raises(ValueError, match="'it' is no source language of this model: use en"):
        stream.set_source_language("it")
    with pytest.raises(ValueError, match="'xx' is no target language of this model: use de"):
        stream.set_target_language("xx")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_path": None}, "the configuration lacks model_path: add it"),
        ({"model_path": "no.pt"}, r"no checkpoint no\.pt"),
        ({"model_path": 3}, r"model_path is not a text \(3\): write it in quotes"),
        ({"tgt_lang": False}, r"tgt_lang is not a text \(False\): write it in quotes"),  # no: Norwegian
        ({"tgt_lang": "fr"}, "'fr' is no target language of this model: use de"),
        ({"src_lang": "fr"}, "'fr' is no source language of this model: use en"),
        ({"config_yaml": "other.yaml"}, r"other\.yaml is missing \(configurations in this folder: config_st\.yaml\)"),
        ({"longst": 20}, r"unknown key \(longst\): use longest$"),
        ({"vad_threshold": 0.5}, r"unknown key \(vad_threshold\): use beam or config_yaml or .* or tgt_lang$"),
        ({"policy": "wait-3"}, "policy 'wait-3' does not suit this model: use one of wait-k, align-att"),
        ({"number": "two"}, "k of wait-k must be an integer of at least 1, but is 'two'"),
        ({"beam": 0}, "the beam must be an integer of at least 1, but is 0"),
        ({"max_len_b": "x"}, "max_len_a and max_len_b .* must be finite"),
        ({"detector": "vad"}, r"the detector is unknown \('vad'\): use one of energy, silero, boundary"),
        ({"detector": "boundary"}, "this model has no boundary output"),
        ({"pause": 0.01}, "the shortest pause must be at least 0.04 s"),
        ({"device": "gpu"}, "device 'gpu' is not available"),
        ({"model_overrides": "x"}, "--model-overrides is 'x': give a Python dictionary of literals"),
        ({"model_overrides": SimpleNamespace(attn_typ="relu")}, "attn_typ"),
        ({"latency_unit": "word"}, "latency_unit is 'word', with which scorers misread the log: set it to spm"),
        ({"detokenizer_type": "hf"}, "detokenizer_type is 'hf', .*: set it to simuleval"),
        *[
            ({"speech_chunk_size": size}, r"speech_chunk_size is .*: give seconds, at least 0\.01, such as 0\.28")
            for size in (0, -1, float("nan"), float("inf"), 0.00001, "x", [1])
        ],
    ],
)
def test_a_wrong_configuration_is_one_line(save, data: Path, changes: dict, message: str) -> None:
    with pytest.raises(UserError) as raised:
        processor(configuration(data, save(), **changes))
    said = str(raised.value)
    assert said.startswith("error: ") and len(said.splitlines()) == 1
    assert re.search(message, said), said


def test_a_number_needs_a_policy_that_has_one(save, data: Path) -> None:
    with pytest.raises(UserError, match="error: number has no effect under the policy monotonic: remove it"):
        processor(configuration(data, save("--simul-type infinite_lookback"), number=3))


def test_model_overrides_may_be_a_mapping(save, data: Path) -> None:
    for given in ({"attn_type": "relu"}, SimpleNamespace(attn_type="relu"), "{'attn_type': 'relu'}"):
        stream = processor(configuration(data, save(), model_overrides=given))
        mechanism = stream.service.translator.model.decoder.layers[0].self_attn.mechanism
        assert type(mechanism).__name__ == "ReLUAttention"


def test_the_server_translates_and_refuses(save, data: Path, tmp_path: Path) -> None:
    config = SimpleNamespace(**configuration(data, save(), number=2))
    expected = Processor(config).tokens_to_string(feed(processor(vars(config)), STREAM))
    soundfile.write(tmp_path / "a.wav", STREAM, RATE)

    async def stream(uri: str, language: str) -> str:
        async with connect(uri) as socket:
            await socket.send(json.dumps({"sample_rate": RATE, "source_lang": "en", "target_lang": language}))
            for part in np.split(STREAM, range(1_600, len(STREAM), 1_600)):
                await socket.send(part.tobytes())
            await socket.send(json.dumps({"end_of_stream": True}))
            texts = []
            while "end_of_processing" not in (answer := json.loads(await socket.recv())):
                texts.append(answer["new"])
            return "".join(texts)

    async def session() -> list[str]:
        pool = websocket_server.SpeechProcessorPool(config, 2, 5)
        async with serve(websocket_server.connection_handler_factory(pool), "localhost", 0) as server:
            uri = f"ws://localhost:{server.sockets[0].getsockname()[1]}/"
            with pytest.raises(ConnectionClosed):
                await stream(uri, "xx")
            await stream_wav_files(uri, [str(tmp_path / "a.wav")], tgt_lang="de", src_lang="en")
            return await asyncio.gather(*(stream(uri, "de") for _ in range(3)))  # more than the pool has

    assert asyncio.run(session()) == [expected] * 3


def test_a_container_translates_through_the_proxy(save, data: Path) -> None:
    """The evaluation of IWSLT reaches simulstream's HTTP server by its proxy."""
    config = SimpleNamespace(**configuration(data, save(), number=2))
    manager = SpeechProcessorSessionManager(config, size=1, ttl=60)
    handler = partial(HttpSpeechProcessorHandler, speech_processor_manager=manager)
    with ThreadingHTTPServer(("localhost", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        proxied = yaml.safe_load((ROOT / "examples/simulstream/proxy.yaml").read_text(encoding="utf-8"))
        proxy = HttpProxySpeechProcessor(SimpleNamespace(**{**proxied, "port": server.server_port}))
        assert proxy.speech_chunk_size == 0.12
        proxy.set_target_language("de")
        assert feed(proxy, STREAM) == feed(processor(vars(config)), STREAM) != []
        proxy.clear()
        server.shutdown()


@pytest.mark.parametrize("agent", [WaitKAgent, AlignAttAgent, LocalAgreementAgent])
@pytest.mark.parametrize("long_form", [{}, {"long_form": True}], ids=["sentence", "long"])
def test_the_wrapper_of_simuleval_needs_a_model_and_its_data_alone(
    save, data: Path, agent: type[StreamingAgent], long_form: dict
) -> None:
    """simulstream's wrapper builds agents without a parser."""
    given = {"simuleval_agent": f"mla_fairseq.agents.{agent.__name__}", "speech_chunk_size": 0.28, **long_form}
    config = configuration(data, save(), **given, detokenizer_type="simuleval", latency_unit="word")
    found = feed(SimulEvalWrapper(SimpleNamespace(**config)), STREAM)
    parser = ArgumentParser()
    parser.add_argument("--source-segment-size", default=280)
    agent.add_args(parser)
    flags = ["--model-path", config["model_path"], "--data-bin", config["data_bin"]]
    usual = agent(parser.parse_args([*flags, *(["--long-form"] if long_form else [])]))
    parts = np.split(STREAM / 32_768, range(4_480, len(STREAM), 4_480))
    segments = [SpeechSegment(content=part.tolist(), sample_rate=RATE, finished=part is parts[-1]) for part in parts]
    outputs = [usual.pushpop(segment).content for segment in segments]
    assert found == " ".join(filter(None, outputs)).split() != []


def test_an_agent_without_a_parser_needs_a_model_and_its_data(multilingual, joint: Path) -> None:
    with pytest.raises(UserError, match="error: the agent has no data_bin: give --data-bin, or the key in a yaml file"):
        WaitKAgent(SimpleNamespace(model_path="model.pt"))
    given = SimpleNamespace(model_path=str(multilingual()), data_bin=str(joint), tgt_lang="fr")
    agent = WaitKAgent(given)
    assert agent.session_options["options"].tgt_lang == "fr"
    assert not hasattr(given, "beam"), "the caller's arguments are as they were"
