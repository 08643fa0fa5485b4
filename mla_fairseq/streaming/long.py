"""Sessions of recordings of any length: a fresh session for each stretch of speech, and none for silence.

Imports no torch.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from mla_fairseq.speech.samples import INT16_RANGE, SAMPLE_RATE, as_bool, to_kaldi_scale
from mla_fairseq.streaming.boundary import sentence_end
from mla_fairseq.streaming.checks import check_integer, check_same, is_finite
from mla_fairseq.streaming.detectors import BLOCK, Detector, EnergyDetector, check_detector, first_pause, onset
from mla_fairseq.streaming.interface import Source
from mla_fairseq.streaming.session import Emission, Session

LIKELY = 0.5  # probability above which a state is speech
CERTAIN = 0.997  # the same before a stretch opens: at 0.5, noise before the speech opens it 0.1 s too early
SPEECH = 6  # blocks of speech that open a stretch: 0.24 s
REST = 10  # blocks of speech after a cut that are worth a stretch: 0.4 s
LISTENING = 250  # blocks after which the encoder that listens to silence starts again: 10 s
SECOND = SAMPLE_RATE / BLOCK  # blocks in a second


class LongSession:
    """The translation of a recording of any length: each stretch of speech gets a fresh session.

    A stretch opens once speech has lasted 0.24 s, and begins 0.04 to 0.08 s before it. It ends with a pause, where the
    encoder's boundary output finds the end of a sentence, or when it is too long; what speech remains after such a cut
    is dropped if it lasts less than 0.4 s. Nothing is carried from stretch to stretch, and silence is not decoded.

    All decisions are made after whole blocks of 40 ms, so emissions do not depend on how the audio is split into
    segments. The first block starts at the first sample that is not 0. A stretch has the words of a session on its
    samples (``opened``), pushed in segments of ``segment`` blocks.

    Args:
        session: a session that has no samples yet; its copies translate the stretches.
        detector: finds speech; ``None``: the boundary output of the encoder, or ``EnergyDetector`` without one.
        pause: shortest pause that ends a stretch, in seconds.
        longest: longest stretch in seconds; use what the model was trained on.
        segment: blocks that a session gets at once. An ``OfflineSession`` decodes again with each segment, so it needs
            a larger one, such as 12.

    Attributes:
        stretch: number of stretches opened so far, minus 1.
        opened: first sample of the current or last stretch, counted from the start of the recording.

    Raises:
        ValueError: the session has samples, or another argument is not possible.
    """

    def __init__(
        self,
        session: Session,
        detector: Detector | None = None,
        pause: float = 0.16,
        longest: float = 30.0,
        segment: int = 1,
    ) -> None:
        self.fresh, self.segment = _checked(session, segment)
        if not (is_finite(pause, longest) and 1 / SECOND <= pause < longest and longest >= 1):
            raise ValueError(
                "the shortest pause must be at least 0.04 s and the longest stretch at least 1 s and longer, but they "
                f"are {pause!r} and {longest!r}"
            )
        check_detector(detector)
        self.pause, self.longest = round(pause * SECOND), round(longest * SECOND)
        self.bounded = session.translator.has_boundary
        self.detector = EnergyDetector() if detector is None and not self.bounded else detector
        self.stretch, self.opened = -1, 0
        self.silence = 0  # samples before the first one that is not 0
        self.tail = np.zeros(0, np.float32)  # samples of the next block
        self.start = 0  # first block kept: that of the stretch, or the earliest at which the next one may begin
        self.kept: list[np.ndarray] = []
        self.speech: list[bool] = []  # whether the kept blocks are speech, as far as that is known
        self.finished = self.written = False
        self.decoded: int | None = None  # encoder states at which the decoder ended the sentence of the stretch
        self.portion = self.segment  # of the current stretch
        self._begin_gap(after_cut=False)

    def push(self, samples: ArrayLike, final: bool = False) -> list[Emission]:
        """Process the next samples and return the words that are now final.

        Arguments are those of ``Session.push``.

        Raises:
            ValueError: as ``Session.push``, or the detector returns something other than true or false.
            RuntimeError: the recording has ended.
        """
        final, new = as_bool(final, "final"), to_kaldi_scale(samples) / np.float32(INT16_RANGE)
        if self.finished:
            raise RuntimeError("push after final=True: the recording has ended, start a new session")
        waiting = self._without_leading_zeros(np.concatenate((self.tail, new)))
        blocks = len(waiting) // BLOCK
        self.tail = waiting[blocks * BLOCK :].copy()
        emissions = []
        for block in np.split(waiting[: blocks * BLOCK], blocks) if blocks else []:
            emissions += self._step(block.copy())
        self.finished = final
        return emissions + (self._end() if final else [])

    def finish(self) -> list[Emission]:
        """End the recording and return the rest of the translation."""
        return self.push([], final=True)

    def change(self, session: Session, segment: int = 1) -> None:
        """Translate the stretches that open from now on by copies of another session; the current one is not changed.

        Snapshots from before cannot be restored.

        Args:
            session: a session of the same translator that has no samples yet.
            segment: as for ``LongSession``.

        Raises:
            ValueError: the session has samples or another translator, or the segment is not possible.
        """
        fresh, blocks = _checked(session, segment)
        if fresh.translator is not self.fresh.translator:
            raise ValueError("the session has another translator: start a new long session with it")
        self.fresh, self.segment = fresh, blocks

    def snapshot(self) -> Self:
        """Return an independent copy for ``restore``. Copies no tensor."""
        other = copy.copy(self)
        other.kept, other.speech = list(self.kept), list(self.speech)
        other.session = self.session.snapshot() if self.session else None
        other.ear = self.ear.fork() if self.ear else None
        other.detector = self.detector.fork() if self.detector else None
        return other

    def restore(self, snapshot: LongSession) -> None:
        """Return to ``snapshot``, which stays valid.

        Raises:
            ValueError: the snapshot is of another class, or of a session with other arguments.
        """
        if not isinstance(snapshot, LongSession):
            raise ValueError(f"not a snapshot of LongSession ({type(snapshot).__name__}): use one of this session")
        if type(snapshot.fresh) is not type(self.fresh) or type(snapshot.detector) is not type(self.detector):
            raise ValueError("the snapshot is of another type of session or detector: use one of this session")
        check_same(self, snapshot, ("pause", "longest", "segment"))
        check_same(self.fresh, snapshot.fresh, self.fresh.settings)
        self.__dict__.update(snapshot.snapshot().__dict__)

    @property
    def nbytes(self) -> int:
        """Return the bytes of tensors and samples kept from one push to the next."""
        parts = [part.nbytes for part in (self.session, self.ear) if part]
        return sum(parts) + self.tail.nbytes + sum(block.nbytes for block in self.kept)

    def _without_leading_zeros(self, waiting: np.ndarray) -> np.ndarray:
        """Drop zeros at the start of the recording, so that any number of them gives the same blocks."""
        if self.start or self.kept or not len(waiting):
            return waiting
        first = int((waiting != 0).argmax()) if waiting.any() else len(waiting)
        self.silence += first
        return waiting[first:]

    def _step(self, block: np.ndarray) -> list[Emission]:
        """Process one block (640,)."""
        self.kept.append(block)
        if self.detector:
            self.speech.append(as_bool(self.detector.push(block), "what a detector returns"))
        emissions: list[Emission] = []
        while self.session or self._open():  # a stretch that ends may be followed by another one at once
            emissions += self._feed()
            end = self._find_end()
            if end is None:
                break
            emissions += self._close(*end)
        return emissions

    def _begin_gap(self, after_cut: bool) -> None:
        """Wait for speech from the first kept block on; ``after_cut``: the last stretch did not end with a pause."""
        self.session: Session | None = None
        self.ear: Source | None = None
        self.after_cut, self.fed = after_cut, 0
        if self.detector is None:
            self.speech, self.ear = [], self.fresh.translator.begin_source()
            self.ear.listen()
            self.ear.discard()

    def _open(self) -> bool:
        """Open a stretch if speech has lasted; in any case drop the samples before it."""
        self._listen()
        first = onset(self.speech, self.pause)
        lasting = sum(self.speech[first:]) >= SPEECH
        self._drop(max(0, first - 1))
        if lasting:
            self._begin_stretch()
        elif self.ear and self.ear.judge and len(self.ear.judge.speech) >= LISTENING and not any(self.speech):
            answers = self.speech
            self._begin_gap(self.after_cut)
            self.speech, self.fed = answers, len(answers)  # the new encoder starts with the first block not answered
        return lasting

    def _listen(self) -> None:
        """Let the encoder process the kept blocks that are new to it, and take its answers."""
        if self.ear and self.ear.judge:
            known = len(self.ear.judge.speech)
            self.ear.push(self._new_samples(), self.finished)
            self.fed = len(self.kept)
            self.speech += (self.ear.judge.speech[known:] > CERTAIN).tolist()

    def _begin_stretch(self) -> None:
        self.stretch, self.opened = self.stretch + 1, self.silence + self.start * BLOCK
        self.session, self.ear, self.fed = self.fresh.snapshot(), None, 0
        self.portion = self.segment
        self.written, self.decoded = False, None
        if self.bounded:
            self.session.source.listen()

    def _feed(self) -> list[Emission]:
        """Push the segments that are complete."""
        emissions: list[Emission] = []
        while self.session and len(self.kept) - self.fed >= self.portion:
            segment = np.concatenate(self.kept[self.fed : self.fed + self.portion])
            self.fed += self.portion
            emissions += self._in_stream(self.session.push(segment))
        return emissions

    def _find_end(self) -> tuple[int, bool] | None:
        """Return the kept block at which the stretch ended, and whether it was cut there without a pause."""
        judge = self.session.source.judge if self.session else None
        speech = self.speech if self.detector else (judge.speech > LIKELY).tolist() if judge else []
        if (place := first_pause(speech, self.pause, after=SPEECH)) is not None:
            return place, False
        if judge and (place := sentence_end(judge.ended, self.decoded)) is not None:
            return place, True
        return (len(self.kept), True) if len(self.kept) >= self.longest else None

    def _close(self, place: int, cut: bool) -> list[Emission]:
        """End the stretch: its session translates all samples so far, and the next one may begin at block ``place``."""
        emissions: list[Emission] = []
        rest = self.after_cut and not cut and place < REST  # the last sounds of the sentence that was cut
        if self.session and (self.written or not rest):
            emissions = self._in_stream(self.session.push(self._new_samples(), final=True))
        self._drop(place)
        self._begin_gap(cut)
        return emissions

    def _end(self) -> list[Emission]:
        """Translate what is left at the end of the recording."""
        emissions = self._feed() if self.session or self._open() else []
        return emissions + self._close(len(self.kept), cut=False)

    def _new_samples(self) -> np.ndarray:
        """Return the kept samples that the current encoder did not get; at the end of the recording, all others too."""
        return np.concatenate([*self.kept[self.fed :], self.tail if self.finished else self.tail[:0]])

    def _drop(self, blocks: int) -> None:
        """Drop the first kept blocks."""
        self.start += blocks
        self.fed = max(0, self.fed - blocks)
        self.kept, self.speech = self.kept[blocks:], self.speech[blocks:]

    def _in_stream(self, emissions: list[Emission]) -> list[Emission]:
        """Return emissions of the current stretch with their place in the stream."""
        self.written |= any(emission.text for emission in emissions)
        ends = [emission.states for emission in emissions if emission.sentence_ended]
        self.decoded = self.decoded or next(iter(ends), None)
        samples = self.silence + (self.start + len(self.kept)) * BLOCK + (len(self.tail) if self.finished else 0)
        heard, start = samples * 1000 / SAMPLE_RATE, self.opened * 1000 / SAMPLE_RATE
        return [replace(e, milliseconds=heard, stretch=self.stretch, start=start) for e in emissions]


def _checked(session: Session, segment: int) -> tuple[Session, int]:
    """Return a copy of a session for new stretches, and its blocks in a segment.

    Raises:
        ValueError: the session has samples, or the segment is not possible.
    """
    if not isinstance(session, Session) or session.source.samples or session.source.ended:
        raise ValueError("a long session needs another session without samples: give a new one")
    check_integer("the blocks of a segment", segment, 1)
    return session.snapshot(), int(segment)
