"""Multilingual models: batch decoding, sessions and the parallel pass agree, and the tag of a language is no token."""

import json
import re
import shutil
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from fairseq import tasks

from mla_fairseq.errors import UserError
from mla_fairseq.streaming import (
    AlignAttPolicy,
    EDAttPolicy,
    HoldPolicy,
    IncrementalSession,
    LocalAgreementPolicy,
    MonotonicPolicy,
    OfflineSession,
    OfflineWaitKPolicy,
    SearchOptions,
    Translator,
    WaitKPolicy,
    WholeSourcePolicy,
)
from mla_fairseq.streaming.frontend import FeatureStream
from tests.programs import ROOT, Done, run
from tests.streaming.conftest import SIZES, noise
from tests.streaming.test_agent import LONGEST, attempt, simuleval

MONOTONIC = "--simul-type infinite_lookback_fixed_pre_decision --cross-attn-type relu"
OFFLINE = "--encoder-chunk-size 0"
MODELS = {"softmax": "", "cosformer": "--attn-type cosformer", "gla": "--decoder-attn-type gla", "monotonic": MONOTONIC}
every_model = pytest.mark.parametrize("flags", MODELS.values(), ids=MODELS)
agent_models = pytest.mark.parametrize(
    "flags",
    [
        pytest.param(flags, id=name, marks=[] if name in ("cosformer", "monotonic") else pytest.mark.slow)
        for name, flags in MODELS.items()
    ],
)
SETS = "tst-COMMON_de_st,tst-COMMON_fr_st"


@pytest.fixture(scope="module")
def wavs(joint: Path) -> list[Path]:
    return sorted((joint.parent / "en-de/data/tst-COMMON/wav").glob("*.wav"))


def generate(joint: Path, path: Path, *flags: object, subset: str = SETS) -> Done:
    task = [joint, "--user-dir", "mla_fairseq", "--task", "speech_to_text_mla", "--config-yaml", "config_st.yaml"]
    decode = ["--gen-subset", subset, "--path", path, *LONGEST, "--cpu", "--num-workers", 0]
    return run("fairseq-generate", task, decode, *flags, cwd=ROOT)


def policy_of(flags: str) -> MonotonicPolicy | WaitKPolicy:
    return MonotonicPolicy() if flags == MONOTONIC else WaitKPolicy(2)


@agent_models
def test_the_agent_emits_what_batch_decoding_logs(
    joint: Path, multilingual, wavs: list[Path], tmp_path: Path, flags: str
) -> None:
    log, checkpoint = tmp_path / "batch.log", multilingual(flags)
    wait = flags != MONOTONIC
    rule = ["--simul-waitk-lagging", 2] if wait else []
    done = generate(joint, checkpoint, "--beam", 1, "--prefix-size", 1, "--simul-log", log, rule)
    assert done.code == 0, done.err[-3000:]
    batch = sorted(map(json.loads, log.read_text().splitlines()), key=lambda line: line["index"])
    assert [line["index"] for line in batch] == list(range(2 * len(wavs)))
    agent = ("--agent-class", f"mla_fairseq.agents.{'WaitKAgent' if wait else 'MonotonicAgent'}")
    found = []
    for language in ("de", "fr"):
        more = ["--tgt-lang", language, *(["--waitk-lagging", 2] if wait else [])]
        found += simuleval(tmp_path / language, joint, checkpoint, wavs, *more, agent=agent)
    for line, expected in zip(found, batch, strict=True):
        assert line["prediction"] == expected["prediction"]
        # batch decoding knows the length of a file only from its frames of 10 ms
        assert np.allclose(line["delays"], expected["delays"], rtol=0, atol=10)
    assert [line["prediction"] for line in batch[:5]] != [line["prediction"] for line in batch[5:]]
    assert any(line["delays"] and line["delays"][0] < line["source_length"] - 10 for line in batch)
    assert "lang:" not in log.read_text()


