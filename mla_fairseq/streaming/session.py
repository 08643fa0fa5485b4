"""A session translates one recording under one policy: samples in, whole words out, and no word is ever taken back."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from mla_fairseq.streaming.offline_policies import OfflinePolicy
from mla_fairseq.streaming.policies import Policy
from mla_fairseq.streaming.search import BeamSearch, SearchOptions
from mla_fairseq.streaming.source import Source
from mla_fairseq.streaming.translator import Translator


@dataclass(frozen=True)
class Emission:
    """Words that are emitted.

    Attributes:
        text: one or more whole words.
        states: encoder states available at that moment, from the start of the recording.
        sentence_ended: whether the model ended its sentence with them.
    """

    text: str
    states: int
    sentence_ended: bool = False


class Session(ABC):
    """What sessions share: source, limits, committed words, snapshots. A subclass decodes.

    Args:
        translator: the model.
        policy: when to emit; an instance of ``policy_class``.
        options: beam and limits.

    Attributes:
        policy_class: the base class of the policies that the session follows.
        committed: tokens of the current sentence that were emitted.

    Raises:
        ValueError: a policy for another session, or options of another type.
    """

    policy_class: ClassVar[type[Policy | OfflinePolicy]]

    def __init__(self, translator: Translator, policy: Policy | OfflinePolicy, options: SearchOptions) -> None:
        if not isinstance(policy, self.policy_class):
            name, base = type(self).__name__, self.policy_class.__name__
            raise ValueError(f"{name} does not follow this policy ({policy}): use an instance of a subclass of {base}")
        if not isinstance(options, SearchOptions):
            raise ValueError(f"the options of a session are not SearchOptions ({options!r}): use SearchOptions(beam=N)")
        self.translator, self.policy, self.options = translator, policy, options
        self.source = Source.begin(translator)
        self.committed: list[int] = []

    @torch.no_grad()
    def push(self, samples, final: bool = False) -> list[Emission]:
        """Process the next samples (N,) at 16 kHz, float in [-1, 1] or int16; return the words they lead to.

        ``final`` ends the recording: the rest of the translation is emitted.

        Raises:
            ValueError: samples that are not one channel of speech: the session is unchanged; or a policy whose answer
                is not possible.
            RuntimeError: the recording has ended.
        """
        before = self.source.available
        self.source.push(samples, final)
        return self._decode() if self.source.available > before or final else []

    def finish(self) -> list[Emission]:
        """End the recording and return the rest of the translation."""
        return self.push([], final=True)

    def snapshot(self) -> Session:
        """Return an independent copy, to go back to with ``restore``. Copies no tensor."""
        other = copy.copy(self)
        other.source = self.source.fork()
        return other

    def restore(self, snapshot: Session) -> None:
        """Go back to ``snapshot``, which stays valid.

        Raises:
            ValueError: a snapshot of another class.
        """
        if type(snapshot) is not type(self):
            name = type(self).__name__
            raise ValueError(f"this is no snapshot of {name} ({type(snapshot).__name__}): restore one of this session")
        self.__dict__.update(snapshot.snapshot().__dict__)

    @property
    def nbytes(self) -> int:
        """Return the bytes carried from one push to the next."""
        return self.source.nbytes

    @abstractmethod
    def _decode(self) -> list[Emission]:
        """Decode what the policy allows now."""

    def _commit(self, tokens: Sequence[int], sentence_ended: bool = False) -> list[Emission]:
        """Commit ``tokens``, which begin with those committed before; return their new words."""
        text = self.translator.text(tokens[len(self.committed) :])
        self.committed = list(tokens)
        return [Emission(text, self.source.available, sentence_ended)] if text or sentence_ended else []

    def _search(self) -> BeamSearch:
        """Return a search that starts from the committed tokens."""
        dictionary = self.translator.dictionary
        return BeamSearch(self.options, dictionary.eos(), dictionary.pad(), self.committed)
