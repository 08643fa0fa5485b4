"""The public names of ``mla_fairseq.speech``."""

from mla_fairseq.speech.audio import audio_length, load_audio, open_audio, read_audio, wav_bytes
from mla_fairseq.speech.features import NUM_BINS, FilterBankStream, GlobalCMVN, check_sample_rate, filter_banks
from mla_fairseq.speech.recordings import change_speed, changed_length, open_recording, read_segment
from mla_fairseq.speech.samples import SAMPLE_RATE, num_frames

__all__ = [
    "NUM_BINS",
    "SAMPLE_RATE",
    "FilterBankStream",
    "GlobalCMVN",
    "audio_length",
    "change_speed",
    "changed_length",
    "check_sample_rate",
    "filter_banks",
    "load_audio",
    "num_frames",
    "open_audio",
    "open_recording",
    "read_audio",
    "read_segment",
    "wav_bytes",
]
