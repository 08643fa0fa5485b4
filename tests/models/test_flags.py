"""Flags of fairseq's commands: they have their effect, or end with one line."""

import csv
import re
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from fairseq import options

from mla_fairseq.errors import UserError
from mla_fairseq.tasks.flags import DECODE, EVERYWHERE, INTERACTIVE, SIMULTANEOUS, SPEECH, TRAIN, VALIDATE, check_flags
from tests.models.conftest import SIZES, TRAINING
from tests.programs import ROOT, Done, run

WAIT_K = "--waitk-lagging 1-3 --fixed-pre-decision-ratio 2 --max-update 16"
DROPOUT = "--dropout 0.3 --attention-dropout 0.3 --activation-dropout 0.3 --max-update 16"
PARSERS = {
    "train": options.get_training_parser,
    "generate": options.get_generation_parser,
    "interactive": options.get_interactive_generation_parser,
    "validate": options.get_validation_parser,
}


@pytest.fixture(scope="module")
def softmax(train) -> Path:
    return train(DROPOUT)


@pytest.fixture(scope="module")
def wait_k(train) -> Path:
    return train(WAIT_K, arch="s2t_transformer_simul_mla")


def parse(program: str, flags: str) -> Namespace:
    """Return the flags of a command as fairseq parses them."""
    model = ["--arch", "s2t_transformer_mla"] if program == "train" else ["--path", "x.pt"]
    batch = ["--batch-size", "1"] if program == "validate" else []
    command = ["data", "--task", "speech_to_text_mla", *model, *batch, *flags.split()]
    return options.parse_args_and_arch(PARSERS[program](), command)


@pytest.mark.parametrize("program", PARSERS)
def test_defaults_are_accepted(program: str) -> None:
    check_flags(parse(program, ""), from_checkpoint=program == "validate")
    check_flags(parse(program, "--simul-segment-size 280"), from_checkpoint=program == "validate")


