"""A trained text-to-spectrogram model with a vocoder: synthesises texts or a prepared set."""

from __future__ import annotations

import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from fairseq import utils
from torch import Tensor

from mla_fairseq.checkpoints import load_training
from mla_fairseq.files import as_path
from mla_fairseq.models.loading import load_model
from mla_fairseq.models.overrides import check_fixed
from mla_fairseq.models.registration import register
from mla_fairseq.synthesis.generator import Synthesizer
from mla_fairseq.synthesis.known import check_known


class Speaker:
    """A ``tts_transformer_mla`` model with the symbols and normalisation of its prepared data.

    Args:
        checkpoint: saved by fairseq-train; a stock ``tts_transformer`` is loaded as ``tts_transformer_mla``.
        data: prepared folder.
        config_yaml: data configuration in ``data``.
        overrides: options to change, such as ``max_length_ratio``.
        vocoder: converts log-mel frames (T, F) to samples (time,); ``None``: Griffin-Lim.
        teacher_forcing: decode each step from the recorded frames before it; for prepared sets only.
        device: a torch device.

    Attributes:
        checkpoint: the file, for error messages.
        features: the ``features`` settings of the data configuration.
        sample_rate: samples per second (Hz).
        seconds_per_frame: duration of a log-mel frame in seconds.
        seconds: time that synthesis has taken so far, without the loading of data.

    Raises:
        ValueError: the checkpoint or the device cannot be used.
        UserError: the prepared folder cannot be used.
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
        register()
        check_device(device)
        self.checkpoint, data = as_path(checkpoint, "the checkpoint"), as_path(data, "the data folder")
        _, name = load_training(self.checkpoint)
        if not name.startswith("tts_transformer"):
            raise ValueError(
                f"{checkpoint} has the architecture {name}, not tts_transformer or tts_transformer_mla: use another "
                "checkpoint"
            )
        options = {"data": str(data), "config_yaml": config_yaml, "task": "text_to_speech_mla"}
        model, self.task = load_model(self.checkpoint, options | check_fixed(overrides))
        self.model = model.eval().to(device)
        self.generator: Synthesizer = self.task.build_generator(
            [self.model], Namespace(teacher_forcing=teacher_forcing), vocoder
        )
        self.features: dict[str, object] = self.task.data_cfg.config["features"]
        self.sample_rate: int = self.features["sample_rate"]
        self.seconds_per_frame: float = self.features["hop_length"] / self.features["sample_rate"]
        self.seconds = 0.0

    def synthesize(self, texts: list[str], need_attn: bool = True, speaker: str | None = None) -> list[dict]:
        """Synthesise texts as one batch.

        Args:
            texts: the texts.
            need_attn: return attention weights as well.
            speaker: one of the speakers of the data; ``None`` if the data name no speakers.

        Returns:
            The dict of ``Synthesizer.generate`` for each text, with its ``symbols``. Symbols that the training set does
            not contain are replaced by the unknown symbol, with a warning.

        Raises:
            ValueError: a text has no known symbol or cannot be split into symbols, the speaker is unknown, or ``texts``
                is one text.
        """
        if isinstance(texts, str):
            raise ValueError(f"texts must be a list, but is one text ({texts[:40]!r}): write [text]")
        lines = self.task.symbols(texts)
        dictionary = self.task.source_dictionary
        check_known(texts, lines, dictionary, self.task.word_end)
        encoded = [dictionary.encode_line(" ".join(line), add_if_not_exist=False).long() for line in lines]
        tokens = torch.nn.utils.rnn.pad_sequence(encoded, batch_first=True, padding_value=dictionary.pad())
        sample = {"net_input": {"src_tokens": tokens, "src_lengths": tokens.ne(dictionary.pad()).sum(1)}}
        found = self._generate(sample | {"speaker": self._speaker_ids(speaker, len(texts))}, need_attn=need_attn)
        return [one | {"symbols": line} for one, line in zip(found, lines, strict=True)]

    def synthesize_all(
        self, texts: list[str], batch_size: int, need_attn: bool = True, speaker: str | None = None
    ) -> Iterator[dict]:
        """Yield the dict of ``synthesize`` for each text, in batches; it also has ``text`` and an ``id`` from 0001 on.

        Raises:
            ValueError: see ``synthesize``.
        """
        for start in range(0, len(texts), batch_size):
            batch = texts[start : start + batch_size]
            found = self.synthesize(batch, need_attn, speaker)
            for place, (text, one) in enumerate(zip(batch, found, strict=True), start + 1):
                yield one | {"id": f"{place:04d}", "text": text}

    def synthesize_set(self, subset: str, max_tokens: int, need_attn: bool = True) -> Iterator[dict]:
        """Yield the dict of ``synthesize`` for each utterance of a prepared set, in batches of ``max_tokens`` frames.

        Each dict also has the recorded ``targ_feature`` (T, F), ``id`` and ``text``.

        Raises:
            UserError: the set does not exist.
            ValueError: ``max_tokens`` is smaller than an utterance, or two utterances have the same id.
        """
        self.task.load_dataset(subset)
        dataset = self.task.dataset(subset)
        name, count = Counter(dataset.ids).most_common(1)[0]
        if count > 1:
            raise ValueError(f"{subset} has {count} utterances with the id {name}: synthesize one set at a time")
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
        """Return the texts of a prepared set.

        Raises:
            UserError: the set does not exist.
        """
        self.task.load_dataset(subset)
        return list(self.task.dataset(subset).src_texts)

    def ids(self, subset: str) -> list[str]:
        """Return the ids of a prepared set, which come from its manifest.

        Raises:
            UserError: the set does not exist.
        """
        self.task.load_dataset(subset)
        return list(self.task.dataset(subset).ids)

    def warm_up(self) -> None:
        """Call the vocoder once, so that the measured time does not include what it compiles or loads at first."""
        bins = self.model.decoder.out_dim // self.model.decoder.n_frames_per_step
        self.generator.speak(torch.zeros(16, bins))

    def _generate(self, sample: dict, **how: bool) -> list[dict]:
        device = next(self.model.parameters()).device
        began = time.perf_counter()
        sample = utils.apply_to_sample(lambda tensor: tensor.to(device), sample)
        try:
            found = self.generator.generate(self.model, sample, **how)  # returns when the device is done: it speaks too
        except ValueError as error:
            raise ValueError(f"{self.checkpoint}: {error}") from error
        self.seconds += time.perf_counter() - began
        return found

    def _speaker_ids(self, name: str | None, texts: int) -> Tensor | None:
        known = self.task.speaker_to_id
        if known is None and name is None:
            return None
        if name not in (known or {}):
            if not known:
                raise ValueError(f"--speaker is {name}, but the data name no speakers: remove it")
            raise ValueError(f"--speaker must be one of {', '.join(known)}, but is {name}")
        return torch.full((texts, 1), known[name])


def check_device(name: str) -> None:
    """Check that torch can use a device.

    Raises:
        ValueError: it cannot.
    """
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # unknown name, not compiled in, no kernels
        reason = str(error).partition("\n")[0]
        raise ValueError(f"--device is {name}, which torch cannot use ({reason}): use cpu") from error


def as_samples(waveform: Tensor) -> np.ndarray:
    """Return samples (time,), float32 in [-1, 1]; louder waveforms are scaled down, not clipped."""
    samples = waveform.detach().cpu().float().numpy()
    return samples / max(1.0, float(np.abs(samples).max(initial=0.0)))
