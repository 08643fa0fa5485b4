"""Translate recordings with any speech translation model, as ``fairseq-generate`` does with a prepared set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fairseq import checkpoint_utils, options, tasks, utils
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from torch import Tensor

from mla_fairseq.data.check import bins
from mla_fairseq.models.registration import register
from mla_fairseq.synthesis.speaker import check_device


class BatchTranslator:
    """A model, or an ensemble, with fairseq's beam search.

    Args:
        checkpoint: saved by fairseq-train; several, separated by colons, are an ensemble.
        data: the prepared folder of the model, with its dictionary and configuration.
        config_yaml: data configuration in ``data``.
        flags: more flags of fairseq-generate, such as ``("--beam", "5")``.
        device: a torch device.
        fp16: compute in half precision.

    Attributes:
        task: the task ``speech_to_text_mla``, set up for ``data``.
        bins: bins of the features of ``data``; ``None`` if they are not filter banks.
        longest: most frames (10 ms) of a recording that the models and the task accept.

    Raises:
        UserError: a file is missing or of another type, or a flag does not suit the model.
        ValueError: the device is not available.
    """

    def __init__(
        self,
        checkpoint: str,
        data: Path,
        config_yaml: str = "config_st.yaml",
        flags: Sequence[str] = (),
        device: str = "cpu",
        fp16: bool = False,
    ) -> None:
        register()
        check_device(device)
        words = [str(data), "--task", "speech_to_text_mla", "--config-yaml", config_yaml, "--path", checkpoint, *flags]
        parser = options.get_interactive_generation_parser()  # as fairseq-interactive: there are no references
        cfg = convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, words))
        self.task: Any = tasks.setup_task(cfg.task)
        self.models, _ = checkpoint_utils.load_model_ensemble(utils.split_paths(checkpoint), task=self.task)
        for model in self.models:
            model.prepare_for_inference_(cfg)
            model.to(device).half() if fp16 else model.to(device)
        self.generator = self.task.build_generator(self.models, cfg.generation)
        self.bpe, self.tokenizer = self.task.build_bpe(cfg.bpe), self.task.build_tokenizer(cfg.tokenizer)
        self.device, self.fp16 = device, fp16
        limits = [model.max_positions() for model in self.models]
        self.limits = utils.resolve_max_positions(self.task.max_positions(), *limits)
        self.bins = bins(self.task.data_cfg.config)
        self.longest: int = self.limits[0]

    def translate(self, features: Sequence[np.ndarray], max_tokens: int) -> list[str]:
        """Return the translations of features (frames, bins), in batches of at most ``max_tokens`` frames.

        The features are those before normalisation; a batch holds at least one recording.
        """
        if not features:
            return []
        dataset = self.task.build_dataset_for_inference(list(features), [len(one) for one in features])
        most = max(max_tokens, *map(len, features))
        batches = self.task.get_batch_iterator(dataset, max_tokens=most, max_positions=self.limits)
        texts: dict[int, str] = {}
        for batch in batches.next_epoch_itr(shuffle=False):
            batch = utils.apply_to_sample(self._moved, batch)
            hypotheses = self.task.inference_step(self.generator, self.models, batch)
            for index, (best, *_) in zip(batch["id"].tolist(), hypotheses, strict=True):
                texts[index] = self._text(best)
        return [texts[index] for index in range(len(features))]

    def _moved(self, tensor: Tensor) -> Tensor:
        """Return a tensor of a batch on the device of the models, in their precision."""
        return tensor.to(self.device).half() if self.fp16 and tensor.is_floating_point() else tensor.to(self.device)

    def _text(self, hypothesis: dict[str, Any]) -> str:
        """Return the text of a hypothesis, as ``fairseq-generate`` prints it in its lines D-."""
        ignored = self.generator.symbols_to_strip_from_output
        text = self.task.target_dictionary.string(hypothesis["tokens"].int().cpu(), extra_symbols_to_ignore=ignored)
        for coder in filter(None, (self.bpe, self.tokenizer)):
            text = coder.decode(text)
        return text
