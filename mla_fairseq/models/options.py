"""Options as documented dataclasses, and the command-line flags that are made of them."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import Any

from mla_fairseq.attention import Mechanism, attention_entry, available_attention, build_attention


@dataclass(frozen=True)
class AttentionSites:
    """Which mechanism stands where."""

    attn_type: str = field(default="softmax", metadata={"help": "attention mechanism of every site"})
    encoder_attn_type: str | None = field(
        default=None, metadata={"help": "mechanism of the encoder's self-attention (default: --attn-type)"}
    )
    decoder_attn_type: str | None = field(
        default=None, metadata={"help": "mechanism of the decoder's self-attention (default: --attn-type)"}
    )
    cross_attn_type: str | None = field(
        default=None, metadata={"help": "mechanism of the decoder's cross-attention (default: --attn-type)"}
    )


SITES = ("encoder", "decoder", "cross")


def add_attention_args(parser: ArgumentParser) -> None:
    """Add the flags of the sites, and those of every registered mechanism under the mechanism's name.

    ``parser`` may be a group: fairseq gives its group of model flags.
    """
    names = ", ".join(available_attention())
    for option in dataclasses.fields(AttentionSites):
        parser.add_argument(
            _flag(option.name),
            type=_attention_name,
            metavar="NAME",
            help=f"{option.metadata['help']}; one of {names}"
            + (f" (default: {option.default})" if option.default else ""),
        )
    for name in available_attention():
        add_options(parser, attention_entry(name).options, f"{name}_")


def build_site(args: Namespace, site: str, head_dim: int) -> Mechanism:
    """The mechanism of one site (``encoder``, ``decoder``, ``cross``) with its options, as the flags say.

    Raises:
        ValueError: a mechanism that cannot stand there.
    """
    name = site_type(args, site)
    options = option_values(args, attention_entry(name).options, f"{name}_")
    mechanism = build_attention(name, head_dim, **options)
    if site == "cross" and mechanism.in_order:
        raise ValueError(f"--cross-attn-type is {name}, which attends to its own past alone: take another one there")
    return mechanism


def site_type(args: Namespace, site: str) -> str:
    """The name of the mechanism of a site."""
    return getattr(args, f"{site}_attn_type", None) or getattr(args, "attn_type", None) or AttentionSites.attn_type


def add_options(parser: ArgumentParser, options: type | None, prefix: str = "") -> None:
    """Add a flag for each field of an options dataclass; field ``x`` becomes ``--PREFIX-x``.

    A flag that is not given is ``None`` in the namespace: ``option_values`` then takes the field's default.
    """
    kinds = {} if options is None else typing.get_type_hints(options)
    for option in _fields(options):
        _add_option(parser, _flag(prefix + option.name), option, kinds[option.name])


def option_values(args: Namespace, options: type | None, prefix: str = "") -> dict[str, Any]:
    """Return the fields of an options dataclass as the flags set them.

    A flag that was not given, or that a checkpoint is too old to have, gets the field's default.
    """
    adopt_former_options(args, options, prefix)
    values = {option: getattr(args, prefix + option.name, None) for option in _fields(options)}
    return {option.name: option.default if value is None else value for option, value in values.items()}


def adopt_former_options(args: Namespace, options: type | None, prefix: str = "") -> None:
    """Set the options that version 0.1 had under another name or with another default: a field's ``former``."""
    for option in _fields(options):
        former, default = option.metadata.get("former", (None, None))
        if former is not None and not hasattr(args, prefix + option.name):  # a checkpoint of 0.1
            value = getattr(args, former, None)
            if (value := default if value is None else value) is not None:
                setattr(args, prefix + option.name, value)


def take_defaults(args: Namespace, name: str) -> None:
    """Give a model that did not have the mechanism ``name`` today's defaults of its options."""
    for option in _fields(attention_entry(name).options):
        if not hasattr(args, f"{name}_{option.name}"):
            setattr(args, f"{name}_{option.name}", option.default)


def _add_option(parser: ArgumentParser, flag: str, option: dataclasses.Field, kind: Any) -> None:
    text = f"{option.metadata.get('help', '')} (default: {option.default})"
    if isinstance(kind, UnionType) or typing.get_origin(kind) is typing.Union:  # such as int | None
        kind = next(some for some in typing.get_args(kind) if some is not NoneType)
    if kind is bool:
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
    elif typing.get_origin(kind) is typing.Literal:
        parser.add_argument(flag, choices=typing.get_args(kind), help=text)
    else:
        # fairseq leaves out flags that are not given: what had another default must be in every new checkpoint
        explicit = {"default": option.default} if option.metadata.get("former", (None, None))[1] is not None else {}
        parser.add_argument(flag, type=kind, metavar="N" if kind in (int, float) else "STR", help=text, **explicit)


def _attention_name(name: str) -> str:
    try:
        return attention_entry(name).name
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _fields(options: type | None) -> tuple[dataclasses.Field, ...]:
    return () if options is None else dataclasses.fields(options)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
