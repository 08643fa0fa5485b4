"""A trained text-to-spectrogram model and what speaks for it: from texts, or from a prepared set, to waveforms."""

from __future__ import annotations

import logging
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from fairseq import checkpoint_utils, utils
from torch import Tensor

from mla_fairseq.checkpoints import load_training
from mla_fairseq.synthesis.generator import Synthesizer

log = logging.getLogger(__name__)


class Speaker:
    """``tts_transformer_mla`` with a data folder's symbols and normalisation.

    Args:
        checkpoint: that fairseq-train saved; a stock ``tts_transformer`` is read as ours.
        data: prepared folder.
        config_yaml: data configuration in it.
        overrides: options to change, such as ``max_length_ratio``.
        vocoder: log-mel frames (T, F) -> samples (time,); ``None``: Griffin-Lim.
        teacher_forcing: write each step upon the recorded ones; for prepared sets only.
        device: of torch.

    ``seconds`` counts what speaking took so far, reading of data left out.

    Raises:
        ValueError, UserError: a checkpoint, a folder or a device that cannot be used.
    """

    def __init__(
        self,
        checkpoint: Path,
        data: Path,
        config_yaml: str = "config.yaml",
        overrides: dict[str, object] | None = None,
        vocoder: Callable[[Tensor], Tensor] | None = None,
        teacher_forcing: bool = False,
        device: str = "cpu",
    ) -> None:
        check_device(device)
        _, name = load_training(Path(checkpoint))
        if not name.startswith("tts_transformer"):
            raise ValueError(
                f"{checkpoint} is of the architecture {name}, not of tts_transformer_mla: take another one"
            )
        mine = {} if "mla" in name else {"_name": "tts_transformer_mla"}
        options = {
            "data": str(data),
            "config_yaml": config_yaml,
            "task": "text_to_speech_mla",
            **mine,
            **(overrides or {}),
        }
        models, _, self.task = checkpoint_utils.load_model_ensemble_and_task([str(checkpoint)], arg_overrides=options)
        self.model = models[0].eval().to(device)
        self.generator: Synthesizer = self.task.build_generator(
            models, Namespace(teacher_forcing=teacher_forcing), vocoder
        )
        self.features: dict[str, object] = self.task.data_cfg.config["features"]
        self.sample_rate: int = self.features["sample_rate"]
        self.seconds_per_frame: float = self.features["hop_length"] / self.features["sample_rate"]
        self.seconds = 0.0

    def say(self, texts: list[str], need_attn: bool = True, voice: str | None = None) -> list[dict]:
        """What ``Synthesizer.generate`` gives of each text, and its ``symbols``.

        ``voice`` is one of the data's speakers, where they name any. Symbols that the training set had not are read as
        unknown, with a warning.

        Raises:
            ValueError: a text of which no symbol is known, a speaker that is none, or what the task's ``symbols``
                raises.
        """
        lines = self.task.symbols(texts)
        dictionary = self.task.source_dictionary
        self._check_known(texts, lines)
        encoded = [dictionary.encode_line(" ".join(line), add_if_not_exist=False).long() for line in lines]
        tokens = torch.nn.utils.rnn.pad_sequence(encoded, batch_first=True, padding_value=dictionary.pad())
        sample = {"net_input": {"src_tokens": tokens, "src_lengths": tokens.ne(dictionary.pad()).sum(1)}}
        found = self._generate(sample | {"speaker": self._voice(voice, len(texts))}, need_attn=need_attn)
        return [one | {"symbols": line} for one, line in zip(found, lines, strict=True)]

    def say_set(self, subset: str, max_tokens: int, need_attn: bool = True) -> Iterator[dict]:
        """The same for each utterance of a prepared set, with the recorded ``targ_feature``, ``id`` and ``text``.

        Raises:
            UserError: there is no such set.
            ValueError: a batch smaller than an utterance.
        """
        self.task.load_dataset(subset)
        dataset = self.task.dataset(subset)
        longest = max(dataset.num_tokens(place) for place in range(len(dataset)))
        if max_tokens < longest:
            raise ValueError(
                f"--max-tokens is {max_tokens}, but an utterance of {subset} has {longest} frames: raise it"
            )
        batches = self.task.get_batch_iterator(dataset, max_tokens=max_tokens)
        for batch in batches.next_epoch_itr(shuffle=False):
            found = self._generate(batch, need_attn=need_attn)
            recorded = self.generator.targets(self.model, batch)
            rows = zip(batch["id"].tolist(), found, recorded, batch["src_texts"], strict=True)
            for place, one, true, symbols in rows:
                known = {"id": dataset.ids[place], "text": dataset.src_texts[place], "symbols": symbols.split()}
                yield one | known | {"targ_feature": true}

    def texts(self, subset: str) -> list[str]:
        """What is said in a prepared set.

        Raises:
            UserError: there is no such set.
        """
        self.task.load_dataset(subset)
        return list(self.task.dataset(subset).src_texts)

    def warm_up(self) -> None:
        """One call of the vocoder: what it compiles or loads at the first one is then no part of a measured time."""
        bins = self.model.decoder.out_dim // self.model.decoder.n_frames_per_step
        self.generator.speak(torch.zeros(16, bins))

    def _generate(self, sample: dict, **how: bool) -> list[dict]:
        device = next(self.model.parameters()).device
        began = time.perf_counter()
        sample = utils.apply_to_sample(lambda tensor: tensor.to(device), sample)
        found = self.generator.generate(self.model, sample, **how)  # the vocoder has waited for the device
        self.seconds += time.perf_counter() - began
        return found

    def _voice(self, name: str | None, texts: int) -> Tensor | None:
        known = self.task.speaker_to_id
        if known is None and name is None:
            return None
        if name not in (known or {}):
            there = f"must be one of {', '.join(known)}" if known else "is nothing for data that name no speakers"
            raise ValueError(f"--speaker {there}, but is {name}")
        return torch.full((texts, 1), known[name])

    def _check_known(self, texts: list[str], lines: list[list[str]]) -> None:
        strange: set[str] = set()
        for text, line in zip(texts, lines, strict=True):
            unknown = {symbol for symbol in line if symbol not in self.task.source_dictionary}
            if unknown >= set(line) - {self.task.word_end}:
                raise ValueError(f"the model knows no symbol of {text!r}: was it trained on another language?")
            strange |= unknown
        if strange:
            log.warning("read as unknown, for the training set has none of them: %s", " ".join(sorted(strange)))


def check_device(name: str) -> None:
    """Raises ValueError for a device that torch does not have here."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # unknown name, not compiled in, no kernels
        reason = str(error).partition("\n")[0]
        raise ValueError(f"--device is {name}, which torch cannot use here ({reason}): take cpu") from error


def as_samples(waveform: Tensor) -> np.ndarray:
    """(time,) float32 in [-1, 1]: louder is scaled down, not cut."""
    samples = waveform.detach().cpu().float().numpy()
    return samples / max(1.0, float(np.abs(samples).max(initial=0.0)))
