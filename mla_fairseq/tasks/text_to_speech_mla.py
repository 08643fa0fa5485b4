"""fairseq's text-to-speech task on a data folder that may be moved, with a generator that ends every utterance."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from fairseq.tasks import register_task
from fairseq.tasks.text_to_speech import TextToSpeechTask

from mla_fairseq.data.spoken_text import WORD_END, SpokenText
from mla_fairseq.errors import UserError, user_errors
from mla_fairseq.synthesis.generator import Limits, Synthesizer
from mla_fairseq.synthesis.vocoder import griffin_lim
from mla_fairseq.tasks.folder import FolderTask


@register_task("text_to_speech_mla")
class TextToSpeechMLATask(FolderTask, TextToSpeechTask):
    """``--task text_to_speech_mla``: fairseq's ``text_to_speech``, with these differences.

    ``--max-target-positions`` is the longest spectrogram in frames and ``--max-source-positions`` the longest text in
    symbols; fairseq measures spectrograms by the second. In a batch every utterance stops at its own end, and at the
    latest at ``--max-length-ratio`` times the length that the model expects.
    """

    script: ClassVar[str] = "scripts/prep_ljspeech.py"
    word_end: ClassVar[str] = WORD_END

    @staticmethod
    def add_args(parser) -> None:
        """fairseq's flags, and the limit of lengths."""
        TextToSpeechTask.add_args(parser)
        parser.add_argument(
            "--max-length-ratio",
            type=float,
            default=2.0,
            help="synthesis ends at the latest at so many times the expected length and 10 decoder steps, where the "
            "model knows one; 0: at --max-target-positions alone (default: 2)",
        )

    @classmethod
    def setup_task(cls, args, **kwargs):
        """As fairseq's. Raises UserError for what the folder, a checkpoint or the flags lack."""
        if getattr(args, "eval_inference", False):
            raise UserError("--eval-inference needs torchaudio: leave it out, and score with scripts/synthesize.py")
        return super().setup_task(args, **kwargs)

    def __init__(self, args, src_dict) -> None:
        super().__init__(args, src_dict)
        self.state.merge_state_dict({"symbols": list(src_dict.symbols)})  # checkpoints keep it

    def load_state_dict(self, state_dict: dict) -> None:
        """As fairseq's. Raises UserError for a checkpoint of other symbols, which would speak others than it reads."""
        theirs = state_dict.get("symbols", mine := list(self.source_dictionary.symbols))
        if theirs != mine:
            raise UserError(
                f"{self.args.data} has other symbols, or in another order, than the data that the checkpoint learnt "
                "from: take that folder, or prepare it with the same clips and options"
            )
        super().load_state_dict(state_dict)

    def symbols(self, texts: list[str]) -> list[list[str]]:
        """The symbols of new texts, made as those of the training set were.

        Raises:
            ValueError: a folder of another tool, a text of which no symbol is left, or what ``SpokenText`` raises.
        """
        lines = SpokenText.from_config(self.data_cfg.config).symbols(texts)
        if none := next((text for text, line in zip(texts, lines, strict=True) if not line), None):
            raise ValueError(f"there is nothing to say in {none!r}")
        return lines

    def max_positions(self) -> tuple[int, int]:
        """Of (frames, symbols), as the dataset counts them."""
        return self.args.max_target_positions, self.args.max_source_positions

    def build_generator(self, models, cfg, vocoder=None, **unused) -> Synthesizer:
        """A synthesizer with Griffin-Lim or another vocoder (frames (T, F) -> samples).

        Raises UserError for limits that are none.
        """
        per_step = models[0].decoder.n_frames_per_step
        with user_errors():
            limits = Limits(
                threshold=self.args.eos_prob_threshold,
                max_steps=math.ceil(self.args.max_target_positions / per_step),
                max_ratio=self.args.max_length_ratio,
            )
        mean = std = None
        if (path := self.data_cfg.global_cmvn_stats_npz) is not None:
            with np.load(path) as stats:
                mean, std = (torch.from_numpy(stats[key]).float() for key in ("mean", "std"))
        vocoder = vocoder or self.build_default_vocoder()
        return Synthesizer(models, vocoder, limits, mean, std, bool(getattr(cfg, "teacher_forcing", False)))

    def build_default_vocoder(self):
        """Return Griffin-Lim with the settings of the data. Raises UserError without librosa."""
        return griffin_lim(self.data_cfg.config["features"])
