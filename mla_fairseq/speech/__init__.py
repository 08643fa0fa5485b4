"""Speech: reading audio, filter banks, normalization. Imports no sibling package."""

from mla_fairseq.speech.audio import audio_length, load_audio, open_audio, read_audio, wav_bytes
from mla_fairseq.speech.features import (
    NUM_BINS,
    SAMPLE_RATE,
    FilterBankStream,
    GlobalCMVN,
    check_sample_rate,
    filter_banks,
    num_frames,
)

__all__ = [
    "NUM_BINS",
    "SAMPLE_RATE",
    "FilterBankStream",
    "GlobalCMVN",
    "audio_length",
    "check_sample_rate",
    "filter_banks",
    "load_audio",
    "num_frames",
    "open_audio",
    "read_audio",
    "wav_bytes",
]
