"""Flags: one for each site, one for each option of a mechanism under the mechanism's name, errors in one line."""

import argparse
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from torch import Tensor

import mla_fairseq
from mla_fairseq.attention import (
    Layout,
    LinearAttention,
    Mechanism,
    ReLUAttention,
    SoftmaxAttention,
    available_attention,
    register_attention,
    registry,
)
from mla_fairseq.attention.gated import DecayOptions
from mla_fairseq.models.options import add_attention_args, build_site, option_values, site_type
from mla_fairseq.models.s2t_transformer_mla import S2TTransformerMLAModel
from tests.models.conftest import SIZES, TRAINING, Build, parse
from tests.programs import run


@dataclass(frozen=True)
class GivenOptions:
    """Options of every type."""

    rate: float = field(default=0.5, metadata={"help": "how fast"})
    order: int = field(default=2, metadata={"help": "how often"})
    name: str = field(default="n", metadata={"help": "how called"})
    mode: Literal["a", "b"] = field(default="a", metadata={"help": "which mode"})
    sharp: bool = field(default=False, metadata={"help": "whether sharp"})
    span: int | None = field(default=None, metadata={"help": "how far"})


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Iterator[list]:
    """Register a user's mechanism ``given``; the list has the options that it was built with."""
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    built = []

    @register_attention("given", options=GivenOptions)
    def make(head_dim: int, options: GivenOptions) -> Mechanism:
        built.append(options)
        return ReLUAttention(head_dim)

    yield built


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fairseq-train", allow_abbrev=False)
    S2TTransformerMLAModel.add_args(parser.add_argument_group("Model-specific configuration"))
    return parser


def parsed(flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_attention_args(parser)
    return parser.parse_args(flags.split())


def test_help_explains_every_flag_of_the_sites_and_of_every_mechanism(given) -> None:
    text = " ".join(parser().format_help().split("Model-specific configuration")[1].split())
    for site in ("", "encoder-", "decoder-", "cross-"):
        assert f"--{site}attn-type NAME" in text
    assert f"attention mechanism of every site, one of {', '.join(available_attention())} (default: softmax)" in text
    assert "--target-length {oracle,predicted,ratio,fixed}" in text
    assert "--target-length-ratio N target tokens per encoder state" in text
    assert "--target-length-fixed N" in text
    assert "--given-rate N how fast (default: 0.5)" in text
    assert "--given-mode {a,b} which mode (default: a)" in text
    assert "--given-sharp, --no-given-sharp whether sharp" in text


def given_options(args: argparse.Namespace) -> GivenOptions:
    return GivenOptions(**option_values(args, GivenOptions, "given_"))


def test_options_that_are_not_given_are_the_defaults(given) -> None:
    assert given_options(parsed("")) == GivenOptions()


def test_every_type_of_option_is_parsed(given) -> None:
    args = parsed("--given-rate 0.1 --given-order 3 --given-name m --given-mode b --given-sharp --given-span 4")
    assert given_options(args) == GivenOptions(0.1, 3, "m", "b", True, 4)


def test_a_checkpoint_older_than_an_option_has_its_default(given) -> None:
    assert given_options(argparse.Namespace(given_order=7)) == GivenOptions(order=7)


@pytest.mark.parametrize("side", ["query", "key"])
@pytest.mark.parametrize("site", ["encoder", "decoder", "cross"])
def test_a_mechanism_that_forgets_that_it_needs_lengths_is_refused_in_training(
    given, build: Build, site: str, side: str
) -> None:
    """Decoding would not have the lengths."""

    @register_attention("forgetful")
    class Forgetful(ReLUAttention):
        def query_positions(self, q: Tensor, layout: Layout) -> Tensor:
            return layout.relative_queries(q.dtype).unsqueeze(-1) if side == "query" else q.new_ones(q.shape[-2], 1)

        def key_positions(self, k: Tensor, layout: Layout) -> Tensor:
            return layout.relative_keys(k.dtype).unsqueeze(-1) if side == "key" else k.new_ones(k.shape[-2], 1)

    built = build(flags=f"--{site}-attn-type forgetful")
    with pytest.raises(ValueError, match="the layout has no lengths: set needs_lengths = True in the mechanism"):
        built.model(**built.batch()["net_input"])
    Forgetful.needs_lengths = True
    built = build(flags=f"--{site}-attn-type forgetful --source-length 50 --target-length-ratio 1")
    built.model(**built.batch()["net_input"])


def test_a_users_mechanism_gets_its_options_at_its_site(given, build: Build) -> None:
    model = build(flags="--cross-attn-type given --given-order 5 --no-given-sharp").model
    assert given == [GivenOptions(order=5)] * 2  # two decoder layers
    assert all(isinstance(layer.encoder_attn.mechanism, LinearAttention) for layer in model.decoder.layers)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        pytest.param("", ("softmax", "softmax", "softmax"), id="none"),
        pytest.param("--attn-type relu", ("relu", "relu", "relu"), id="everywhere"),
        pytest.param("--encoder-attn-type relu", ("relu", "softmax", "softmax"), id="encoder"),
        pytest.param("--decoder-attn-type relu", ("softmax", "relu", "softmax"), id="decoder"),
        pytest.param("--cross-attn-type relu", ("softmax", "softmax", "relu"), id="cross"),
        pytest.param("--attn-type elu --decoder-attn-type softmax", ("elu", "softmax", "elu"), id="all-but-one"),
    ],
)
def test_the_flag_of_a_site_overrides_that_of_all_sites(flags: str, expected: tuple[str, ...]) -> None:
    args = parsed(flags)
    assert tuple(site_type(args, site) for site in ("encoder", "decoder", "cross")) == expected


