"""fairseq's speech-to-text task on a data folder that may be moved, with faults of the data found before training.

fairseq takes `audio_root` and the path of the CMVN statistics relative to the directory in which it was started, and
prefers such a directory's files to those of the data folder. Here every path of the configuration belongs to the
folder that the configuration is in.
"""

from __future__ import annotations

from pathlib import Path

import torch
import yaml
from fairseq import utils
from fairseq.data.audio.data_cfg import S2TDataConfig
from fairseq.models import ARCH_MODEL_REGISTRY, MODEL_REGISTRY
from fairseq.tasks import register_task
from fairseq.tasks.speech_to_text import SpeechToTextTask

from mla_fairseq.checkpoints import load_training
from mla_fairseq.data import archive, manifest
from mla_fairseq.engine.delays import Clock, Reads, longest
from mla_fairseq.engine.policies import WaitKPolicy
from mla_fairseq.errors import UserError, user_errors
from mla_fairseq.models.checks import check_continued, check_criterion, check_length_rule
from mla_fairseq.tasks.simul_log import SimulLog


class FolderDataConfig(S2TDataConfig):
    """fairseq's data configuration with relative paths taken from the folder of the yaml file."""

    def __init__(self, yaml_path: Path) -> None:
        if not yaml_path.is_file():
            there = ", ".join(sorted(path.name for path in yaml_path.parent.glob("*.yaml"))) or "none"
            raise UserError(
                f"{yaml_path} is missing (configurations there: {there}): "
                "prepare the data with scripts/prep_mustc.py, or correct --config-yaml"
            )
        try:
            content = yaml.safe_load(yaml_path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError):
            content = None
        if not isinstance(content, dict):
            raise UserError(f"{yaml_path} is no data configuration: prepare the data again with scripts/prep_mustc.py")
        super().__init__(yaml_path)
        self.config["audio_root"] = self.inside(self.config.get("audio_root", ""))
        for section, key in (("bpe_tokenizer", "sentencepiece_model"), ("global_cmvn", "stats_npz_path")):
            if key in self.config.get(section, {}):
                self.config[section][key] = path = self.inside(self.config[section][key])
                if not Path(path).is_file():
                    raise UserError(f"{path} is missing: prepare the data again with scripts/prep_mustc.py")

    def inside(self, path: str) -> str:
        """The path seen from the folder of the yaml file; an absolute one stays."""
        return (self.root / path).resolve().as_posix()


