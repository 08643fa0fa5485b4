"""The steps of a trained speech translation model, and what a runtime must know about them."""

from __future__ import annotations

import copy
from typing import Any

from mla_fairseq.attention import AttentionHeads, MonotonicMultiheadAttention
from mla_fairseq.edge.attention import CrossSite
from mla_fairseq.edge.decoder import DecoderStep
from mla_fairseq.edge.encoder import EncoderStep
from mla_fairseq.edge.frontend import FrontEnd
from mla_fairseq.edge.monotonic import MonotonicSite
from mla_fairseq.edge.reader import ReaderStep
from mla_fairseq.edge.runtime.names import SPEECH_TO_TEXT
from mla_fairseq.edge.softmax import BufferedSoftmax
from mla_fairseq.edge.step import Step
from mla_fairseq.speech.features import NUM_BINS
from mla_fairseq.speech.samples import SAMPLE_RATE, SHIFT
from mla_fairseq.streaming.search import GREEDY, SearchOptions
from mla_fairseq.streaming.translator import Translator


class SpeechSteps:
    """The steps of a model, sharing its parameters.

    Args:
        translator: a model with a chunked encoder; it is copied.
        longest: longest speech in seconds, for which buffers of softmax attention have room.
        options: beam and limits of the target.

    Attributes:
        steps: the steps by name, which is that of their graph.
        config: the content of ``config.json``, without its files.

    Raises:
        ValueError: the model cannot run step by step with static shapes.
    """

    def __init__(self, translator: Translator, longest: float = 30.0, options: SearchOptions = GREEDY) -> None:
        model = copy.deepcopy(translator.model).eval().requires_grad_(False)
        model.encoder.ctc = None  # graphs have no CTC outputs
        frames = round(longest * SAMPLE_RATE / SHIFT)
        self.translator, self.longest, self.options = translator, longest, options
        frames_per_state = 2 ** len(model.encoder.subsample.kernel_sizes)
        encoder = EncoderStep(model.encoder, NUM_BINS, -(-frames // frames_per_state))
        self.states = -(-frames // encoder.frames_per_state // encoder.chunk) * encoder.chunk
        self.tokens = options.longest(frames) + model.decoder.prefix_size + 1
        sites = [cross_site(layer.encoder_attn, self.states, encoder.chunk) for layer in model.decoder.layers]
        reader = ReaderStep(model.decoder, sites, encoder.chunk, encoder.channels)
        decoder = DecoderStep(model.decoder, sites, reader.fresh, self.tokens, options.beam)
        frontend = FrontEnd(encoder.window, translator.normalisation.mean, translator.normalisation.std)
        self.encoder, self.reader, self.decoder = encoder, reader, decoder
        self.steps: dict[str, Step] = {"frontend": frontend, "encoder": encoder, "reader": reader, "decoder": decoder}
        self.config = self._config(encoder, decoder)

    def _config(self, encoder: EncoderStep, decoder: DecoderStep) -> dict[str, Any]:
        dictionary, options, boundary = self.translator.dictionary, self.options, encoder.encoder.boundary
        return {
            "type": SPEECH_TO_TEXT,
            "sample_rate": SAMPLE_RATE,
            "chunk": encoder.chunk,
            "window": encoder.window,
            "ahead": encoder.ahead,
            "lead": encoder.lead,
            "padding": encoder.padding,
            "frames_per_state": encoder.frames_per_state,
            "policy": self._policy(),
            "beam": options.beam,
            "lenpen": options.lenpen,
            "max_len_a": options.max_len_a,
            "max_len_b": options.max_len_b,
            "eos": dictionary.eos(),
            "pad": dictionary.pad(),
            "unk": dictionary.unk(),
            "forced": {language: self.translator.forced(language) for language in self.translator.languages},
            "boundary": boundary and {"back": boundary.back, "ahead": boundary.ahead},
            "capacity": {
                "source": self.states if _buffered(encoder) or _buffered(decoder.cross) else None,
                "target": self.tokens if _buffered(decoder.own) else None,
            },
            "longest": self.longest,
        }

    def _policy(self) -> dict[str, Any]:
        wait_k = self.translator.wait_k
        if wait_k is None:
            return {"type": "monotonic" if self.translator.model.decoder.monotonic else "any"}
        return {"type": "waitk", "lagging": [wait_k.lowest, wait_k.highest], "ratio": wait_k.ratio}


def cross_site(attention: AttentionHeads, capacity: int, new: int) -> CrossSite | MonotonicSite:
    """Return the site of a cross-attention; see ``Site`` for the arguments."""
    if isinstance(attention, MonotonicMultiheadAttention):
        return MonotonicSite(attention, capacity, new)
    return CrossSite(attention, capacity, new)


def _buffered(module: Any) -> bool:
    """Return whether a part of a model has a buffer."""
    return any(
        (isinstance(part, BufferedSoftmax) and part.capacity) or isinstance(part, MonotonicSite)
        for part in module.modules()
    )