@every_model
@pytest.mark.parametrize("language", ["de", "fr"])
def test_a_session_emits_what_the_parallel_pass_predicts(joint: Path, multilingual, flags: str, language: str) -> None:
    translator = Translator.load(multilingual(flags), joint)
    samples, options = noise(3.0, 3), SearchOptions(tgt_lang=language, max_len_b=30)
    session = IncrementalSession(translator, policy_of(flags), options)
    texts = [emission.text for chunk in np.array_split(samples, 9) for emission in session.push(chunk)]
    text = " ".join(filter(None, texts + [emission.text for emission in session.finish()]))
    again = IncrementalSession(translator, policy_of(flags), options)
    assert text == " ".join(emission.text for emission in again.push(samples, final=True))
    tokens = session.committed
    assert len(tokens) > 2
    if flags == MONOTONIC:
        return  # in expectation, its parallel pass is another
    frames = torch.from_numpy(FeatureStream(translator.normalisation).push(samples, final=True))
    encoded = translator.model.encoder(frames.unsqueeze(0), torch.tensor([len(frames)]))
    encoded["for_decoder"] = {"waitk_lagging": 2}
    dictionary = translator.dictionary
    previous = torch.tensor([[dictionary.eos(), *session.forced, *tokens]])
    scores = translator.model.decoder(previous, encoded)[0][0].detach()
    scores[:, dictionary.pad()] = scores[1, dictionary.eos()] = -torch.inf
    predicted = scores.argmax(-1)[1:].tolist()
    assert predicted[: len(tokens)] == tokens


def test_the_tag_takes_no_step_of_wait_k(joint: Path, multilingual) -> None:
    """It is decoded with the first token, from k steps; each later token reads one step more."""
    translator = Translator.load(multilingual(), joint)
    session, ratio = IncrementalSession(translator, WaitKPolicy(2), SearchOptions(tgt_lang="de")), 3
    seen = {}
    for chunk in np.array_split(noise(3.0, 3), 300):
        session.push(chunk)
        seen.setdefault(session.hypotheses.decoded, session.source.taken)
    assert seen[0] == 0
    assert 1 not in seen  # the tag and the first token come together
    assert {count: states for count, states in seen.items() if count > 1} == {
        count: ratio * (2 + count - 2) for count in seen if count > 1
    }
    assert len(seen) > 3


@pytest.mark.parametrize(
    ("flags", "beam"),
    [
        pytest.param("", 3, id="chunked-3"),
        pytest.param(OFFLINE, 1, id="full-context-1"),
        pytest.param("", 1, id="chunked-1", marks=pytest.mark.slow),
        pytest.param(OFFLINE, 3, id="full-context-3", marks=pytest.mark.slow),
    ],
)
def test_sessions_of_whole_recordings_give_what_fairseq_generate_gives(
    joint: Path, multilingual, wavs: list[Path], beam: int, flags: str
) -> None:
    alone = ["--beam", beam, "--batch-size", 1]  # the limit of a batch is that of its longest recording
    done = generate(joint, multilingual(flags), *alone, "--prefix-size", 1, subset="tst-COMMON_fr_st")
    assert done.code == 0, done.err[-3000:]
    forced = generate(joint, multilingual(flags), *alone, "--tgt-lang", "fr", subset="tst-COMMON_de_st")
    assert forced.hypotheses() == done.hypotheses()  # the same audio
    translator = Translator.load(multilingual(flags), joint)
    options = SearchOptions(beam, max_len_a=0.05, max_len_b=5, tgt_lang="fr")
    kinds = [(OfflineSession, HoldPolicy(1))] + [(IncrementalSession, WholeSourcePolicy())] * (flags == "")
    texts = {int(line[2:].split("\t")[0]): line.split("\t")[2] for line in done.lines("D-")}
    assert len(set(texts.values())) > 2
    for session_class, policy in kinds:
        for index, wav in enumerate(wavs):
            samples, _ = soundfile.read(wav, dtype="int16")
            session = session_class(translator, policy, options)
            found = " ".join(emission.text for emission in session.push(samples, final=True))
            assert found == texts[index]


