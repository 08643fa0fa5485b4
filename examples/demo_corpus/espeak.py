"""Call espeak-ng's C library to speak a text (its speak_lib.h; the wheel ``espeakng-loader`` contains it).

The library has one global state per process, and its samples depend slightly on earlier calls (the phase of the voice
continues). A new process gives the same samples every time, so ``corpus`` starts one for each talk.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache

import numpy as np

from mla_fairseq.errors import install

# speak_lib.h
SYNCHRONOUS, DONT_EXIT, UTF8, BY_CHARACTER = 2, 0x8000, 1, 1
RATE, PITCH = 1, 3  # words per minute, 0 to 100
OK = 0
SEED = 1
BUFFER = 1000  # milliseconds per call of the callback
LONGEST_PATH = 160  # its buffer for the data folder, measured with 1.52; a longer path is ignored without a message
CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
SYNTH = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint)


@dataclass(frozen=True)
class Voice:
    """A voice of espeak-ng, optionally with a variant (``gmw/en-US+f2``), with pitch and rate."""

    name: str
    pitch: int = 50  # 0 to 100
    rate: int = 175  # words per minute


def locate() -> tuple[str, str]:
    """Return the paths of the library and of its data.

    Raises:
        ValueError: they are not installed, or the path is too long for the library.
    """
    try:
        import espeakng_loader
    except ImportError as error:
        raise ValueError(f"espeakng-loader is not installed: {install('demo')}") from error
    data = espeakng_loader.get_data_path()
    if len(data.encode()) >= LONGEST_PATH:
        raise ValueError(
            f"espeak-ng cannot read its data in {data}: it takes paths of less than {LONGEST_PATH} bytes, "
            f"so install in a folder whose path is at least {len(data.encode()) - LONGEST_PATH + 1} bytes shorter"
        )
    return espeakng_loader.get_library_path(), data


class Espeak:
    """The speech synthesiser; ``sample_rate`` is in Hz. Make one per process.

    Raises:
        ValueError: see ``locate``.
    """

    def __init__(self) -> None:
        library, data = locate()
        self._library = ctypes.CDLL(library)
        self._library.espeak_Synth.argtypes = (*SYNTH, ctypes.c_void_p, ctypes.c_void_p)
        self.sample_rate = self._library.espeak_Initialize(SYNCHRONOUS, BUFFER, data.encode(), DONT_EXIT)
        if self.sample_rate <= 0:
            raise ValueError(f"espeak-ng cannot read its data in {data}: install espeakng-loader again")
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(SEED))  # of breath and roughness; without it the clock
        self._voice = ""
        self._chunks: list[np.ndarray] = []
        self._callback = CALLBACK(self._collect)  # kept: the library holds only its address
        self._library.espeak_SetSynthCallback(self._callback)

    def _collect(self, samples, count: int, events) -> int:
        if samples and count > 0:
            # copied: the library writes its next samples to the same place
            self._chunks.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        return OK

    def _load(self, name: str) -> None:
        if name == self._voice:
            return
        if self._library.espeak_SetVoiceByName(name.encode()) != OK:
            raise ValueError(f"espeak-ng has no voice {name!r}: see `voices` and `lang` in its data folder")
        self._voice = name

    def say(self, text: str, voice: Voice) -> np.ndarray:
        """Speak a text; return int16 samples (time,).

        Raises:
            ValueError: the voice is unknown, or the text has no speech.
        """
        self._load(voice.name)
        self._library.espeak_SetParameter(RATE, voice.rate, 0)
        self._library.espeak_SetParameter(PITCH, voice.pitch, 0)
        self._chunks.clear()
        data = text.encode("utf-8") + b"\0"
        result = self._library.espeak_Synth(data, len(data), 0, BY_CHARACTER, 0, UTF8, None, None)
        if result != OK or not self._chunks:
            raise ValueError(f"espeak-ng cannot speak a text ({text!r}, code {result}): remove it")
        return np.concatenate(self._chunks)


@cache
def engine() -> Espeak:
    """Return this process's synthesiser."""
    return Espeak()
