"""fairseq's text-to-speech task on a data folder that may be moved, with an end for each utterance of a batch."""

from __future__ import annotations

import math
from argparse import ArgumentParser, Namespace
from typing import Any, ClassVar

import numpy as np
import torch
from fairseq.tasks import FairseqTask, register_task
from fairseq.tasks.text_to_speech import TextToSpeechTask

from mla_fairseq.data.spoken_text import WORD_END, SpokenText
from mla_fairseq.errors import UserError, user_errors
from mla_fairseq.synthesis.generator import Synthesizer
from mla_fairseq.synthesis.limits import Limits
from mla_fairseq.synthesis.vocoder import griffin_lim
from mla_fairseq.tasks.flags import SPEECH, refuse
from mla_fairseq.tasks.folder import FolderTask
from mla_fairseq.tasks.outputs import add_checks, known_arch


@register_task("text_to_speech_mla")
class TextToSpeechMLATask(FolderTask, TextToSpeechTask):
    """``--task text_to_speech_mla``: fairseq's ``text_to_speech``, with these differences.

    ``--max-target-positions`` limits spectrograms, in frames, and ``--max-source-positions`` texts, in symbols;
    fairseq applies the second to spectrograms. Each utterance of a batch ends separately, at the latest at
    ``--max-length-ratio`` times the length that the model expects.
    """

    command: ClassVar[str] = "mla-prepare-tts"
    needed: ClassVar[tuple[str, ...]] = ("features",)
    foreign: ClassVar[tuple[str, ...]] = ("s2t_", "convtransformer", "transformer_lm")
    word_end: ClassVar[str] = WORD_END

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Add fairseq's options and the limit of lengths."""
        with known_arch():
            TextToSpeechTask.add_args(parser)
        add_checks(parser)
        parser.add_argument(
            "--max-length-ratio",
            type=float,
            default=2.0,
            help="longest utterance as a multiple of the expected length, plus 10 decoder steps; 0, or a model without "
            "an expected length: limited by --max-target-positions only (default: 2)",
        )

    @classmethod
    def setup_task(cls, args: Namespace, **kwargs: Any) -> FairseqTask:
        """Set up the task as fairseq does.

        Raises:
            UserError: the folder or a checkpoint cannot be used, or an option is not supported.
        """
        if getattr(args, "eval_inference", False):
            raise UserError("--eval-inference is not supported, it needs torchaudio: remove it, use mla-synthesize")
        if not kwargs.get("from_checkpoint"):
            refuse(args, SPEECH, "text to speech")
        if hasattr(args, "beam") and not hasattr(args, "dump_waveforms"):  # fairseq's example for speech has both
            raise UserError("--task text_to_speech_mla is not supported in a command for text: use mla-synthesize")
        task = super().setup_task(args, **kwargs)
        if task.data_cfg.prepend_tgt_lang_tag:
            raise UserError("prepend_tgt_lang_tag is not supported in text to speech: remove it from the configuration")
        return task

    def symbols(self, texts: list[str]) -> list[list[str]]:
        """Convert new texts to symbols, as in the training set.

        Raises:
            ValueError: a folder of another tool, a text without symbols, or what ``SpokenText`` raises.
        """
        lines = SpokenText.from_config(self.data_cfg.config).symbols(texts)
        if empty := [text for text, line in zip(texts, lines, strict=True) if not line]:
            raise ValueError(f"a text has no symbol ({empty[0]!r}): remove it")
        return lines

    def max_positions(self) -> tuple[int, int]:
        """Return the limits as the dataset counts them: (frames, symbols)."""
        return self.args.max_target_positions, self.args.max_source_positions

    def build_generator(self, models: list[Any], cfg: Any, vocoder: Any = None, **unused: Any) -> Synthesizer:
        """Build a synthesizer with Griffin-Lim or another vocoder (frames (T, F) -> samples).

        Raises:
            UserError: a limit out of range.
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

    def build_default_vocoder(self) -> Any:
        """Return Griffin-Lim with the settings of the data.

        Raises:
            UserError: librosa is not installed.
        """
        return griffin_lim(self.data_cfg.config["features"])
