"""fairseq's speech-to-text task on a data folder that may be moved, and what simultaneous decoding adds to it."""

from __future__ import annotations

from pathlib import Path

import torch
from fairseq.tasks import register_task
from fairseq.tasks.speech_to_text import SpeechToTextTask

from mla_fairseq.errors import UserError, user_errors
from mla_fairseq.models.checks import check_length_rule
from mla_fairseq.streaming.delays import Clock, Reads, longest
from mla_fairseq.streaming.policies import WaitKPolicy
from mla_fairseq.tasks.folder import FolderTask
from mla_fairseq.tasks.simul_log import SimulLog


@register_task("speech_to_text_mla")
class SpeechToTextMLATask(FolderTask, SpeechToTextTask):
    """`--task speech_to_text_mla`: fairseq's `speech_to_text` on such a folder, with its faults told in one line."""

    @classmethod
    def add_args(cls, parser) -> None:
        """fairseq's flags, and those of simultaneous decoding in batches."""
        super().add_args(parser)
        parser.add_argument(
            "--simul-waitk-lagging",
            type=int,
            metavar="K",
            help="decode by wait-k, as the agent would, beam 1 (default: with the whole source)",
        )
        parser.add_argument(
            "--simul-log",
            metavar="FILE",
            help="write words and delays here, as SimulEval's instances.log (wait-k and monotonic models)",
        )
        parser.add_argument(
            "--simul-segment-size",
            type=float,
            default=280,
            metavar="MS",
            help="audio that comes at once, in ms: delays are counted in such steps (default: 280)",
        )

    def __init__(self, args, tgt_dict) -> None:
        super().__init__(args, tgt_dict)
        self.simul_log: SimulLog | None = None

    def build_generator(self, models, args, *more, **kwargs):
        """As fairseq's; wait-k models decode by wait-k if that was asked for, else with the whole source.

        Raises UserError for a model or a beam that cannot.
        """
        lagging = getattr(self.args, "simul_waitk_lagging", None)
        log = getattr(self.args, "simul_log", None)
        decoder = getattr(models[0], "decoder", None)
        if log is not None and lagging is None and getattr(decoder, "monotonic", None) is None:
            raise UserError("--simul-log needs --simul-waitk-lagging: with the whole source there are no delays")
        if (lagging is not None or log is not None) and getattr(args, "beam", 1) != 1:
            raise UserError(f"--beam is {args.beam}, but words that are out cannot be taken back: decode with --beam 1")
        for option in ("sampling", "prefix_size", "unkpen", "diverse_beam_groups"):
            if (lagging is not None or log is not None) and (getattr(args, option, None) or 0) > 0:
                raise UserError(f"--{option.replace('_', '-')} is nothing that an agent does: leave it out")
        if self.args.simul_segment_size <= 0:
            raise UserError(f"--simul-segment-size must be above 0 ms, but is {self.args.simul_segment_size}")
        if log is not None and Path(log).is_dir():
            raise UserError(f"--simul-log {log} is a folder: name a file, such as {Path(log) / 'instances.log'}")
        if log is not None and len(models) > 1:
            raise UserError("--simul-log needs a single model: several have delays of their own")
        for model in models:
            with user_errors():
                check_length_rule(model)
            if lagging is not None:
                self.check_lagging(model, lagging)
        if log is not None:
            encoder = models[0].encoder
            if not encoder.streams:
                raise UserError("--simul-log needs a model that streams: train one with --encoder-chunk-size")
            clock = Clock(encoder.view.size, encoder.frames_before, self.args.simul_segment_size)
            self.simul_log = SimulLog(Path(log), self.target_dictionary, clock)
        return super().build_generator(models, args, *more, **kwargs)

    def inference_step(self, generator, models, sample, *more, **kwargs):
        """As fairseq's; simultaneously every sentence has its own longest length, and the log is written on the way."""
        sample["net_input"] |= self.decoding_inputs(models, sample)
        found = super().inference_step(generator, models, sample, *more, **kwargs)
        lagging = getattr(self.args, "simul_waitk_lagging", None)
        if lagging is None and self.simul_log is None:
            return found
        if lagging is None:
            rules = [recorded_reads(hypotheses[0]) for hypotheses in found]
        else:
            rules = [WaitKPolicy(lagging, models[0].decoder.wait_k.ratio).required] * len(found)
        lengths, before = sample["net_input"]["src_lengths"].tolist(), models[0].encoder.frames_before
        for index, frames, hypotheses, reads in zip(sample["id"].tolist(), lengths, found, rules, strict=True):
            cut(hypotheses[0], longest(reads, before, frames, generator.max_len_a, generator.max_len_b))
            if self.simul_log is not None:
                dataset = self.dataset(self.args.gen_subset)
                tokens = [token for token in hypotheses[0]["tokens"].tolist() if token != self.target_dictionary.eos()]
                self.simul_log.add(index, tokens, reads, frames, dataset.tgt_texts[index], dataset.audio_paths[index])
        return found

    def decoding_inputs(self, models, sample) -> dict:
        """Return what the models' decoders need to know of a batch: k of wait-k, and the references' lengths.

        Raises UserError where ``--target-length oracle`` has no references.
        """
        decoders = [model.decoder for model in models if hasattr(model, "decoder")]
        inputs = {}
        if any(getattr(decoder, "wait_k", None) is not None for decoder in decoders):
            inputs["waitk_lagging"] = getattr(self.args, "simul_waitk_lagging", None)  # None: the whole source
        rules = filter(None, (getattr(decoder, "length_rule", None) for decoder in decoders))
        if any(rule.options.target_length == "oracle" for rule in rules):
            if sample.get("target") is None:
                raise UserError("--target-length is oracle, but the set has no references: use ratio or fixed")
            inputs["target_lengths"] = sample["target"].ne(self.target_dictionary.pad()).sum(1)
        return inputs

    @staticmethod
    def check_lagging(model, lagging: int) -> None:
        """Refuse a model that cannot decode with this k. Raises UserError."""
        with user_errors(f"--simul-waitk-lagging {lagging}: "):
            if not hasattr(model, "check_lagging"):
                raise ValueError(f"{type(model).__name__} has no wait-k rule: use a simultaneous model")
            model.check_lagging(lagging)


def recorded_reads(hypothesis: dict) -> Reads:
    """Return the encoder states that monotonic heads had read at each token, which the decoder gives as attention."""
    reads = hypothesis["attention"][0].long().tolist()
    return lambda token: reads[min(token, len(reads) - 1)]


def cut(hypothesis: dict, most: int) -> None:
    """End a hypothesis after ``most`` tokens, as the agent would: fairseq measures by the longest source of a batch.

    The end of sentence takes the score of the token that stood in its place.
    """
    tokens, scores = hypothesis["tokens"], hypothesis["positional_scores"]
    if len(tokens) > most + 1:
        hypothesis["tokens"] = torch.cat((tokens[:most], tokens[-1:]))
        hypothesis["positional_scores"] = scores[: most + 1]
        hypothesis["score"] = scores[: most + 1].mean()