@pytest.mark.parametrize("beam", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_offline_policies_decode_after_the_tag(joint: Path, multilingual, beam: int) -> None:
    """The tag is the first input of every re-decoding; it is neither committed nor emitted, and it matters."""
    translator, differ, early = Translator.load(multilingual(OFFLINE), joint), 0, 0
    samples = np.array_split(noise(3.0, 3), 8)
    for policy in AlignAttPolicy(2), EDAttPolicy(0.5), LocalAgreementPolicy(), HoldPolicy(2), OfflineWaitKPolicy(2, 3):
        found = []
        for language in ("de", "fr"):
            session = OfflineSession(translator, policy, SearchOptions(beam, max_len_b=12, tgt_lang=language))
            first = [emission.text for chunk in samples for emission in session.push(chunk)]
            text = " ".join(first + [emission.text for emission in session.finish()])
            assert "<lang" not in text
            assert not {4, 5} & set(session.committed)
            assert session.forced == [{"de": 4, "fr": 5}[language]]
            early += len(first)
            found.append(session.committed)
        differ += found[0] != found[1]
    assert differ > 1
    assert early > 1


def test_no_translation_is_empty_and_the_limit_does_not_count_the_tag(joint: Path, multilingual) -> None:
    """fairseq's limits count the prefix: without a correction a translation may end right after the tag."""
    state = torch.load(multilingual(), weights_only=False)
    state["model"]["decoder.output_projection.weight"][2] = 0
    state["model"]["decoder.layer_norm.bias"][:] = 0
    path = multilingual().with_name("short.pt")
    torch.save(state, path)
    counts = []
    for flags in ([], ["--simul-waitk-lagging", 2]):
        longest = ["--max-len-a", 0, "--max-len-b", 1]
        done = generate(joint, path, "--beam", 1, "--prefix-size", 1, *longest, *flags)
        assert done.code == 0, done.err[-3000:]
        counts += [len(line.split("\t")[2].split()) for line in done.lines("H-")]
    assert set(counts) == {1}
    session = IncrementalSession(Translator.load(path, joint), WaitKPolicy(2), SearchOptions(1, 1.0, 0, 1, "de"))
    session.push(noise(3.0, 3), final=True)
    assert len(session.committed) == 1


@pytest.mark.parametrize(
    ("language", "message"),
    [
        (None, "this model translates into several languages (de, fr): choose one by tgt_lang (--tgt-lang)"),
        ("it", "'it' is no target language of this model: use one of de, fr"),
    ],
)
def test_sessions_need_a_language_of_the_model(joint: Path, multilingual, language: str | None, message: str) -> None:
    translator, options = Translator.load(multilingual(OFFLINE), joint), SearchOptions(tgt_lang=language)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        OfflineSession(translator, HoldPolicy(2), options)
    streaming = Translator.load(multilingual(), joint)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        IncrementalSession(streaming, WaitKPolicy(2), options)


def test_a_model_of_one_language_takes_none(translator) -> None:
    with pytest.raises(ValueError, match=r"^tgt_lang \(--tgt-lang\) is de, but this model has no target-language tags"):
        IncrementalSession(translator(), WaitKPolicy(2), SearchOptions(tgt_lang="de"))


def test_agents_need_a_language(joint: Path, multilingual, wavs: list[Path], tmp_path: Path) -> None:
    for flags, message in (([], "several languages (de, fr)"), (["--tgt-lang", "it"], "use one of de, fr")):
        done = attempt(tmp_path, joint, multilingual(), wavs, *flags)
        assert done.code == 1
        assert message in done.last_line


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "choose one by --tgt-lang, or decode each row into its language by --prefix-size 1"),
        (["--prefix-size", 2, "--simul-waitk-lagging", 2, "--beam", 1], "choose one by --tgt-lang, or decode each row"),
        (["--tgt-lang", "fr", "--prefix-size", 1], "--prefix-size 1 and --tgt-lang fr both choose the target language"),
        (["--tgt-lang", "it"], "'it' is no target language of this model: use one of de, fr"),
    ],
)
def test_batch_decoding_needs_a_language(joint: Path, multilingual, flags: list, message: str) -> None:
    done = generate(joint, multilingual(), *flags)
    assert done.code == 1
    assert message in done.last_line


