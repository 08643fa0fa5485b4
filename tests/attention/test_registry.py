"""The registry: registering, building and looking up a mechanism, and clear errors."""

import functools
import runpy
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import nn

from mla_fairseq.attention import (
    LinearAttention,
    MultiheadAttention,
    ReLUAttention,
    attention_entry,
    available_attention,
    build_attention,
    register_attention,
    registry,
)
from mla_fairseq.attention.gated import DecayOptions


@dataclass(frozen=True)
class Sharpness:
    """Options of a mechanism that only these tests use."""

    power: float = field(default=1.0, metadata={"help": "exponent of the features"})
    steps: int = 3


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove what a test has registered."""
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))


def register_sharp() -> None:
    @register_attention("sharp", options=Sharpness)
    class Sharp(LinearAttention):
        def __init__(self, head_dim: int, options: Sharpness) -> None:
            super().__init__(head_dim)
            self.power = options.power

        def features(self, x: torch.Tensor) -> torch.Tensor:
            return x.relu() ** self.power


@pytest.mark.parametrize("name", ["cosformer", "elu", "relu", "softmax"])
def test_the_mechanisms_of_the_package_add_no_parameters(name: str) -> None:
    """So a softmax checkpoint can initialize each of them, strictly."""
    assert not build_attention(name, 16).state_dict()


def test_a_registered_mechanism_is_available() -> None:
    register_sharp()
    assert "sharp" in available_attention() == sorted(available_attention())
    assert attention_entry("sharp").options is Sharpness
    assert isinstance(MultiheadAttention(8, 2, "sharp").mechanism, LinearAttention)


def test_a_builder_must_return_a_mechanism() -> None:
    register_attention("layer")(lambda head_dim, options: nn.Linear(head_dim, head_dim))
    with pytest.raises(TypeError, match="attention 'layer' must be a Mechanism, but is Linear: derive it from"):
        build_attention("layer", 4)


def test_a_linear_mechanism_must_define_features() -> None:
    register_attention("bare")(LinearAttention)
    with pytest.raises(TypeError, match="LinearAttention must define features, or query_features and key_features"):
        MultiheadAttention(8, 2, "bare")(torch.zeros(3, 1, 8), torch.zeros(3, 1, 8))


def test_options_reach_the_builder() -> None:
    register_sharp()
    assert build_attention("sharp", 8).power == 1.0
    assert build_attention("sharp", 8, power=2.5).power == 2.5
    assert attention_entry("decay").options is DecayOptions


def test_a_name_is_taken_once() -> None:
    register_sharp()
    for name in ("sharp", "softmax"):
        with pytest.raises(ValueError, match=f"attention '{name}' is already registered in .*: choose another name"):
            register_attention(name)(ReLUAttention)
    register_sharp()  # the same definition again


DEFINITION = """
from mla_fairseq.attention import ReLUAttention, register_attention

@register_attention("mine")
class Mine(ReLUAttention):
    pass
"""


def test_a_definition_is_known_by_its_file(tmp_path: Path) -> None:
    """fairseq may import a user-dir's file under two module names; equal names in two files are two definitions."""
    files = [tmp_path / folder / "attention.py" for folder in ("a", "b")]
    for file in files:
        file.parent.mkdir()
        file.write_text(DEFINITION)
    for module in ("attention", "user_dir.attention"):
        runpy.run_path(str(files[0]), run_name=module)
    with pytest.raises(ValueError, match=f"'mine' is already registered in {files[0]}: choose another name"):
        runpy.run_path(str(files[1]), run_name="attention")


@pytest.mark.parametrize("name", [None, ReLUAttention], ids=["none", "no-parentheses"])
def test_a_mechanism_needs_a_name(name: object) -> None:
    with pytest.raises(TypeError, match="register an attention under a name"):
        register_attention(name)


def test_only_a_class_or_a_function_can_be_registered() -> None:
    with pytest.raises(TypeError, match="attention 'bound' must be a class or a function, but is functools"):
        register_attention("bound")(functools.partial(ReLUAttention))
    assert "bound" not in available_attention()


@pytest.mark.parametrize("name", ["", "two words", "with-dash", "1st"])
def test_a_name_can_be_part_of_a_flag(name: str) -> None:
    with pytest.raises(ValueError, match=f"must be a Python identifier, but is '{name}'"):
        register_attention(name)
    assert name not in available_attention()


@dataclass
class NoDefault:
    power: float


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"power": 1.0}, "must be a dataclass, but are {'power': 1.0}", id="dictionary"),
        pytest.param(int, "must be a dataclass, but are <class 'int'>", id="plain-class"),
        pytest.param(Sharpness(), r"must be a dataclass, but are Sharpness\(", id="instance"),
        pytest.param(NoDefault, "option 'power' of attention 'odd' needs a default value", id="no-default"),
    ],
)
def test_options_are_a_dataclass_with_defaults(options: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        register_attention("odd", options=options)
    assert "odd" not in available_attention()


@pytest.mark.parametrize("ask", [attention_entry, lambda name: build_attention(name, 8)], ids=["entry", "build"])
def test_an_unknown_name_lists_the_known_ones(ask) -> None:
    with pytest.raises(
        ValueError, match=r"unknown attention 'cosfomer': choose one of cosformer, .*elu, .*relu, .*softmax"
    ):
        ask("cosfomer")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("leap", "attention 'leap' has no option 'lenght': it has factor"),
        ("relu", "attention 'relu' has no option 'lenght': it has none"),
    ],
)
def test_an_unknown_option_lists_the_known_ones(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_attention(name, 8, lenght="ratio")