def test_the_sites_of_a_model_have_the_mechanisms_of_the_flags(build: Build) -> None:
    flags = "--attn-type elu --encoder-attn-type cosformer --cross-attn-type softmax --target-length-ratio 0.5"
    model = build(flags=flags).model
    for layer in model.encoder.transformer_layers:
        assert layer.self_attn.mechanism.needs_lengths
    for layer in model.decoder.layers:
        assert isinstance(layer.self_attn.mechanism, LinearAttention) and not layer.self_attn.mechanism.needs_lengths
        assert isinstance(layer.encoder_attn.mechanism, SoftmaxAttention)


def test_layers_have_different_names_in_a_state(build: Build) -> None:
    model = build().model
    attentions = [module for module in model.modules() if hasattr(module, "mechanism")]
    assert len({attention.name for attention in attentions}) == len(attentions) == 6


def test_an_unknown_name_in_a_checkpoint_is_an_error_that_lists_the_known() -> None:
    args = argparse.Namespace(attn_type="sofmax")
    with pytest.raises(
        ValueError, match="unknown attention 'sofmax': choose one of " + ", ".join(available_attention())
    ):
        build_site(args, "encoder", 8)


@pytest.mark.parametrize("flag", ["--attn-type", "--encoder-attn-type", "--decoder-attn-type", "--cross-attn-type"])
def test_an_unknown_name_is_one_line_that_lists_the_known(corpus: Path, capsys, flag: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(corpus, "s2t_transformer_mla", f"{flag} sofmax")
    assert stopped.value.code == 2
    last_line = capsys.readouterr().err.rstrip().rpartition("\n")[2]
    assert f"error: argument {flag}: unknown attention 'sofmax': choose one of cosformer, decay, elu" in last_line


def test_fairseq_train_ends_with_that_line(corpus: Path) -> None:
    command = [corpus, "--task", "speech_to_text_mla", "--arch", "s2t_transformer_mla", *SIZES, *TRAINING]
    done = run("fairseq-train", command, "--attn-type", "sofmax")
    assert done.code == 2
    known = ", ".join(available_attention())
    assert done.last_line.startswith(
        f"fairseq-train: error: argument --attn-type: unknown attention 'sofmax': choose one of {known}; if another"
    )
    assert done.out == ""


def test_a_bad_option_of_a_mechanism_is_named(corpus: Path, capsys) -> None:
    with pytest.raises(SystemExit):
        parse(corpus, "s2t_transformer_mla", "--target-length guess")
    assert "argument --target-length: invalid choice: 'guess'" in capsys.readouterr().err.rstrip().rpartition("\n")[2]


def test_the_help_of_fairseq_train_lists_our_flags() -> None:
    program, package = Path(sys.executable).with_name("fairseq-train"), Path(mla_fairseq.__file__).parent
    done = subprocess.run([program, "--user-dir", package, "--help"], capture_output=True, text=True, check=True)
    flags = ("--attn-type", "--encoder-attn-type", "--decoder-attn-type", "--cross-attn-type", "--target-length")
    assert [flag for flag in flags if f"  {flag} " not in done.stdout] == []


def test_a_checkpoint_of_version_0_1_keeps_the_rates_that_it_was_trained_with() -> None:
    assert option_values(Namespace(), DecayOptions, "decay_") == {"min_half_life": 22.0, "max_half_life": 2839.0}
    former = Namespace(decay_shortest=3.0)
    assert option_values(former, DecayOptions, "decay_") == {"min_half_life": 3.0, "max_half_life": 2839.0}
    assert option_values(parsed(""), DecayOptions, "decay_") == {"min_half_life": 0.0, "max_half_life": 0.0}
