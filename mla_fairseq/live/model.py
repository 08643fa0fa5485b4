"""What a live server offers: one model, and what its clients may choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mla_fairseq.live.messages import CHOICE, Refusal, short
from mla_fairseq.speech import SAMPLE_RATE
from mla_fairseq.streaming import Detector, LongSession, SearchOptions, Session, Translator
from mla_fairseq.streaming.checks import is_integer
from mla_fairseq.streaming.choice import CHOICES, begin_session, default_number, numbers, suitable
from mla_fairseq.streaming.detectors import BLOCK


@dataclass(frozen=True)
class Setting:
    """What a client has chosen: a policy of ``CHOICES``, its number, and the target language, if there are several."""

    policy: str
    number: int
    tgt_lang: str | None = None


@dataclass(frozen=True)
class Model:
    """A model with what all clients have in common.

    Attributes:
        translator: the model.
        name: what the page calls it.
        source: source language, such as ``en``; empty: not known.
        target: target language of a model of one language; empty: not known.
        setting: what clients have that choose nothing; ``None``: the defaults of the model.
        detector: finds speech; each client gets a copy. ``None``: the choice of ``LongSession``.
        pause, longest: as for ``LongSession``.
    """

    translator: Translator
    name: str
    source: str = ""
    target: str = ""
    setting: Setting | None = None
    detector: Detector | None = None
    pause: float = 0.16
    longest: float = 30.0

    @property
    def targets(self) -> list[str]:
        """Return the target languages; empty: not known."""
        return self.translator.languages or ([self.target] if self.target else [])

    @property
    def default(self) -> Setting:
        """Return the setting of clients that choose nothing."""
        policy = suitable(self.translator)[0]
        language = next(iter(self.translator.languages), None)
        return self.setting or Setting(policy, default_number(self.translator, policy), language)

    @property
    def policies(self) -> list[str]:
        """Return the names of the policies, that of the default first."""
        first = self.default.policy
        return [first, *(name for name in suitable(self.translator) if name != first)]

    def describe(self) -> dict[str, Any]:
        """Return what a page shows."""
        wait_k = self.translator.wait_k
        step = BLOCK * 1000 // SAMPLE_RATE * (wait_k.ratio if wait_k else 1)
        policies = [self._describe(name) for name in self.policies]
        first = self.default.tgt_lang  # the page shows the first one as chosen
        target = sorted(self.targets, key=lambda language: language != first)
        return {"name": self.name, "source": self.source, "target": target, "policies": policies, "step_ms": step}

    def choose(self, values: Mapping[str, Any], before: Setting) -> Setting:
        """Return the setting after a message; a key that is missing or null changes nothing.

        Raises:
            Refusal: a value is of another type, or not possible with this model.
        """
        policy, number, language = (values.get(key) for key in CHOICE)
        policy = before.policy if policy is None else policy
        if policy not in self.policies:
            raise Refusal(f"policy is {short(policy)}: use one of {', '.join(self.policies)}")
        if number is None:
            number = before.number if policy == before.policy else self._number(policy)
        allowed = numbers(self.translator, policy)
        if not (is_integer(number, allowed[0]) and number in allowed):
            raise Refusal(f"number is {short(number)}: {policy} has {allowed[0]} to {allowed[-1]}")
        return Setting(policy, number, before.tgt_lang if language is None else self._language(language))

    def begin(self, setting: Setting) -> LongSession:
        """Begin the session of a client."""
        session, segment = self._session(setting)
        return LongSession(session, self.detector and self.detector.fork(), self.pause, self.longest, segment)

    def change(self, session: LongSession, setting: Setting) -> None:
        """Change the setting of a session from its next stretch of speech on."""
        session.change(*self._session(setting))

    def _session(self, setting: Setting) -> tuple[Session, int]:
        options = SearchOptions(tgt_lang=setting.tgt_lang if self.translator.languages else None)
        return begin_session(self.translator, setting.policy, setting.number, options)

    def _language(self, language: object) -> str:
        if language not in self.targets:
            known = f"use one of {', '.join(self.targets)}" if self.targets else "this model has one: leave it out"
            raise Refusal(f"tgt_lang is {short(language)}: {known}")
        return str(language)

    def _number(self, policy: str) -> int:
        """Return the default number of a policy."""
        return self.default.number if policy == self.default.policy else default_number(self.translator, policy)

    def _describe(self, policy: str) -> dict[str, Any]:
        allowed = numbers(self.translator, policy)
        limits = {"default": self._number(policy), "lowest": allowed[0], "highest": allowed[-1]}
        return {"name": policy, "number": CHOICES[policy].number, **limits}
