"""A session translates one recording under one policy: samples in, whole words out.

Every emitted word is final. A word is emitted once the policy allows its tokens and the next word has begun, or at the
end of the sentence. Imports no torch.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from numpy.typing import ArrayLike

from mla_fairseq.speech.samples import SAMPLE_RATE, as_bool
from mla_fairseq.streaming.checks import check_same
from mla_fairseq.streaming.interface import Source, StreamingModel
from mla_fairseq.streaming.offline_policies import OfflinePolicy
from mla_fairseq.streaming.policies import Policy
from mla_fairseq.streaming.search import BeamSearch, SearchOptions


@dataclass(frozen=True)
class Emission:
    """Words that a session has emitted. They are final.

    Attributes:
        text: one or more whole words; empty only where a sentence ends without a new word.
        states: encoder states available at that moment, counted from the start of the recording, or of the stretch of
            speech (40 ms each).
        sentence_ended: whether the sentence ends after these words.
        milliseconds: audio available at that moment, counted from the start of the recording.
        stretch: index of the stretch of speech in a ``LongSession``; 0 in other sessions.
        start: audio before that stretch, in milliseconds.
    """

    text: str
    states: int
    sentence_ended: bool = False
    milliseconds: float = 0.0
    stretch: int = 0
    start: float = 0.0


class Session(ABC):
    """The translation of one recording while it arrives: base class with source, committed tokens and snapshots.

    Each ``push`` takes a segment of samples and returns the words that it makes final. The encoder works in chunks, so
    a push may return nothing. Words already emitted never change. A subclass implements ``_decode``.

    Args:
        translator: the model; sessions may share one.
        policy: decides what may be emitted; an instance of ``policy_class``.
        options: beam and limits.

    Attributes:
        policy_class: the base class of the policies that the session follows.
        settings: attributes that the session and its snapshots have in common.
        committed: tokens of the current sentence that are final.
        forced: tokens before these: the tag of the target language, or none.

    Raises:
        ValueError: a policy for another session class, a translator or options of another type, options without a
            target language of the model, or a CTC weight for a model without CTC on the translation.
    """

    policy_class: ClassVar[type[Policy | OfflinePolicy]]
    settings: ClassVar[tuple[str, ...]] = ("translator", "policy", "options")

    def __init__(self, translator: StreamingModel, policy: Policy | OfflinePolicy, options: SearchOptions) -> None:
        if not isinstance(policy, self.policy_class):
            name, base = type(self).__name__, self.policy_class.__name__
            raise ValueError(f"{name} does not follow this policy ({policy}): use an instance of a subclass of {base}")
        if not isinstance(translator, StreamingModel):
            given = type(translator).__name__
            raise ValueError(f"the translator of a session is not a Translator ({given}): use Translator.load")
        if not isinstance(options, SearchOptions):
            raise ValueError(f"the options of a session are not SearchOptions ({options!r}): use SearchOptions(beam=N)")
        self.translator, self.policy, self.options = translator, policy, options
        self.forced = translator.forced(options.tgt_lang)
        if options.ctc_weight:
            translator.check_ctc()
        self.source: Source = translator.begin_source()
        self.committed: list[int] = []

    def push(self, samples: ArrayLike, final: bool = False) -> list[Emission]:
        """Process the next segment and return the words that are now final.

        Args:
            samples: (N,) at 16 kHz, float in [-1, 1] or int16; N may be 0 and may differ from push to push.
            final: end the recording; the rest of the translation is returned.

        Raises:
            ValueError: the samples are not one channel of speech or ``final`` is not true or false (the session is
                unchanged), or the policy made a decision that is not possible.
            RuntimeError: the recording has ended.
        """
        final = as_bool(final, "final")
        before = self.source.available
        self.source.push(samples, final)
        # without new encoder states the policy would decide as before
        return self._decode() if self.source.available > before or final else []

    def finish(self) -> list[Emission]:
        """End the recording and return the rest of the translation."""
        return self.push([], final=True)

    def snapshot(self) -> Self:
        """Return an independent copy for ``restore``. Copies no tensor."""
        other = copy.copy(self)
        other.source = self.source.fork()
        return other

    def restore(self, snapshot: Session) -> None:
        """Return to ``snapshot``, which stays valid.

        Raises:
            ValueError: the snapshot is of another class, or of a session with other arguments.
        """
        if type(snapshot) is not type(self):
            name = type(self).__name__
            raise ValueError(f"not a snapshot of {name} ({type(snapshot).__name__}): use one of this session")
        check_same(self, snapshot, self.settings)
        self.__dict__.update(snapshot.snapshot().__dict__)

    @property
    def nbytes(self) -> int:
        """Return the bytes of tensors and samples kept from one push to the next."""
        return self.source.nbytes

    @abstractmethod
    def _decode(self) -> list[Emission]:
        """Decode what the policy allows now; return the words that became final."""

    def _commit(self, tokens: Sequence[int], sentence_ended: bool = False) -> list[Emission]:
        """Make ``tokens`` final and return the new words; they start with the tokens committed before."""
        text = self.translator.text(tokens[len(self.committed) :])
        self.committed = list(tokens)
        if not (text or sentence_ended):
            return []
        return [Emission(text, self.source.available, sentence_ended, self.source.samples * 1000 / SAMPLE_RATE)]

    def _search(self) -> BeamSearch:
        """Return a search that starts from the committed tokens."""
        model = self.translator
        return BeamSearch(self.options, model.eos, model.pad, model.places, self.committed, self.forced)
