"""The registry: one name, one mechanism, its options. A new mechanism is one entry in one short file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from mla_fairseq.attention.features import ELUFeatures, ReLUFeatures, SoftmaxFeatures, SquaredReLUFeatures
from mla_fairseq.attention.linear import Lengths, LinearAttention, Tensors
from mla_fairseq.attention.positions import CosinePositions
from mla_fairseq.attention.softmax import SoftmaxAttention
from mla_fairseq.attention.views import View


class Mechanism(Protocol):
    """What an attention mechanism has to offer: shapes and meanings as in ``LinearAttention``."""

    needs_lengths: bool
    in_order: bool  # whether it follows views that go forward alone (false where it is missing)

    def parallel(
        self, q: Tensor, k: Tensor, v: Tensor, view: View, key_mask: Tensor | None, lengths: Lengths
    ) -> Tensor: ...

    def weights(self, q: Tensor, k: Tensor, view: View, key_mask: Tensor | None, lengths: Lengths) -> Tensor: ...

    def write(self, state: Tensors, k: Tensor, v: Tensor, key_mask: Tensor | None, lengths: Lengths) -> Tensors: ...

    def read(self, state: Tensors, q: Tensor, lengths: Lengths) -> tuple[Tensor, Tensors]: ...

    def advance(
        self, state: Tensors, q: Tensor, k: Tensor, v: Tensor, view: View, key_mask: Tensor | None, lengths: Lengths
    ) -> tuple[Tensor, Tensors]: ...


Build = Callable[[int, Any], nn.Module]


@dataclass(frozen=True)
class Entry:
    """A registered mechanism: ``build(head_dim, options)`` makes it, ``options`` is its dataclass or ``None``."""

    name: str
    build: Build
    options: type | None


_ENTRIES: dict[str, Entry] = {}


def register_attention(name: str, options: type | None = None) -> Callable[[Build], Build]:
    """Decorator: make ``build(head_dim, options) -> nn.Module`` known as ``--attn-type NAME``.

    ``options`` is a dataclass whose fields have defaults and, as metadata, a ``help`` sentence; field ``x`` of
    mechanism ``name`` becomes the flag ``--name-x``.

    Raises:
        ValueError: a name that is taken, or that cannot be part of a flag.
        TypeError: options that are not a dataclass with defaults.
    """
    if name in _ENTRIES:
        raise ValueError(f"attention {name!r} is registered already: choose another name than {_known()}")
    if not name.isidentifier():
        raise ValueError(f"an attention name must be a Python identifier, but is {name!r}")
    if options is not None:
        _check_options(name, options)

    def register(build: Build) -> Build:
        _ENTRIES[name] = Entry(name, build, options)
        return build

    return register


def build_attention(name: str, head_dim: int, /, **options: Any) -> nn.Module:
    """The mechanism ``name`` for heads of size ``head_dim``, with its options by field name.

    Raises:
        ValueError: an unknown name or option.
    """
    entry = attention_entry(name)
    known = [] if entry.options is None else [field.name for field in dataclasses.fields(entry.options)]
    for option in options:
        if option not in known:
            raise ValueError(f"attention {name!r} has no option {option!r}: it knows {', '.join(known) or 'none'}")
    return entry.build(head_dim, None if entry.options is None else entry.options(**options))


def attention_entry(name: str) -> Entry:
    """The registered entry of that name.

    Raises:
        ValueError: an unknown name; the message lists the known ones.
    """
    if name not in _ENTRIES:
        raise ValueError(f"unknown attention {name!r}: choose one of {_known()}")
    return _ENTRIES[name]


def available_attention() -> list[str]:
    """The names that ``--attn-type`` takes, sorted."""
    return sorted(_ENTRIES)


def _check_options(name: str, options: type) -> None:
    if not (isinstance(options, type) and dataclasses.is_dataclass(options)):
        raise TypeError(f"the options of attention {name!r} must be a dataclass, but are {options!r}")
    for option in dataclasses.fields(options):
        if option.default is dataclasses.MISSING:
            raise TypeError(f"option {option.name!r} of attention {name!r} needs a default value")


def _known() -> str:
    return ", ".join(available_attention()) or "(nothing is registered)"


@register_attention("softmax")
def softmax(head_dim: int, options: None) -> nn.Module:
    """The standard mechanism; with it everywhere a model is fairseq's own."""
    return SoftmaxAttention()


@register_attention("relu")
def relu(head_dim: int, options: None) -> nn.Module:
    """MLA's simple attention: ReLU features without positions."""
    return LinearAttention(ReLUFeatures())


@register_attention("elu")
def elu(head_dim: int, options: None) -> nn.Module:
    """ELU + 1 features without positions (arXiv 2006.16236)."""
    return LinearAttention(ELUFeatures())


@register_attention("relu2")
def relu2(head_dim: int, options: None) -> nn.Module:
    """Squared ReLU features without positions."""
    return LinearAttention(SquaredReLUFeatures())


@register_attention("exp")
def exp(head_dim: int, options: None) -> nn.Module:
    """Exponential features that sum to one in each token, without positions (after arXiv 1812.01243)."""
    return LinearAttention(SoftmaxFeatures())


@register_attention("cosformer")
def cosformer(head_dim: int, options: None) -> nn.Module:
    """ReLU features re-weighted by the cosine of the distance of relative positions (arXiv 2202.08791)."""
    return LinearAttention(ReLUFeatures(), CosinePositions())
