"""The messages of a client, checked: nothing in them is trusted.

A client sends JSON texts and audio: first ``{"sample_rate": 48000}``, also with ``policy``, ``number`` and
``tgt_lang``; then int16 samples in binary messages; at any time the other keys again, for the next stretches of speech;
last ``{"end": true}``. A missing key, or null, stands for the default of the server, later for the choice before.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mla_fairseq.parsing import parse_json

CHOICE = ("policy", "number", "tgt_lang")
"""Keys of what a client may choose."""

LARGEST = 64 * 1024
"""Bytes in a message."""

DONE, GONE, REFUSED, FAILED, FULL = 1000, 1001, 1008, 1011, 1013
"""Codes that close a WebSocket: end of the stream, end of the server, a wrong client, a fault here, no free place."""

LOWEST_RATE, HIGHEST_RATE = 8_000, 192_000
"""Sample rates in Hz: a lower one would make many samples of few, without any speech in them."""


class Refusal(ValueError):
    """A client's mistake, or a server without a free place: the message, and the code that closes the socket."""

    def __init__(self, message: str, code: int = REFUSED) -> None:
        super().__init__(message)
        self.code = code


def short(value: object) -> str:
    """Return how an error shows a value, which may be long."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def check_size(message: str | bytes) -> None:
    """Check the size of a message.

    Raises:
        Refusal: it is too large.
    """
    if (size := len(message)) > LARGEST:
        raise Refusal(f"the message is too large ({size} bytes): send at most {LARGEST}, such as 2048 samples")


def parse_text(message: str, first: bool) -> dict[str, Any]:
    """Return the values in a text message; ``first``: it is the first message of the client.

    Raises:
        Refusal: it is not a JSON object, or has other keys than such a message.
    """
    try:
        values = parse_json(message)
    except ValueError as error:
        raise Refusal(f'the message is not JSON ({error}): send an object such as {{"end": true}}') from error
    if not isinstance(values, dict):
        raise Refusal(f'the message is not a JSON object ({short(values)}): send one such as {{"end": true}}')
    known = [*CHOICE, "sample_rate" if first else "end"]
    if unknown := [key for key in values if key not in known]:
        where = "the first message" if first else "a later message"
        raise Refusal(f"{short(unknown[0])} is no key of {where}: use {', '.join(known)}")
    return values


def parse_sample_rate(values: dict[str, Any]) -> int:
    """Return the sample rate in the first message, in Hz.

    Raises:
        Refusal: it is missing, or no whole number in the range.
    """
    rate = values.get("sample_rate")
    if isinstance(rate, int | float) and LOWEST_RATE <= rate <= HIGHEST_RATE and rate == int(rate):  # false for NaN
        return int(rate)
    given = "is missing" if rate is None else f"is {short(rate)}"
    raise Refusal(f"sample_rate {given}: send a whole number of Hz from {LOWEST_RATE} to {HIGHEST_RATE}")


def is_end(values: dict[str, Any]) -> bool:
    """Return whether a message after the first one ends the stream.

    Raises:
        Refusal: ``end`` is something other than true or false.
    """
    end = values.get("end", False)
    if not isinstance(end, bool):
        raise Refusal(f"end is {short(end)}: send true")
    return end


def parse_audio(message: bytes) -> np.ndarray:
    """Return the samples (N,) int16 of a binary message.

    Raises:
        Refusal: half of a sample is missing.
    """
    if len(message) % 2:
        raise Refusal(f"the audio has {len(message)} bytes, which are no int16 samples: send two bytes for each")
    return np.frombuffer(message, "<i2")