def test_references_are_scored_after_their_tags(joint: Path, multilingual) -> None:
    """The tag of a row is given: it is neither printed nor counted, whatever the model thinks of it."""
    path, score = multilingual(OFFLINE), ["--score-reference"]
    plain = generate(joint, path, score, subset="tst-COMMON_de_st")
    for flags in (["--prefix-size", 1], ["--tgt-lang", "de"]):
        assert generate(joint, path, score, flags, subset="tst-COMMON_de_st").hypotheses() == plain.hypotheses()
    assert plain.code == 0 and "<lang" not in plain.out, plain.err
    for (name, mean, text), line in zip(plain.hypotheses(), sorted(plain.lines("P-")), strict=True):
        scores = [float(bits) for bits in line.split("\t")[1].split()]
        assert name[1:] == line.split("\t")[0][1:] and len(scores) == len(text.split()) + 1  # and the end of sentence
        assert mean == pytest.approx(sum(scores) / len(scores), abs=1e-3)
    wrong = generate(joint, path, score, "--tgt-lang", "fr", subset="tst-COMMON_de_st")
    assert wrong.code == 1
    assert re.search(r"--tgt-lang is fr, but .*tst-COMMON_de_st.tsv has references in de", wrong.last_line)


def test_data_without_tags_are_refused_for_a_model_with_tags(joint: Path, multilingual, data: Path, save) -> None:
    config = (joint / "config_st.yaml").read_text()
    plain = joint / "plain.yaml"
    plain.write_text(config.replace("prepend_tgt_lang_tag: true\n", ""))
    with pytest.raises(ValueError, match=r"trained with target-language tags, but the data configuration lacks"):
        Translator.load(multilingual(), joint, plain.name)
    for path in data.glob("spm*"):
        shutil.copy(path, joint)  # a vocabulary of the size that the other model has
    tagged = (data / "config_st.yaml").read_text() + "prepend_tgt_lang_tag: true\n"
    (joint / "tagged.yaml").write_text(tagged)
    with pytest.raises(ValueError, match=r"has no tag such as <lang:de>, but tagged.yaml has prepend_tgt_lang_tag"):
        Translator.load(save(), joint, "tagged.yaml")
    state = torch.load(multilingual(), weights_only=False)
    state["cfg"]["model"].prepend_tgt_lang_tag = False
    path = multilingual().with_name("untagged.pt")
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"trained without target-language tags, but the data configuration has"):
        Translator.load(path, joint)
    del state["cfg"]["model"].prepend_tgt_lang_tag  # as in a checkpoint of fairseq
    torch.save(state, path)
    assert Translator.load(path, joint).forced("fr") == [5]


def test_other_places_of_tags_are_refused(joint: Path) -> None:
    text = (joint / "config_st.yaml").read_text().replace("prepend_tgt_lang_tag", "prepend_bos_and_append_tgt_lang_tag")
    (joint / "appended.yaml").write_text(text)
    with pytest.raises(UserError, match=r"prepend_bos_and_append_tgt_lang_tag in appended\.yaml is not supported"):
        tasks.setup_task(Namespace(task="speech_to_text_mla", data=str(joint), config_yaml="appended.yaml"))


def test_rows_of_an_unknown_language_are_refused(joint: Path) -> None:
    text = (joint / "tst-COMMON_de_st.tsv").read_text()
    (joint / "tst-COMMON_it_st.tsv").write_text(text.replace("\tde\n", "\tit\n", 1))
    task = tasks.setup_task(Namespace(task="speech_to_text_mla", data=str(joint), config_yaml="config_st.yaml"))
    with pytest.raises(UserError, match=r"tst-COMMON_it_st\.tsv has rows in the language 'it', but .* tags of de, fr"):
        task.load_dataset("tst-COMMON_it_st")


