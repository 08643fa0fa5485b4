"""A session: one stream under one policy. Samples in, whole words out, nothing that is out is ever taken back."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from mla_fairseq.streaming.policies import MonotonicPolicy, Policy, Progress, WaitKPolicy
from mla_fairseq.streaming.search import BeamSearch
from mla_fairseq.streaming.translator import Translator
from mla_fairseq.streaming.words import join, whole


@dataclass(frozen=True)
class Write:
    """Words that go out.

    Attributes:
        text: one or more whole words.
        heard: encoder states that were there at that moment, from the beginning of the recording.
        sentence_ended: whether the model ended its sentence with them.
    """

    text: str
    heard: int
    sentence_ended: bool = False


class Session:
    """Simultaneous translation of one recording.

    Args:
        translator: the model.
        policy: when to read and when to write.
        beam: hypotheses that are kept. While the source goes on they differ only in the word that is not whole yet:
            what the best one has written goes out, and those that say otherwise are dropped. When it has ended, the
            rest of the sentence is searched as ``fairseq-generate`` does. 1 is greedy.
        lenpen: length penalty of that search: above 1 favours longer translations.
        max_len_a, max_len_b: at most ``a * frames + b`` tokens in a sentence, frames being those that come before the
            encoder states which a token is written upon.
        continuous: after the model has ended a sentence, begin another; else what follows is heard and not translated.
            The next sentence begins with what was not read: words that began before the last ones were written are
            lost. It suits recordings with a pause between sentences.

            A model that was trained on sentences alone has never heard what it carries by then, and gets worse after
            the first ones: train it on longer recordings, or begin a session at every pause.

    Raises:
        ValueError: a beam below 1, limits that leave no room for a token, or a policy for another kind of model.
    """

    def __init__(
        self,
        translator: Translator,
        policy: Policy,
        beam: int = 1,
        lenpen: float = 1.0,
        max_len_a: float = 0.1,
        max_len_b: int = 20,
        continuous: bool = False,
    ) -> None:
        if beam < 1:
            raise ValueError(f"the beam must be at least 1, but is {beam}")
        check_limits(max_len_a, max_len_b)
        monotonic = translator.model.decoder.monotonic is not None
        if isinstance(policy, MonotonicPolicy) != monotonic and isinstance(policy, MonotonicPolicy | WaitKPolicy):
            kind = "monotonic attention, whose heads decide" if monotonic else "no monotonic attention"
            mend = "MonotonicPolicy" if monotonic else "WaitKPolicy"
            raise ValueError(f"this model has {kind}: give the session a {mend}, not {policy}")
        self.policy = policy
        self.lenpen, self.beam = lenpen, beam
        self.max_len_a, self.max_len_b = max_len_a, max_len_b
        self.continuous = continuous
        self.dictionary = translator.dictionary
        self.stream = translator.open()
        self._begin()

    def push(self, samples, final: bool = False) -> list[Write]:
        """Take the next samples (N,) at 16 kHz, float in [-1, 1] or int16, and return what is written upon them.

        ``final`` ends the recording: then all that is left comes out.

        Raises:
            ValueError: samples that are no speech of one channel; the session is as it was.
            RuntimeError: after the end.
        """
        self.stream.listen(samples, final)
        writes = []
        while not self.search.ended and (upto := self._reads()) is not None and upto > 0:
            tail = self.policy.reads(Progress(self.stream.heard, self.stream.written, ended=False)) is None
            if not self.search.step(self.stream, upto, self._longest, tail):
                break
            self._commit(writes)
        if self.search.ended and not self.continuous:
            self.stream.close()
        return writes

    def finish(self) -> list[Write]:
        """End the recording and return what is left to say."""
        return self.push([], final=True)

    def snapshot(self) -> Session:
        """A copy that goes its own way from here: going back is keeping the copy. Copies no tensor."""
        other = copy.copy(self)
        other.stream = self.stream.fork()
        other.search = self.search.fork()
        return other

    def restore(self, snapshot: Session) -> None:
        """Be again what ``snapshot`` was; it can be returned to once more."""
        self.__dict__.update(snapshot.snapshot().__dict__)

    @property
    def nbytes(self) -> int:
        """Bytes that the session carries from one piece of audio to the next."""
        return self.stream.nbytes

    def _reads(self) -> int | None:
        return self.policy.reads(Progress(self.stream.heard, self.stream.written, self.stream.ended))

    def _longest(self) -> int:
        """Tokens that the sentence may have, by what was read for the last one: the same for any cutting."""
        return max(1, int(self.max_len_a * (self._frames() - self.start) + self.max_len_b))

    def _frames(self) -> int:
        """Frames that come before the states that the last token was written upon, or all there are at the end."""
        if self.policy.reads(Progress(self.stream.heard, self.stream.written - 1, ended=False)) is None:
            return self.stream.frames  # it was written because the source had ended
        states = self.stream.before + self.stream.read
        return min(self.stream.frames, self.stream.translator.model.encoder.frames_before(states))

    def _commit(self, writes: list[Write]) -> None:
        """Send out the whole words of the best hypothesis."""
        search = self.search
        if not search.ended and search.tail:
            return
        pieces = [self.dictionary[token] for token in search.best]
        upto = len(pieces) if search.ended else whole(pieces)
        text = join(pieces[search.committed : upto])
        search.commit(self.stream, upto)
        if text or search.ended:
            writes.append(Write(text, self.stream.before + self.stream.heard, search.ended))
        if search.ended and self.continuous:
            frames = self._frames()
            self.stream.begin_sentence()
            self._begin(frames)

    def _begin(self, start: int = 0) -> None:
        """A sentence begins, after so many frames."""
        symbols = (self.dictionary.eos(), self.dictionary.pad(), self.dictionary.unk())
        self.search = BeamSearch(self.beam, self.lenpen, *symbols)
        self.start = start


def check_limits(max_len_a: float, max_len_b: int) -> None:
    """Raise ValueError for limits of a sentence that leave no room for a token."""
    if max_len_a < 0 or max_len_b < 0 or max_len_a == max_len_b == 0:
        raise ValueError(
            f"--max-len-a and --max-len-b must be at least 0, and one of them more, but are {max_len_a} and {max_len_b}"
        )
