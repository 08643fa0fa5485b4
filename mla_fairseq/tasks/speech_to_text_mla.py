"""fairseq's speech-to-text task on a data folder that may be moved, with simultaneous decoding in batches."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from fairseq.data import Dictionary
from fairseq.sequence_scorer import SequenceScorer
from fairseq.tasks import register_task
from fairseq.tasks.speech_to_text import SpeechToTextTask
from torch import Tensor

from mla_fairseq.data import ctc_vocabulary
from mla_fairseq.data.check import bins
from mla_fairseq.errors import UserError, user_errors
from mla_fairseq.models.checks import check_length_rule
from mla_fairseq.models.ctc import SOURCE, ctc_texts, has_output
from mla_fairseq.models.language import check_same_symbols
from mla_fairseq.streaming.delays import Clock, longest
from mla_fairseq.streaming.policies import WaitKPolicy
from mla_fairseq.tasks.alignment import align, check_models
from mla_fairseq.tasks.ctc_decoding import JointSearch, add_ctc_args, check_joint
from mla_fairseq.tasks.diverging import finite_scores
from mla_fairseq.tasks.flags import check_prefix, check_symbols
from mla_fairseq.tasks.multilingual import MultilingualTask, add_language_args
from mla_fairseq.tasks.ngrams import RepeatedNGrams
from mla_fairseq.tasks.outputs import add_checks, known_arch
from mla_fairseq.tasks.recordings import Recordings, read_features
from mla_fairseq.tasks.references import References
from mla_fairseq.tasks.sets import check_transcripts
from mla_fairseq.tasks.simul_log import SimulLog
from mla_fairseq.tasks.simultaneous import check_greedy, cut, recorded_reads
from mla_fairseq.tasks.talks import add_talk_args, cut_from_talks
from mla_fairseq.tasks.transcripts import Transcripts, recorded


@register_task("speech_to_text_mla")
class SpeechToTextMLATask(MultilingualTask, SpeechToTextTask):
    """``--task speech_to_text_mla``: fairseq's ``speech_to_text``, with faults of the data reported in one line."""

    @classmethod
    def add_args(cls, parser: ArgumentParser) -> None:
        """Add fairseq's options and those of simultaneous decoding."""
        with known_arch():
            super().add_args(parser)
        add_checks(parser)
        parser.add_argument(
            "--simul-waitk-lagging",
            type=int,
            metavar="K",
            help="k of simultaneous decoding by wait-k, beam 1 (default: decode from the whole source)",
        )
        parser.add_argument(
            "--simul-log",
            metavar="FILE",
            help="log of words and delays in the format of SimulEval's instances.log; several processes "
            "write FILE.RANK each (default: no log)",
        )
        parser.add_argument(
            "--simul-segment-size",
            type=float,
            default=280,
            metavar="MS",
            help="audio that arrives at once, in ms; delays are multiples of it (default: 280)",
        )
        add_language_args(parser)
        add_talk_args(parser)
        add_ctc_args(parser)

    def __init__(self, args: Namespace, tgt_dict: Dictionary) -> None:
        super().__init__(args, tgt_dict)
        self.simul_log: SimulLog | None = None
        self.references: References | None = None
        self.alignment: str | None = None  # --print-alignment
        self.joint: JointSearch | None = None  # --ctc-decoding-weight

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs: Any) -> None:
        """Load a dataset as fairseq does; cut the sentences of a training set out of talks, if flags ask for it.

        Raises:
            UserError: the set cannot be used.
        """
        super().load_dataset(split, epoch=epoch, combine=combine, **kwargs)
        if self.evaluates:
            return
        if split.startswith("train") and SOURCE in ctc_texts(self.args):
            with user_errors():
                kernels = getattr(self.args, "conv_kernel_sizes", None) or "5,5"  # each convolution halves the frames
                check_transcripts(self.datasets[split], split, 2 ** len(kernels.split(",")))
        cut_from_talks(self.datasets[split], self.args)

    def transcript_symbols(self) -> str:
        """Return the characters of transcripts, for CTC.

        Raises:
            ValueError: the data folder has none.
        """
        return ctc_vocabulary.read(Path(self.args.data) / self.args.config_yaml, self.data_cfg.config)

    def build_generator(self, models: list[Any], args: Any, *more: Any, **kwargs: Any) -> Any:
        """Build fairseq's generator; with ``--simul-waitk-lagging`` wait-k models decode by wait-k.

        Its limits of the length do not count the tag of a target language.

        Raises:
            UserError: options or models that cannot decode simultaneously, a model without a target length, or no
                target language for a multilingual model.
        """
        args = self.with_prefix(args)
        log, lagging = getattr(self.args, "simul_log", None), getattr(self.args, "simul_waitk_lagging", None)
        if self.args.simul_segment_size <= 0:
            raise UserError(f"--simul-segment-size is not above 0 ms ({self.args.simul_segment_size}): increase it")
        if lagging is not None or log is not None:
            check_greedy(args, self.prefix_size)
        for model in models:
            with user_errors():
                check_length_rule(model)
            if lagging is not None:
                self.check_lagging(model, lagging)
        if log is not None:
            self.simul_log = self.start_log(Path(log), models)
        self.references = References.build(self.args, self.data_cfg, self.target_dictionary)
        self.alignment, args = getattr(args, "print_alignment", None), deepcopy(args)
        args.print_alignment = None  # fairseq's own alignment needs a source of tokens
        with user_errors(types=(ValueError, AssertionError)):  # fairseq checks some flags of the search by assertions
            check_joint(models, self.args, getattr(args, "score_reference", False))
            if self.alignment is not None:
                check_models(models)
            if hasattr(self.args, "buffer_size") and not self.data_cfg.prepend_tgt_lang_tag:
                check_prefix(args)
            check_symbols(args, self.target_dictionary)
            if lm := (kwargs.get("extra_gen_cls_kwargs") or {}).get("lm_model"):
                check_same_symbols(lm, self.target_dictionary.symbols)
            generator = super().build_generator(models, args, *more, **kwargs)
        if weight := getattr(self.args, "ctc_decoding_weight", None):
            self.joint = JointSearch(generator, models[0], weight, self.prefix_size)
        if (size := getattr(args, "no_repeat_ngram_size", 0)) > 0:
            generator.repeat_ngram_blocker = RepeatedNGrams(size)
        if self.prefix_size and not isinstance(generator, SequenceScorer):
            generator.min_len += self.prefix_size
            generator.max_len_b += self.prefix_size
        return generator

    def start_log(self, path: Path, models: list[Any]) -> SimulLog:
        """Start the log of a simultaneous decoding.

        Raises:
            UserError: the path is a folder, or the models have no delays to log.
        """
        decoder, encoder = getattr(models[0], "decoder", None), models[0].encoder
        if getattr(self.args, "simul_waitk_lagging", None) is None and getattr(decoder, "monotonic", None) is None:
            raise UserError("--simul-log has no delays to log for the whole source: add --simul-waitk-lagging K")
        if path.is_dir():
            raise UserError(f"--simul-log is a folder ({path}): name a file, such as {path / 'instances.log'}")
        if len(models) > 1:
            raise UserError(f"--simul-log is not supported for ensembles ({len(models)} models): give one --path")
        if not encoder.streams:
            raise UserError("--simul-log needs a chunked encoder: use a model trained with --encoder-chunk-size")
        if getattr(self.args, "distributed_world_size", 1) > 1:  # each process decodes a part of the set
            path = path.with_name(f"{path.name}.{self.args.distributed_rank}")
        clock = Clock(encoder.view.size, encoder.frames_before, self.args.simul_segment_size)
        with user_errors("--simul-log: ", (ValueError, OSError)):
            return SimulLog(path, self.target_dictionary, clock)

    def inference_step(
        self,
        generator: Any,
        models: list[Any],
        sample: dict[str, Any],
        prefix_tokens: Tensor | None = None,
        constraints: Tensor | None = None,
    ) -> Any:
        """Decode a batch as fairseq does, or simultaneously; add alignments, and references for the scorer.

        Raises:
            UserError: no target language for a multilingual model.
        """
        sample["net_input"] |= self.decoding_inputs(models, sample)
        scores = isinstance(generator, SequenceScorer)  # --score-reference decodes nothing
        if not scores:
            prefix_tokens = self.prefix_of(sample, prefix_tokens)
        with recorded(models) as outputs, finite_scores(sample, getattr(self.args, "path", None)):
            if self.joint is not None:
                self.joint.outputs = outputs
            found = super().inference_step(generator, models, sample, prefix_tokens, constraints)
        if not scores:
            self.finish_simultaneous(generator, models, sample, found)
            self.print_transcripts(models[0], sample, outputs)
        if self.alignment is not None:
            align(
                models, sample["net_input"], found, self.target_dictionary, self.alignment == "soft", self.prefix_size
            )
        if scores and self.prefix_size:
            self.leave_out_tags(sample, found)
        if self.references is not None and sample.get("target") is not None:
            texts = self.dataset(self.args.gen_subset).tgt_texts
            sample["target"] = self.references.tokens([texts[i] for i in sample["id"].tolist()])
        return found

    def leave_out_tags(self, sample: dict[str, Any], found: list[list[dict[str, Any]]]) -> None:
        """Remove the tags from scored references, because they are given: their scores are those of no token."""
        sample["target"] = sample["target"][:, self.prefix_size :]
        for (reference,) in found:
            for name in ("tokens", "positional_scores"):
                reference[name] = reference[name][self.prefix_size :]
            reference["score"] = reference["positional_scores"].mean()

    def print_transcripts(self, model: Any, sample: dict[str, Any], outputs: list[dict[str, Any]]) -> None:
        """Print what CTC has recognised in a batch, if ``fairseq-generate`` runs."""
        if Transcripts.current is not None and has_output(model, SOURCE):
            ids, sources = sample["id"].tolist(), self.dataset(self.args.gen_subset).src_texts
            texts = model.encoder.ctc.transcripts(outputs[0])
            Transcripts.current.add(ids, texts, [sources[number] for number in ids])

    def finish_simultaneous(
        self, generator: Any, models: list[Any], sample: dict[str, Any], found: list[list[dict[str, Any]]]
    ) -> None:
        """Limit the lengths of simultaneous hypotheses, and write the log."""
        lagging = getattr(self.args, "simul_waitk_lagging", None)
        if lagging is None and self.simul_log is None:
            return
        if lagging is None:
            rules = [recorded_reads(hypotheses[0], self.prefix_size) for hypotheses in found]
        else:
            rules = [WaitKPolicy(lagging, models[0].decoder.wait_k.ratio).required] * len(found)
        lengths, before = sample["net_input"]["src_lengths"].tolist(), models[0].encoder.frames_before
        indices = sample["id"].tolist() if "id" in sample else range(len(found))  # fairseq-interactive has no ids
        for index, frames, hypotheses, reads in zip(indices, lengths, found, rules, strict=True):
            most = longest(reads, before, frames, generator.max_len_a, generator.max_len_b - self.prefix_size)
            cut(hypotheses[0], most + self.prefix_size)
            if self.simul_log is not None:
                dataset, tokens = self.dataset(self.args.gen_subset), hypotheses[0]["tokens"].tolist()
                tokens = [token for token in tokens[self.prefix_size :] if token != self.target_dictionary.eos()]
                self.simul_log.add(index, tokens, reads, frames, dataset.tgt_texts[index], dataset.audio_paths[index])

    def get_interactive_tokens_and_lengths(self, lines: Sequence[str], encode_fn: Any) -> tuple[list, list[int]]:
        """Return features (frames, bins) of sources of ``fairseq-interactive``, and their lengths in frames.

        A source is the name of an audio file or of an array (.npy), or a place in an archive (archive:offset:length).

        Raises:
            UserError: a source cannot be used, or is longer than ``--max-source-positions``.
        """
        most = self.args.max_source_positions
        with user_errors():
            features = [read_features(line, bins(self.data_cfg.config)) for line in lines]
        lengths = [len(one) for one in features]
        for line, length in zip(lines, lengths, strict=True):
            if length > most:
                raise UserError(f"{line} has {length} frames of at most {most}: use mla-translate, which cuts it")
        return features, lengths

    def build_dataset_for_inference(self, src_tokens: list, src_lengths: list[int], **kwargs: Any) -> Recordings:
        """Return a dataset of features (frames, bins), for ``fairseq-interactive`` and ``mla-translate``."""
        return Recordings("interactive", False, self.data_cfg, src_tokens, src_lengths)

    def decoding_inputs(self, models: Sequence[Any], sample: dict[str, Any]) -> dict[str, Any]:
        """Return extra inputs of the models' decoders for a batch: k of wait-k, and the lengths of the references.

        Raises:
            UserError: ``--target-length oracle``, but the set has no references.
        """
        decoders = [model.decoder for model in models if hasattr(model, "decoder")]
        inputs: dict[str, Any] = {}
        if any(getattr(decoder, "wait_k", None) is not None for decoder in decoders):
            inputs["waitk_lagging"] = getattr(self.args, "simul_waitk_lagging", None)  # None: the whole source
        rules = filter(None, (getattr(decoder, "length_rule", None) for decoder in decoders))
        if any(rule.options.target_length == "oracle" for rule in rules):
            if sample.get("target") is None:
                raise UserError("--target-length oracle needs references, and the set has none: use ratio or fixed")
            inputs["target_lengths"] = sample["target"].ne(self.target_dictionary.pad()).sum(1) - self.prefix_size
        return inputs

    @staticmethod
    def check_lagging(model: Any, lagging: int) -> None:
        """Check that a model can decode with this k.

        Raises:
            UserError: it cannot.
        """
        with user_errors(f"--simul-waitk-lagging {lagging}: "):
            if not hasattr(model, "check_lagging"):
                raise ValueError(f"the model has no wait-k policy ({type(model).__name__}): use a simultaneous model")
            model.check_lagging(lagging)