@pytest.mark.parametrize(
    ("program", "flags", "message"),
    [
        ("train", "--bpe sentencepiece", "--bpe is not supported in training (sentencepiece): remove it, the data"),
        ("train", "--dataset-impl raw", "--dataset-impl is not supported in training (raw): remove it"),
        ("train", "--required-seq-len-multiple 8", "--required-seq-len-multiple is not supported in training (8)"),
        ("train", "--combine-valid-subsets", "--combine-valid-subsets is not supported in training: list the sets"),
        ("train", "--num-shards 2", "--num-shards is not supported in training (2): remove it"),
        ("train", "--tgt-lang de", "--tgt-lang is not supported in training (de): remove it, each row has its lang"),
        (
            "train",
            "--simul-waitk-lagging 3",
            "--simul-waitk-lagging is not supported in training (3): give it to fairseq",
        ),
        ("train", "--simul-log x", "--simul-log is not supported in training (x): give it to fairseq-generate"),
        ("train", "--simul-segment-size 40", "--simul-segment-size is not supported in training (40.0): give it to f"),
        ("train", "--bf16", "--bf16 is not supported in training: use --fp16"),
        ("train", "--cpu --fp16", "--fp16 needs a GPU in training: remove it, or use --memory-efficient-fp16"),
        ("train", "--multitask-config-yaml x", "--multitask-config-yaml is not supported in training (x): remove it"),
        ("train", "--use-plasma-view", "--use-plasma-view is not supported in training: remove it"),
        ("train", "--checkpoint-suffix=-x", "--checkpoint-suffix is not supported in training (-x): remove it"),
        ("generate", "--checkpoint-suffix=-x", "--checkpoint-suffix is not supported in decoding (-x): remove it"),
        ("generate", "--sacrebleu", "--sacrebleu is not supported in decoding: use --scoring sacrebleu"),
        ("generate", "--no-early-stop", "--no-early-stop is not supported in decoding: remove it"),
        (
            "generate",
            "--match-source-len",
            "--match-source-len is not supported in decoding: limit the length by --max",
        ),
        ("generate", "--constraints", "--constraints is not supported in decoding (ordered): remove it"),
        ("generate", "--print-step", "--print-step is not supported in decoding: remove it"),
        ("generate", "--retain-iter-history", "--retain-iter-history is not supported in decoding: remove it"),
        ("generate", "--iter-decode-max-iter 3", "--iter-decode-max-iter is not supported in decoding (3): remove it"),
        ("generate", "--iter-decode-with-beam 2", "--iter-decode-with-beam is not supported in decoding (2): remove"),
        ("generate", "--decoding-format unigram", "--decoding-format is not supported in decoding (unigram): remove"),
        ("generate", "--post-process letter", "--post-process is not supported in decoding (letter): remove it"),
        ("generate", "--bf16", "--bf16 is not supported in decoding: use --fp16"),
        ("generate", "--beam-mt 2", "--beam-mt is not supported in decoding (2): remove it"),
        ("generate", "--nbest 6", "--nbest is above --beam (6 > 5): increase --beam"),
        ("generate", "--diverse-beam-groups 2", "--beam is not a multiple of --diverse-beam-groups (5, 2): change one"),
        ("generate", "--min-len 9 --max-len-b 8", "--min-len is above --max-len-b (9 > 8): decrease it"),
        ("generate", "--lm-path x", "--lm-path x has no effect alone: give --lm-path and --lm-weight, or remove it"),
        ("generate", "--lm-weight 0.1", "--lm-weight 0.1 has no effect alone: give --lm-path and --lm-weight"),
        ("generate", "--lm-path x --lm-weight 1 --score-reference", "--score-reference uses no language model (--lm-p"),
        (
            "generate",
            "--simul-segment-size 40",
            "--simul-segment-size is not supported in decoding without a log (40.0",
        ),
        ("interactive", "--lm-path x --lm-weight 1", "--lm-path is not supported in fairseq-interactive (x): use fair"),
        ("interactive", "--simul-segment-size 40", "--simul-segment-size is not supported in fairseq-interactive (40"),
        ("generate", "--retain-dropout-modules x", "--retain-dropout-modules has no effect without --retain-dropout"),
        ("generate", "--scoring wer", "--scoring wer needs the package editdistance: pip install editdistance"),
        ("generate", "--score-reference --simul-log x", "--score-reference decodes nothing to log (--simul-log x)"),
        (
            "interactive",
            "--score-reference",
            "--score-reference is not supported in fairseq-interactive: use fairseq-g",
        ),
        ("interactive", "--scoring chrf", "--scoring is not supported in fairseq-interactive (chrf): use fairseq-gen"),
        ("interactive", "--results-path x", "--results-path is not supported in fairseq-interactive (x): redirect"),
        ("interactive", "--quiet", "--quiet is not supported in fairseq-interactive: remove it"),
        ("interactive", "--num-shards 2", "--num-shards is not supported in fairseq-interactive (2): divide the input"),
        ("interactive", "--print-alignment soft", "--print-alignment soft is not supported in fairseq-interactive"),
        ("interactive", "--input /dev/zero", "--input /dev/zero is not a regular file: name a file"),
        ("interactive", "--match-source-len", "--match-source-len is not supported in decoding: limit the length"),
    ],
)
def test_flags_without_effect_are_refused(
    program: str, flags: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mla_fairseq.tasks.flags.find_spec", lambda name: None if name == "editdistance" else name)
    with pytest.raises(UserError, match=f"^error: {re.escape(message)}"):
        check_flags(parse(program, flags))


@pytest.mark.parametrize(
    ("program", "flags", "message"),
    [
        ("train", "--seed -1", "--seed is -1: give a number from 0 to"),
        ("generate", "--seed 4294967296", "--seed is 4294967296: give a number from 0 to"),
        ("train", "--num-workers -1", "--num-workers is -1: give a number from 0 to"),
        ("train", "--max-tokens 0", "--max-tokens is 0: give a number from 1 to"),
        ("train", "--update-freq 2,0", "--update-freq is 0: give a number from 1 to"),
        ("train", "--log-interval 0", "--log-interval is 0: give a number from 1 to"),
        ("train", "--clip-norm nan", "--clip-norm is nan: give a number from 0 to"),
        ("train", "--dropout 2", "--dropout is 2.0: give a number from 0 to 1"),
        ("train", "--encoder-layers 0", "--encoder-layers is 0: give a number from 1 to 100"),
        *(("train", f"--criterion label_smoothed_cross_entropy --label-smoothing={number}",
           f"--label-smoothing is {number}: give a number from 0 to 1") for number in ("2.0", "-1.0", "nan")),
        ("train", "--save-dir a/${y}", "--save-dir is a/${y}, in which fairseq would replace ${...}: give another na"),
        *(("train", f"--optimizer adam --adam-betas {betas}", f"--adam-betas is {betas}: give two numbers of at least")
          for betas in ("(1,2)", "0.9", "(0.9,", "os")),
        ("train", "--lr-scheduler polynomial_decay", "--lr-scheduler polynomial_decay has no end: add --total-num-upd"),
        ("train", "--ddp-backend fully_sharded", "--ddp-backend fully_sharded needs the package fairscale: use legacy"),
        ("train", "--finetune-from-model a.pt --restore-file b.pt", "--finetune-from-model and --restore-file both na"),
        ("train", "--arch transformer", "--arch is not a model of this task, use another: argument --max-source-posit"),
        *((program, f"--criterion {name}", f"--criterion {name} is not supported in --task speech_to_text_mla: use o")
          for program in ("train", "validate") for name in ("ctc", "tacotron2_mla", "wav2vec")),
        ("generate", "--beam 0", "--beam is 0: give a number from 1 to"),
        ("generate", "--nbest 0", "--nbest is 0: give a number from 1 to"),
        ("generate", "--lenpen nan", "--lenpen is nan: give a number from"),
        ("interactive", "--unkpen inf", "--unkpen is inf: give a number from"),
        ("generate", "--sampling --sampling-topp 2", "--sampling-topp is 2.0: give a number from -1 to 1"),
        ("generate", "--sampling", "--sampling needs --nbest equal to --beam (1, 5): change one of them"),
        ("generate", "--no-repeat-ngram-size -2", "--no-repeat-ngram-size is -2: give a number from 0 to"),
        ("generate", "--num-shards 3 --shard-id 3", "--shard-id is 3, but --num-shards is 3: give a number from"),
        ("validate", "--path a:b", "--path names several models (a:b): validate them one by one"),
        ("generate", "--lm-path x --lm-weight nan", "--lm-weight is nan: give a number from"),
        ("interactive", "--batch-size 3", "--batch-size is above --buffer-size (3 > 1): increase --buffer-size"),
        *((program, f"--model-overrides {text}", f"--model-overrides is {text!r}: give a Python dictionary of literals")
          for program in ("generate", "interactive", "validate") for text in ("{'a':b}", "{", "__import__('os')")),
        *((program, "--model-overrides [1]", "--model-overrides is [1]: give a Python dictionary")
          for program in ("generate", "interactive", "validate")),
        ("validate", "--model-overrides=", "--model-overrides is '': give a Python dictionary of literals"),
        ("validate", "--simul-waitk-lagging 3", "--simul-waitk-lagging is not supported in fairseq-validate (3): give"),
        ("validate", "--simul-log x", "--simul-log is not supported in fairseq-validate (x): give it to fairseq-gener"),
        ("validate", "--simul-segment-size 40", "--simul-segment-size is not supported in fairseq-validate (40.0)"),
    ],
)  # fmt: skip
def test_wrong_values_are_refused_when_they_are_parsed(program: str, flags: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^error: {re.escape(message)}"):
        parse(program, flags)


@pytest.mark.parametrize("program", ["generate", "interactive", "validate"])
def test_a_command_needs_a_model(program: str) -> None:
    command = ["data", "--task", "speech_to_text_mla", "--batch-size", "1"]
    with pytest.raises(UserError, match=r"^error: the model is missing: add --path CHECKPOINT"):
        options.parse_args_and_arch(PARSERS[program](), command)


@pytest.mark.parametrize(
    ("program", "flags"),
    [
        ("train", "--optimizer adam --adam-betas (0.9,0.98)"),
        ("train", "--optimizer adam --adam-betas 0.9,0.98"),
        ("train", "--lr-scheduler polynomial_decay --total-num-update 9"),
        ("train", "--update-freq 2,1"),
        ("train", "--criterion label_smoothed_cross_entropy_with_ctc"),
        ("train", "--task text_to_speech_mla --arch tts_transformer_mla --criterion tacotron2_mla"),
        ("validate", "--task text_to_speech_mla"),
        ("validate", "--criterion label_smoothed_cross_entropy_mla"),
    ],
)
def test_usual_values_are_accepted_when_they_are_parsed(program: str, flags: str) -> None:
    parse(program, flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("", "the size of batches is missing: add --max-tokens or --batch-size"),
        ("--batch-size 2 --tgt-lang de", "--tgt-lang is not supported in fairseq-validate (de): remove it"),
    ],
)
def test_validation_refuses_flags_in_one_line(softmax, corpus: Path, flags: str, message: str) -> None:
    command = [corpus, "--task", "speech_to_text_mla", "--path", softmax, "--valid-subset", "dev", "--cpu"]
    done = run("fairseq-validate", command, flags.split())
    assert (done.code, done.last_line.startswith(f"error: {message}")) == (1, True), done.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--max-tokens 5", "every utterance is too long (utterance "),
        ("--max-tokens 5 --required-batch-size-multiple 8", "every utterance is too long (utterance "),
        ("--required-batch-size-multiple 32 --batch-size 32", "the set has fewer utterances than --required-batch-siz"),
    ],
)
def test_a_training_without_a_batch_is_refused(corpus: Path, tmp_path: Path, flags: str, message: str) -> None:
    command = [corpus, "--task", "speech_to_text_mla", "--arch", "s2t_transformer_mla", *SIZES, *TRAINING]
    done = run("fairseq-train", command, "--save-dir", tmp_path, flags.split())
    assert (done.code, done.last_line.startswith(f"error: {message}")) == (1, True), done.err


