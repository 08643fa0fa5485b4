"""Policies by name, each with the one number that sets its latency: what servers and pages let people choose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mla_fairseq.streaming.detectors import Detector
from mla_fairseq.streaming.incremental import IncrementalSession
from mla_fairseq.streaming.interface import StreamingModel
from mla_fairseq.streaming.long import LongSession
from mla_fairseq.streaming.offline import OfflineSession
from mla_fairseq.streaming.offline_policies import AlignAttPolicy, HoldPolicy, LocalAgreementPolicy, OfflinePolicy
from mla_fairseq.streaming.policies import MonotonicPolicy, Policy, WaitKPolicy
from mla_fairseq.streaming.search import GREEDY, SearchOptions
from mla_fairseq.streaming.session import Session

WAIT_K, MONOTONIC = "wait-k", "monotonic"
SEGMENT = 7  # blocks of 40 ms that an OfflineSession gets at once: it decodes again with each


@dataclass(frozen=True)
class Choice:
    """A policy, with the number that sets its latency.

    Attributes:
        build: make the policy of a number.
        number: what the number counts; empty: the policy has none.
        default: its default; ``None``: the k that the model was trained with, or the middle of its range.
        lowest, highest: what servers accept; those of k come from the model.
        uses_attention: whether it needs attention weights, which an exported model has not.
    """

    build: Callable[[int], Policy | OfflinePolicy]
    number: str = ""
    default: int | None = None
    lowest: int = 0
    highest: int = 0
    uses_attention: bool = False


CHOICES = {
    WAIT_K: Choice(WaitKPolicy, "k"),
    MONOTONIC: Choice(lambda _: MonotonicPolicy(), default=0),
    "align-att": Choice(AlignAttPolicy, "frames", 4, highest=25, uses_attention=True),
    "local-agreement": Choice(LocalAgreementPolicy, "hypotheses", 2, 2, 5),
    "hold": Choice(HoldPolicy, "tokens", 6, highest=20),
}
"""Every policy that can be chosen by its name."""


def suitable(translator: StreamingModel) -> list[str]:
    """Return the names of the policies that suit a model; the first is the one that it was trained for."""
    if translator.monotonic:
        return [MONOTONIC]
    usable = [name for name, choice in CHOICES.items() if translator.attention[0] or not choice.uses_attention]
    offline = [name for name in usable if name not in (WAIT_K, MONOTONIC)]
    return [WAIT_K, *offline] if translator.wait_k and translator.streams else offline


def default_number(translator: StreamingModel, policy: str) -> int:
    """Return the number that a policy has by default."""
    default = CHOICES[policy].default
    return translator.wait_k.middle if default is None and translator.wait_k else default or 0


def numbers(translator: StreamingModel, policy: str) -> range:
    """Return the numbers that a policy may have on a server; those of k are what the model was trained with."""
    trained = translator.wait_k if policy == WAIT_K else None
    limits = trained or CHOICES[policy]
    return range(limits.lowest, limits.highest + 1)


def begin_session(
    translator: StreamingModel, policy: str | None = None, number: int | None = None, options: SearchOptions = GREEDY
) -> tuple[Session, int]:
    """Begin a session of one stretch of speech; arguments are those of ``begin_long``.

    Returns:
        The session, and how many blocks of 40 ms a ``LongSession`` gives it at once.

    Raises:
        ValueError: as ``begin_long``.
    """
    names = suitable(translator)
    name = names[0] if policy is None else policy
    if name not in names:
        raise ValueError(f"the policy {policy!r} does not suit this model: use one of {', '.join(names)}")
    built = CHOICES[name].build(default_number(translator, name) if number is None else number)
    if isinstance(built, Policy):
        return IncrementalSession(translator, built, options), 1
    return OfflineSession(translator, built, options), SEGMENT


def begin_long(
    translator: StreamingModel,
    policy: str | None = None,
    number: int | None = None,
    options: SearchOptions = GREEDY,
    detector: Detector | None = None,
    pause: float = 0.16,
    longest: float = 30.0,
) -> LongSession:
    """Begin a session of a recording of any length, under a policy of ``CHOICES``.

    Args:
        translator: the model.
        policy: name of the policy; ``None``: the one that the model was trained for.
        number: its number; ``None``: its default.
        options: beam, limits and target language.
        detector, pause, longest: as for ``LongSession``.

    Raises:
        ValueError: the policy is unknown or does not suit the model, or another argument is not possible.
    """
    session, segment = begin_session(translator, policy, number, options)
    return LongSession(session, detector, pause, longest, segment)