@register_task("speech_to_text_mla")
class SpeechToTextMLATask(SpeechToTextTask):
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

    @classmethod
    def setup_task(cls, args, **kwargs):
        """As fairseq's.

        Raises UserError if the configuration, the dictionary, a checkpoint to read or a training set is not usable.
        """
        for name in (getattr(args, "train_subset", None) or "train").split(","):
            if not name.startswith("train"):
                raise UserError(f"--train-subset is {name}: fairseq trains only on sets whose name begins with train")
        dictionary = Path(args.data) / FolderDataConfig(Path(args.data) / args.config_yaml).vocab_filename
        if not dictionary.is_file():
            raise UserError(f"{dictionary} is missing: prepare the data again with scripts/prep_mustc.py")
        check_checkpoints(args)
        return super().setup_task(args, **kwargs)

    def __init__(self, args, tgt_dict) -> None:
        super().__init__(args, tgt_dict)
        self.simul_log: SimulLog | None = None
        self.data_cfg = FolderDataConfig(Path(args.data) / args.config_yaml)

    def build_model(self, args, from_checkpoint: bool = False):
        """As fairseq's. Raises UserError for options that make no model, or another one than is to be continued."""
        with user_errors():
            if not from_checkpoint:
                check_continued(args)
            model = super().build_model(args, from_checkpoint)
            if not from_checkpoint and getattr(args, "path", None) is None:
                check_criterion(getattr(args, "criterion", None), model)
            return model

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs) -> None:
        """As fairseq's. Raises UserError for a missing manifest and for an archive that is not whole."""
        for name in split.split(","):
            self.check_split(name)
        super().load_dataset(split, epoch=epoch, combine=combine, **kwargs)

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
            if lagging is not None or getattr(getattr(model, "decoder", None), "wait_k", None) is not None:
                self.wait(model, lagging)
        if log is not None:
            encoder = models[0].encoder
            if not encoder.streams:
                raise UserError("--simul-log needs a model that streams: train one with --encoder-chunk-size")
            clock = Clock(encoder.view.size, encoder.frames_before, self.args.simul_segment_size)
            self.simul_log = SimulLog(Path(log), self.target_dictionary, clock)
        return super().build_generator(models, args, *more, **kwargs)

    def inference_step(self, generator, models, sample, *more, **kwargs):
        """As fairseq's; simultaneously every sentence has its own longest length, and the log is written on the way."""
        self.tell_lengths(models, sample)
        found = super().inference_step(generator, models, sample, *more, **kwargs)
        lagging = getattr(self.args, "simul_waitk_lagging", None)
        if lagging is None and self.simul_log is None:
            return found
        if lagging is None:
            rules = self.monotonic_reads(models[0], sample, [hypotheses[0]["tokens"] for hypotheses in found])
        else:
            rules = [WaitKPolicy(lagging, models[0].decoder.wait_k.ratio).wants] * len(found)
        lengths, before = sample["net_input"]["src_lengths"].tolist(), models[0].encoder.frames_before
        for index, frames, hypotheses, reads in zip(sample["id"].tolist(), lengths, found, rules, strict=True):
            cut(hypotheses[0], longest(reads, before, frames, generator.max_len_a, generator.max_len_b))
            if self.simul_log is not None:
                dataset = self.dataset(self.args.gen_subset)
                tokens = [token for token in hypotheses[0]["tokens"].tolist() if token != self.target_dictionary.eos()]
                self.simul_log.add(index, tokens, reads, frames, dataset.tgt_texts[index], dataset.audio_paths[index])
        return found

    def tell_lengths(self, models, sample) -> None:
        """Tell the references' lengths (--cosformer-length oracle). Raises UserError where there are none."""
        for rule in filter(None, (getattr(getattr(model, "decoder", None), "length_rule", None) for model in models)):
            if rule.options.length == "oracle":
                if sample.get("target") is None:
                    raise UserError("--cosformer-length is oracle, but the set has no references: take ratio or fixed")
                rule.told = sample["target"].ne(self.target_dictionary.pad()).sum(1)

    def monotonic_reads(self, model, sample, targets: list[torch.Tensor]) -> list[Reads]:
        """What monotonic heads had read when they wrote each token of these targets (T,), end of sentence included."""
        eos, pad = self.target_dictionary.eos(), self.target_dictionary.pad()
        tokens = torch.nn.utils.rnn.pad_sequence(targets, batch_first=True, padding_value=pad)
        before = torch.cat((tokens.new_full((len(tokens), 1), eos), tokens[:, :-1]), dim=1)
        net_input = sample["net_input"]
        with torch.no_grad():
            encoder_out = model.encoder(net_input["src_tokens"], net_input["src_lengths"])
            reads = model.decoder.reads(before, encoder_out).tolist()
        return [lambda token, row=row: row[min(token, len(row) - 1)] for row in reads]

    @staticmethod
    def wait(model, lagging: int | None) -> None:
        """Let a model decode with this k. Raises UserError if it cannot."""
        with user_errors(f"--simul-waitk-lagging {lagging}: "):
            if not hasattr(model, "wait"):
                raise ValueError(f"{type(model).__name__} has no wait-k rule: take a simultaneous model")
            model.wait(lagging)

    def get_batch_iterator(self, dataset, *args, **kwargs):
        """As fairseq's, but of an evaluation set no sentence is left out.

        fairseq cuts batches in multiples of `--required-batch-size-multiple` (8) and drops the rest of the set (its
        issue 5036): a test set of 433 sentences is scored on 432.
        """
        if not dataset.is_train_split:
            kwargs["required_batch_size_multiple"] = 1
        return super().get_batch_iterator(dataset, *args, **kwargs)

    def check_split(self, split: str) -> None:
        """Raise UserError unless the manifest is there and its archives are whole and hold what it points at."""
        path = Path(self.args.data) / f"{split}.tsv"
        with user_errors():
            for name, places in manifest.places(path).items():
                archive.check(Path(self.data_cfg.audio_root) / name, places, wanted_by=path)


def cut(hypothesis: dict, most: int) -> None:
    """End a hypothesis after ``most`` tokens, as the agent would: fairseq measures by the longest source of a batch.

    The end of sentence takes the score of the token that stood in its place.
    """
    tokens, scores = hypothesis["tokens"], hypothesis["positional_scores"]
    if len(tokens) > most + 1:
        hypothesis["tokens"] = torch.cat((tokens[:most], tokens[-1:]))
        hypothesis["positional_scores"] = scores[: most + 1]
        hypothesis["score"] = scores[: most + 1].mean()


def check_checkpoints(args) -> None:
    """Read what fairseq is about to read (`--path`, `--finetune-from-model`, `--restore-file`), which would end in a
    traceback there.

    Raises UserError for a file that is missing, no checkpoint of fairseq's, or of an architecture that nobody knows.
    """
    paths = utils.split_paths(getattr(args, "path", None) or "")
    paths.append(getattr(args, "finetune_from_model", None))
    if (start := getattr(args, "restore_file", None)) != "checkpoint_last.pt":  # which need not be there
        paths.append(start)
    with user_errors():
        for path in filter(None, paths):
            _, name = load_training(Path(path))
            if name not in MODEL_REGISTRY and name not in ARCH_MODEL_REGISTRY:
                raise ValueError(f"{path} is of the architecture {name}, which is not known: add its --user-dir")