def test_audio_files_are_translated_into_the_language(
    joint: Path, multilingual, wavs: list[Path], tmp_path: Path
) -> None:
    path, limit = multilingual(OFFLINE), ["--max-len-a", 0, "--max-len-b", 12]
    (tmp_path / "names").write_text("".join(f"{wav}\n" for wav in wavs), encoding="utf-8")
    task = [joint, "--task", "speech_to_text_mla", "--config-yaml", "config_st.yaml", "--cpu", "--path", path]
    found = []
    for language in ("de", "fr"):
        flags = ["--tgt-lang", language, *limit]
        done = generate(joint, path, "--beam", 5, *flags, subset=f"tst-COMMON_{language}_st")
        lines = {line.split("\t")[0]: line.split("\t")[2] for line in done.lines("D-")}
        expected = [lines[f"D-{index}"] for index in range(len(wavs))]
        files = run("mla-translate", path, "--data", joint, "--max-seconds", 11, *flags, wavs)
        assert [line.split("\t")[1] for line in files.out.splitlines()] == expected
        piped = run("fairseq-interactive", task, "--input", tmp_path / "names", *flags, "--beam", 5)
        assert [line.split("\t")[2] for line in piped.lines("D-")] == expected
        found.append(expected)
    assert found[0] != found[1]


def test_audio_files_need_a_language(joint: Path, multilingual, wavs: list[Path]) -> None:
    for flags, message in (([], "choose one by --tgt-lang"), (["--tgt-lang", "es"], "use one of de, fr")):
        done = run("mla-translate", multilingual(OFFLINE), "--data", joint, flags, wavs[:1])
        assert done.code == 1 and message in done.last_line and not done.out


TRAINED = {
    "wait-k": "--criterion label_smoothed_cross_entropy --attn-type cosformer --waitk-lagging 1-3",
    "latency": "--criterion latency_augmented_label_smoothed_cross_entropy_mla --latency-avg-weight 0.1 "
    "--latency-var-weight 0.1 --simul-type infinite_lookback_fixed_pre_decision",
    "length": "--criterion label_smoothed_cross_entropy_mla --arch s2t_transformer_mla --attn-type cosformer "
    "--encoder-chunk-size 0 --length-predictor --target-length predicted",
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "wait-k" else pytest.mark.slow) for name in TRAINED]
)
def test_a_joint_training_decodes(joint: Path, tmp_path: Path, name: str) -> None:
    """Each criterion trains on both languages, with resampled sets, and the model decodes into each."""
    (joint / "sampled.yaml").write_text((joint / "config_st.yaml").read_text() + "sampling_alpha: 0.5\n")
    task = [joint, "--user-dir", "mla_fairseq", "--task", "speech_to_text_mla", "--config-yaml", "sampled.yaml"]
    sets = ["--train-subset", "train_de_st,train_fr_st", "--valid-subset", "tst-COMMON_de_st,tst-COMMON_fr_st"]
    flags = SIZES.split() if name != "length" else SIZES.partition(" --fixed")[0].split()
    model = ["--arch", "s2t_transformer_simul_mla", *flags, *TRAINED[name].split()]
    training = "--max-update 4 --max-tokens 400 --lr 1e-3 --optimizer adam --cpu --num-workers 0 --no-epoch-checkpoints"
    save = ["--ignore-prefix-size", 1, "--save-dir", tmp_path]
    done = run("fairseq-train", task, sets, model, *training.split(), save, cwd=ROOT)
    assert done.code == 0, done.err[-3000:]
    path = tmp_path / "checkpoint_last.pt"
    simul = {"wait-k": ["--simul-waitk-lagging", 2], "latency": ["--simul-log", tmp_path / "log"], "length": []}[name]
    done = generate(joint, path, "--prefix-size", 1, "--scoring", "sacrebleu", "--beam", 1, *simul)
    assert done.code == 0, done.err[-3000:]
    assert len(done.hypotheses()) == 10
    done = generate(joint, path, "--tgt-lang", "fr", "--beam", 3)
    assert done.code == 0, done.err[-3000:]


def test_interactive_decoding_needs_one_language(joint: Path, multilingual) -> None:
    """fairseq ignores --prefix-size there."""
    task = [joint, "--user-dir", "mla_fairseq", "--task", "speech_to_text_mla", "--config-yaml", "config_st.yaml"]
    wav = joint.parent / "names"
    wav.write_text(f"{joint.parent / 'en-de/data/tst-COMMON/wav/tst-COMMON0.wav'}\n")
    for flags in ([], ["--prefix-size", 1]):
        done = run("fairseq-interactive", task, "--path", multilingual(), "--cpu", "--input", wav, flags, cwd=ROOT)
        assert done.code == 1
        assert done.last_line.endswith("translates into several languages (de, fr): choose one by --tgt-lang")