def test_every_flag_is_on_the_page() -> None:
    page = (ROOT / "docs/reference/fairseq_flags.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"`(--[\w-]+)[^`\n]*`", page))
    parsers = [make() for make in (*PARSERS.values(), options.get_validation_parser)]
    actions = [action for parser in parsers for action in parser._actions if action.dest != "help"]
    missing = {action.dest for action in actions if action.option_strings and not shown & set(action.option_strings)}
    assert not missing
    refused = {
        f"--{name.replace('_', '-')}"
        for table in (EVERYWHERE, TRAIN, DECODE, INTERACTIVE, VALIDATE, SPEECH)
        for name in table
    }
    assert refused <= shown
    known = {option for action in actions for option in action.option_strings}
    ours = {
        "--tgt-lang",
        *(f"--{name.replace('_', '-')}" for name in SIMULTANEOUS),
        "--multitask-config-yaml",
        "--vocoder",
        "--spec-bwd-max-iter",
        "--eval-tb-nsample",
    }
    assert refused - known == ours, "flags of the tasks"


OPTIONS = (
    {"max_len_b": 3}, {"max_len_a": 0.05, "max_len_b": 0}, {"lenpen": 3.0}, {"unnormalized": True},
    {"unkpen": -50.0}, {"temperature": 3.0}, {"sampling": True}, {"sampling": True, "sampling_topk": 1},
    {"sampling": True, "sampling_topp": 0.1}, {"diverse_beam_groups": 5}, {"diversity_rate": 2.0},
    {"no_repeat_ngram_size": 1},
)  # fmt: skip


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: "-".join(option))
def test_each_option_of_the_search_changes_what_is_found(build, option: dict[str, float]) -> None:
    built = build(flags="--task speech_to_text_mla --attn-type relu", seed=2)
    batch = built.batch(split="dev")
    built.task.args.simul_segment_size, models = 280, [built.model.eval()]

    def search(**options: float) -> list[tuple[list[int], float]]:
        torch.manual_seed(5)
        generator = built.task.build_generator(models, Namespace(**{"beam": 5, "max_len_b": 9} | options))
        found = built.task.inference_step(generator, models, batch)
        return [(one["tokens"].tolist(), float(one["score"])) for hypotheses in found for one in hypotheses]

    assert search(**option) == search(**option) != search()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--print-step", "--print-step is not supported in decoding: remove it, these models do not refine"),
        ("--retain-dropout --retain-dropout-modules Conv1d", "--retain-dropout-modules names no module with dropout"),
        ("--eos-token nope", "--eos-token is not in the vocabulary (nope): give one of its symbols"),
        ("--sampling --nbest 5 --sampling-topk 99", "--sampling-topk is 99, but the vocabulary has 32 symbols: decre"),
        ("--temperature 0", "--temperature must be greater than 0"),
        ("--num-shards 7 --shard-id 6", "--num-shards is above the number of batches (7 > 1): decrease it"),
        ("--max-tokens 20", "increase --max-tokens or --max-tokens-valid: Sentences lengths should not exceed"),
        ("--max-source-positions 20", "utterance 4 is too long (source and target: (62, 7), at most (20, 1024)): incr"),
    ],
)
def test_a_flag_that_is_refused_ends_the_command_with_one_line(softmax, generate, flags: str, message: str) -> None:
    done = generate(softmax, flags.split())
    assert done.code == 1
    assert done.last_line.startswith(f"error: {message}")


def scores(done: Done) -> list[float]:
    assert done.code == 0, done.err
    return [score for _, score, _ in done.hypotheses()]


def test_dropout_is_retained(softmax, generate) -> None:
    flags = ("", "--retain-dropout", "--retain-dropout --seed 2", "--retain-dropout --retain-dropout-modules {}")
    plain, first, second, attention = (
        generate(softmax, flag.format("MultiheadAttention,DecoderLayer").split()).hypotheses() for flag in flags
    )
    found = [plain, first, second, attention, generate(softmax, flags[3].format("SpeechEncoder").split()).hypotheses()]
    assert all(one and one != other for i, one in enumerate(found) for other in found[:i])
    assert generate(softmax, flags[1].split()).hypotheses() == first


def test_too_long_utterances_are_left_out(softmax, generate) -> None:
    done = generate(softmax, ["--max-source-positions", 20, "--skip-invalid-size-inputs-valid-test"])
    assert len(scores(done)) == 1
    assert "5 samples have invalid sizes and will be skipped" in done.out


def test_shards_are_the_parts_of_a_set(softmax, generate) -> None:
    whole = generate(softmax, ["--batch-size", 2]).hypotheses()
    shards = [generate(softmax, ["--batch-size", 2, "--num-shards", 2, "--shard-id", i]).hypotheses() for i in (0, 1)]
    assert all(shards)
    for one, other in zip(sorted(shards[0] + shards[1]), whole, strict=True):
        assert (one[0], one[2]) == (other[0], other[2]) and one[1] == pytest.approx(other[1])


@pytest.mark.slow
def test_half_precision_decodes_as_full_precision(softmax, wait_k, generate) -> None:
    for path, flags in ((softmax, []), (wait_k, ["--beam", 1, "--simul-waitk-lagging", 1])):
        full, half = (generate(path, flags, *more) for more in ([], ["--fp16"]))
        assert scores(half) == pytest.approx(scores(full), rel=1e-2)
        assert scores(half) != scores(full)


@pytest.mark.slow
def test_the_search_flags_have_their_effect(softmax, generate) -> None:
    best = generate(softmax, ["--min-len", 6])
    assert len(generate(softmax, ["--nbest", 3]).hypotheses()) == 3 * 6
    blocked = generate(softmax, ["--min-len", 6, "--no-repeat-ngram-size", 1]).hypotheses()
    assert all(len(set(text.split())) == len(text.split()) for _, _, text in blocked)
    assert any(len(set(text.split())) < len(text.split()) for _, _, text in best.hypotheses())
    first, second = (scores(generate(softmax, ["--sampling", "--nbest", 5, "--seed", seed])) for seed in (1, 2))
    assert first != second
    groups = [
        generate(softmax, ["--min-len", 6, "--nbest", 5, *more])
        for more in ([], ["--diverse-beam-groups", 5, "--diverse-beam-strength", 9])
    ]
    starts = [len({text.split()[0] for name, _, text in done.hypotheses() if name == "H-0"}) for done in groups]
    assert starts[0] < starts[1] == 5


@pytest.mark.slow
def test_results_go_to_a_folder(softmax, generate, tmp_path: Path) -> None:
    done = generate(softmax, ["--results-path", tmp_path])
    assert not done.lines("H-")
    assert len(re.findall(r"^H-", (tmp_path / "generate-dev.txt").read_text(), re.MULTILINE)) == 6


def score_references(path: Path, generate, *flags: object) -> float:
    """Return the negative log-likelihood of the dev set in bits."""
    done = generate(path, ["--score-reference"], *flags)
    assert done.code == 0, done.err
    return -sum(float(bits) for line in done.lines("P-") for bits in line.split("\t")[1].split())


@pytest.mark.slow
def test_references_have_the_scores_of_validation(softmax, wait_k, generate, corpus: Path) -> None:
    """The scores are printed with 4 digits, the loss with 3."""
    for path, flags in ((softmax, []), (wait_k, ["--beam", 1, "--simul-waitk-lagging", 2])):  # 2: the middle of 1-3
        command = [corpus, "--task", "speech_to_text_mla", "--path", path, "--valid-subset", "dev"]
        done = run("fairseq-validate", command, "--batch-size", 6, "--num-workers", 0, "--cpu")
        assert done.code == 0, done.err
        (found,) = re.findall(r"nll_loss ([\d.]+) .* wpb ([\d.]+)", done.out + done.err)
        loss, tokens = map(float, found)
        assert score_references(path, generate, flags) == pytest.approx(loss * tokens, rel=1e-3)
    half = run("fairseq-validate", command, "--batch-size", 2, "--cpu", "--fp16", "--num-shards", 3, "--shard-id", 1)
    (found,) = re.findall(r"nll_loss ([\d.]+) .* wpb ([\d.]+)", half.out + half.err)
    assert float(found[0]) < 2 * loss and float(found[1]) < tokens
    whole, one = (
        score_references(wait_k, generate, ["--beam", 1, *more]) for more in ([], ["--simul-waitk-lagging", 1])
    )
    assert abs(whole - one) > 0.1


def rows(corpus: Path) -> list[dict[str, str]]:
    """Return the rows of the dev set's manifest."""
    with (corpus / "dev.tsv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def interactive(path: Path, corpus: Path, folder: Path, *flags: object) -> Done:
    """Return the output of ``fairseq-interactive --beam 5`` for the features of the dev set."""
    (folder / "names").write_text("".join(f"{corpus}/{row['audio']}\n" for row in rows(corpus)))
    command = [corpus, "--task", "speech_to_text_mla", "--path", path, "--beam", 5, "--max-len-b", 15, "--cpu"]
    return run("fairseq-interactive", command, "--input", folder / "names", *flags)


@pytest.mark.slow
def test_interactive_translates_as_generate(softmax, wait_k, generate, corpus: Path, tmp_path: Path) -> None:
    decodings = (
        (softmax, ["--nbest", 2, "--print-alignment", "hard"]),
        (wait_k, ["--buffer-size", 3, "--batch-size", 3]),
        (wait_k, ["--beam", 1, "--simul-waitk-lagging", 1]),
    )
    for path, flags in decodings:
        expected = generate(path, [flag for flag in flags if flag not in ("--buffer-size", "--batch-size", 3)])
        done = interactive(path, corpus, tmp_path, flags)
        assert done.code == 0, done.err
        assert [text for _, _, text in done.hypotheses()] == [text for _, _, text in expected.hypotheses()]
        assert scores(done) == pytest.approx(scores(expected), rel=1e-4)
        assert sorted(done.lines("A-")) == sorted(expected.lines("A-"))


def test_interactive_has_no_prefixes(softmax, corpus: Path, tmp_path: Path) -> None:
    done = interactive(softmax, corpus, tmp_path, "--prefix-size", 1)
    assert done.code == 1
    assert done.last_line == "error: --prefix-size is not supported in fairseq-interactive (1): use fairseq-generate"


def test_interactive_reports_too_small_batches(softmax, corpus: Path, tmp_path: Path) -> None:
    done = interactive(softmax, corpus, tmp_path, "--max-tokens", 5)
    assert done.code == 1
    assert done.last_line.startswith("error: increase --max-tokens")


def test_fairseq_score_gives_the_bleu_that_generate_prints(softmax, generate, corpus: Path, tmp_path: Path) -> None:
    done = generate(softmax, ["--prefix-size", 5])
    assert done.code == 0, done.err
    lines = {int(line.split("\t")[0][2:]): line.split("\t")[2] for line in done.lines("D-")}
    (tmp_path / "ref").write_text("".join(f"{row['tgt_text']}\n" for row in rows(corpus)))
    (tmp_path / "sys").write_text("".join(f"{lines[i]}\n" for i in range(6)))
    scored = run("fairseq-score", "--sys", tmp_path / "sys", "--ref", tmp_path / "ref")
    assert scored.code == 0, scored.err
    bleu = scored.out.strip().splitlines()[-1]
    assert done.lines("Generate dev") == [f"Generate dev with beam=5: {bleu}"]
    assert float(re.match(r"BLEU4 = ([\d.]+)", bleu)[1]) > 10


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param("--memory-efficient-fp16 --ema-fp32", marks=pytest.mark.slow),
        "--attn-type cosformer --length-predictor --criterion label_smoothed_cross_entropy_mla",
    ],
)
def test_the_moving_average_of_the_weights_decodes(corpus: Path, generate, tmp_path: Path, flags: str) -> None:
    command = [corpus, "--task", "speech_to_text_mla", "--arch", "s2t_transformer_mla", *SIZES, *TRAINING]
    more = [*flags.split(), "--store-ema", "--ema-decay", 0.5, "--max-update", 3, "--save-dir", tmp_path]
    done = run("fairseq-train", command, more)
    assert done.code == 0, done.err
    done = run("mla-average", "--inputs", tmp_path / "checkpoint_last.pt", "--ema", "--output", tmp_path / "ema.pt")
    assert done.code == 0, done.err
    assert scores(generate(tmp_path / "ema.pt")) != scores(generate(tmp_path / "checkpoint_last.pt"))
