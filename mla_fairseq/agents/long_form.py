"""The flags of agents for recordings of any length."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from typing import Any

from mla_fairseq.speech import SAMPLE_RATE
from mla_fairseq.streaming import Detector, LongSession, OfflineSession, Session
from mla_fairseq.streaming.detectors import BLOCK, DETECTOR_NAMES, named_detector

FLAGS = ("detector", "pause", "longest")
SEGMENT = 280  # ms, where no SimulEval has a flag for it


def add_long_form_args(parser: ArgumentParser) -> None:
    """Add ``--long-form`` and the flags that it needs."""
    help_ = "translate each stretch of speech in a recording of any length (default: a recording is one sentence)"
    parser.add_argument("--long-form", action="store_true", help=help_)
    parser.add_argument(
        "--detector",
        choices=DETECTOR_NAMES,
        help="what finds speech: its energy, silero-vad, or the boundary output of the model (default: boundary for "
        "models that have this output, else energy)",
    )
    parser.add_argument(
        "--pause", type=float, metavar="S", help="shortest pause that ends a stretch, in s (default: 0.16)"
    )
    parser.add_argument("--longest", type=float, metavar="S", help="longest stretch, in s (default: 30)")


@dataclass(frozen=True)
class LongForm:
    """What ``--long-form`` asks for.

    Attributes:
        detector: finds speech; its copies serve the recordings. ``None``: the choice of ``LongSession``.
        options: other arguments of ``LongSession``.
    """

    detector: Detector | None
    options: dict[str, Any]

    def begin(self, session: Session) -> LongSession:
        """Return a long session for the next recording.

        Raises:
            ValueError: a limit is not possible; the message names its flag.
        """
        try:
            return LongSession(session, self.detector and self.detector.fork(), **self.options)
        except ValueError as error:
            raise ValueError(f"--pause or --longest: {error}") from error


def long_form(args: Namespace, session: Session) -> LongForm | None:
    """Return what the flags ask for, for sessions like ``session``; ``None`` without ``--long-form``.

    Raises:
        ValueError: a flag without ``--long-form``, or a detector that needs another model.
        UserError: the packages of a detector are not installed.
    """
    given = {name: getattr(args, name) for name in FLAGS if getattr(args, name) is not None}
    if not args.long_form:
        if given:
            raise ValueError(f"--{next(iter(given))} has no effect without --long-form: add it, or remove the flag")
        return None
    detector = named_detector(given.pop("detector", None), session.translator.has_boundary)
    if isinstance(session, OfflineSession):  # it decodes again at each push: once per segment of SimulEval is enough
        given["segment"] = max(1, round(getattr(args, "source_segment_size", SEGMENT) * SAMPLE_RATE / 1000 / BLOCK))
    return LongForm(detector, given)
