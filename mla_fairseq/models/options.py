"""Options as documented dataclasses, and command-line flags made from them."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from argparse import Namespace, _ActionsContainer
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import Any

from mla_fairseq.attention import Mechanism, attention_entry, available_attention, build_attention


@dataclass(frozen=True)
class AttentionSites:
    """The mechanism of each attention site."""

    attn_type: str = field(default="softmax", metadata={"help": "attention mechanism of every site"})
    encoder_attn_type: str | None = field(
        default=None, metadata={"help": "attention mechanism of the encoder's self-attention"}
    )
    decoder_attn_type: str | None = field(
        default=None, metadata={"help": "attention mechanism of the decoder's self-attention"}
    )
    cross_attn_type: str | None = field(
        default=None, metadata={"help": "attention mechanism of the decoder's cross-attention"}
    )


SITES = ("encoder", "decoder", "cross")


def add_attention_args(parser: _ActionsContainer) -> None:
    """Add the flags of the sites, and those of every registered mechanism under the mechanism's name.

    Args:
        parser: a parser, or a group of its flags: fairseq gives its group of model flags.
    """
    names = f"one of {', '.join(available_attention())} (default: {AttentionSites.attn_type})"
    for option in dataclasses.fields(AttentionSites):
        choices = names if option.default else "with the same choices (default: the mechanism of --attn-type)"
        text = f"{option.metadata['help']}, {choices}"
        parser.add_argument(_flag(option.name), type=_attention_name, metavar="NAME", help=text)
    for name in available_attention():
        add_options(parser, attention_entry(name).options, f"{name}_")


def build_site(args: Namespace, site: str, head_dim: int) -> Mechanism:
    """Build the mechanism of one site (``encoder``, ``decoder`` or ``cross``) for heads of size ``head_dim``.

    Raises:
        ValueError: an unknown mechanism, or one that the site cannot have.
    """
    name = site_type(args, site)
    options = option_values(args, attention_entry(name).options, f"{name}_")
    mechanism = build_attention(name, head_dim, **options)
    if site == "cross" and mechanism.in_order:
        raise ValueError(
            f"--cross-attn-type is {name}, which attends only to its own past: use another mechanism there"
        )
    return mechanism


def site_type(args: Namespace, site: str) -> str:
    """Return the name of a site's mechanism."""
    return getattr(args, f"{site}_attn_type", None) or getattr(args, "attn_type", None) or AttentionSites.attn_type


def add_options(parser: _ActionsContainer, options: type | None, prefix: str = "") -> None:
    """Add a flag for each field of an options dataclass; field ``x`` becomes ``--PREFIX-x``.

    A flag that is not given is ``None`` in the namespace: ``option_values`` then takes the field's default. A field's
    metadata may have ``help``, ``default`` (what the help shows as the default) and ``former`` (see
    ``adopt_former_options``).
    """
    types = {} if options is None else typing.get_type_hints(options)
    for option in _fields(options):
        _add_option(parser, _flag(prefix + option.name), option, types[option.name])


def option_values(args: Namespace, options: type | None, prefix: str = "") -> dict[str, Any]:
    """Return the fields of an options dataclass as the flags set them.

    A flag that was not given, or that is newer than the checkpoint, has the field's default.
    """
    adopt_former_options(args, options, prefix)
    values = {option: getattr(args, prefix + option.name, None) for option in _fields(options)}
    return {option.name: option.default if value is None else value for option, value in values.items()}


def adopt_former_options(args: Namespace, options: type | None, prefix: str = "") -> None:
    """Set the options that version 0.1 had under another name or with another default.

    A field's metadata ``former`` is that name and that default, either of which may be ``None``.
    """
    for option in _fields(options):
        former, default = option.metadata.get("former", (None, None))
        if former is not None and not hasattr(args, prefix + option.name):  # a checkpoint of 0.1
            value = getattr(args, former, None)
            if (value := default if value is None else value) is not None:
                setattr(args, prefix + option.name, value)


def take_defaults(args: Namespace, name: str) -> None:
    """Set the present defaults of the options of mechanism ``name`` in a model that did not have it."""
    for option in _fields(attention_entry(name).options):
        if not hasattr(args, f"{name}_{option.name}"):
            setattr(args, f"{name}_{option.name}", option.default)


def _add_option(parser: _ActionsContainer, flag: str, option: dataclasses.Field, hint: Any) -> None:
    """Add the flag of one field, whose type is ``hint``."""
    text = f"{option.metadata.get('help', '')} (default: {option.metadata.get('default', option.default)})"
    if isinstance(hint, UnionType) or typing.get_origin(hint) is typing.Union:  # such as int | None
        hint = next(some for some in typing.get_args(hint) if some is not NoneType)
    if hint is bool:
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
    elif typing.get_origin(hint) is typing.Literal:
        parser.add_argument(flag, choices=typing.get_args(hint), help=text)
    else:
        # fairseq leaves out flags that are not given: where the default has changed, every new checkpoint must store it
        changed = option.metadata.get("former", (None, None))[1] is not None
        explicit: dict[str, Any] = {"default": option.default} if changed else {}
        parser.add_argument(flag, type=hint, metavar="N" if hint in (int, float) else "STR", help=text, **explicit)


def _attention_name(name: str) -> str:
    """Return the name of a registered mechanism, as the type of a flag."""
    try:
        return attention_entry(name).name
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error  # argparse prints this one as "argument --x: ..."


def _fields(options: type | None) -> tuple[dataclasses.Field, ...]:
    return () if options is None else dataclasses.fields(options)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
