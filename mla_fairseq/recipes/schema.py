"""What a recipe may say: one dataclass per section, one documented field per key; which sections, its kind decides.

A field's metadata carries its sentence of help and, where the field is a plain option of a fairseq program, the
flag it becomes.  :mod:`mla_fairseq.recipes.commands` turns the flags into command lines,
:mod:`mla_fairseq.recipes.keys` checks and describes the keys; nothing is listed twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mla_fairseq.data.config import SPECAUGMENT

REQUIRED = "<required>"
_MULTIPLE = "batch sizes are multiples of this; above 1 fairseq silently drops what is left over"


def about(
    help: str, flag: str | None = "", choices: tuple[str, ...] = (), least: float | None = None
) -> dict[str, Any]:
    """What is known of a key.  ``flag``: "" = ``--key-with-dashes``, None = not a flag of the section's program."""
    return {"help": help, "flag": flag, "choices": choices, "least": least}


def option(default: Any, help: str, flag: str | None = "", choices: tuple[str, ...] = (), least: float | None = None):
    """A key of a recipe with its default; the rest as in :func:`about`."""
    return field(default=default, metadata=about(help, flag, choices, least))


@dataclass(frozen=True, kw_only=True)
class Data:
    """The corpus, and how ``scripts/prep_mustc.py`` prepares it."""

    corpus: str = option(REQUIRED, "name of the prepared data; recipes that share it share the preparation", flag=None)
    root: str = option("${DATA}", "folder that holds the pair folder", flag="--data")
    pair: str = option(REQUIRED, "pair folder in MuST-C layout, such as en-de", flag="--pairs")
    task: str = option("st", "speech translation or recognition", choices=("st", "asr"))
    vocab_type: str = option("unigram", "kind of SentencePiece vocabulary", choices=("unigram", "bpe", "char"))
    vocab_size: int = option(1000, "size of the vocabulary (not used for char)", least=1)
    vocab: str | None = option(None, "SentencePiece model of the model that is fine-tuned; empty = train one")
    cmvn: str = option("utterance", "feature normalisation; streaming needs global", choices=("utterance", "global"))
    specaugment: str = option("sm", "masks over the features in training", choices=tuple(SPECAUGMENT))
    train: str = option("train", "training split", flag=None)
    valid: str = option("dev", "validation split", flag=None)
    make: str | None = option(None, "command that makes the corpus at root, for corpora that can be made", flag=None)
    extra: dict = field(default_factory=dict, metadata=about("further flags of scripts/prep_mustc.py", flag=None))

    @property
    def source(self) -> Path:
        """The corpus."""
        return Path(self.root, self.pair)

    @property
    def prepared(self) -> str:
        """Name of the folder that a preparation makes."""
        kind = "char" if self.vocab_type == "char" else f"{self.vocab_type}{self.vocab_size}"
        if self.vocab:  # made elsewhere: RUNS/data/FOLDER/PAIR/spm_*.model
            kind = f"as_{Path(self.vocab).parent.parent.name}"
        return f"{self.corpus}_{self.task}_{kind}_{self.cmvn}"

    @property
    def manifests(self) -> str:
        """Where the manifests lie in that folder."""
        return self.pair

    @property
    def config(self) -> str:
        """fairseq's configuration of the data, in that folder."""
        return f"config_{self.task}.yaml"

    def subset(self, split: str) -> str:
        """The manifest's name without ``.tsv``, e.g. ``dev_st``."""
        return f"{split}_{self.task}"


@dataclass(frozen=True, kw_only=True)
class Voice:
    """One speaker's recordings, and how ``scripts/prep_ljspeech.py`` prepares them."""

    corpus: str = option(REQUIRED, "name of the prepared data; recipes that share it share the preparation", flag=None)
    root: str = option("${DATA}", "folder that holds the corpus", flag=None)
    folder: str = option(REQUIRED, "the corpus: LJSpeech's layout, or a pair in MuST-C's, such as en-de", flag=None)
    speaker: str | None = option(None, "speaker to take, where there are several")
    unit: str = option("characters", "what the model reads", choices=("characters", "phonemes"))
    language: str = option("en-us", "espeak-ng's name of the language, for phonemes")
    train: str = option("train", "training split", flag=None)
    valid: str = option("dev", "validation split", flag=None)
    make: str | None = option(None, "command that makes the corpus at root, for corpora that can be made", flag=None)
    extra: dict = field(default_factory=dict, metadata=about("further flags of scripts/prep_ljspeech.py", flag=None))

    @property
    def source(self) -> Path:
        """The corpus."""
        return Path(self.root, self.folder)

    @property
    def prepared(self) -> str:
        """Name of the folder that a preparation makes."""
        return f"{self.corpus}_speech_{self.unit}"

    @property
    def manifests(self) -> str:
        """Where the manifests lie in that folder."""
        return ""

    @property
    def config(self) -> str:
        """fairseq's configuration of the data, in that folder."""
        return "config.yaml"

    def subset(self, split: str) -> str:
        """The manifest's name without ``.tsv``."""
        return split


@dataclass(frozen=True, kw_only=True)
class AnyModel:
    """What models of both kinds have."""

    arch: str
    fairseq_task: str
    attn_type: str | None = option(None, "mechanism of every site")
    encoder_attn_type: str | None = option(None, "mechanism of the encoder's self-attention")
    decoder_attn_type: str | None = option(None, "mechanism of the decoder's self-attention")
    cross_attn_type: str | None = option(None, "mechanism of the decoder's cross-attention")
    dropout: float | None = option(None, "dropout probability", least=0)
    finetune_from_model: str | None = option(None, "checkpoint that is the start of all of this one")
    user_dir: str = option("", "fairseq plugin folder; empty = this package", flag=None)
    extra: dict = field(default_factory=dict, metadata=about("further model flags of fairseq-train", flag=None))


@dataclass(frozen=True, kw_only=True)
class Model(AnyModel):
    """The architecture and the attention mechanism of each site."""

    arch: str = option("s2t_transformer_mla_tiny", "fairseq architecture")
    load_pretrained_encoder_from: str | None = option(None, "checkpoint whose encoder is the start of this one")
    fairseq_task: str = option("speech_to_text_mla", "fairseq task, in training and decoding", flag=None)


@dataclass(frozen=True, kw_only=True)
class AnyTrain:
    """What ``fairseq-train`` takes for both kinds."""

    max_tokens: int
    criterion: str
    max_source_positions: int
    max_target_positions: int
    seed: int = option(1, "seed of weights, batches and dropout")
    max_update: int = option(REQUIRED, "number of updates", least=1)
    update_freq: int = option(1, "batches per update", least=1)
    optimizer: str = option("adam", "optimizer")
    lr: float = option(2e-3, "peak learning rate", least=0)
    lr_scheduler: str = option("inverse_sqrt", "learning rate schedule")
    warmup_updates: int | None = option(None, "updates until the peak learning rate", least=0)
    clip_norm: float = option(10.0, "gradient norm limit")
    weight_decay: float | None = option(None, "weight decay")
    patience: int | None = option(None, "stop after so many validations without a better loss")
    save_interval_updates: int = option(100, "updates between checkpoints; each is validated", least=1)
    keep_interval_updates: int = option(10, "number of these checkpoints to keep")
    no_epoch_checkpoints: bool = option(True, "no checkpoint at the end of each epoch")
    log_interval: int = option(10, "updates between log lines", least=1)
    skip_invalid_size_inputs_valid_test: bool = option(True, "skip too long utterances in validation as well")
    required_batch_size_multiple: int = option(1, _MULTIPLE, least=1)
    fp16: bool = option(False, "half precision (GPU only)")
    extra: dict = field(default_factory=dict, metadata=about("further flags of fairseq-train", flag=None))


@dataclass(frozen=True, kw_only=True)
class Train(AnyTrain):
    """Options of ``fairseq-train``."""

    max_tokens: int = option(20_000, "most frames (10 ms) in a batch, padding included", least=1)
    criterion: str = option("label_smoothed_cross_entropy", "training criterion")
    label_smoothing: float | None = option(None, "label smoothing")
    report_accuracy: bool = option(False, "log the accuracy of the next token")
    max_source_positions: int = option(6000, "longest utterance in frames; longer ones are skipped", least=1)
    max_target_positions: int = option(1024, "longest target in tokens; longer ones are skipped", least=1)


@dataclass(frozen=True, kw_only=True)
class SpeechModel(AnyModel):
    """The architecture and the attention mechanism of each site."""

    arch: str = option("tts_transformer_mla_tiny", "fairseq architecture")
    fairseq_task: str = option("text_to_speech_mla", "fairseq task, in training and decoding", flag=None)


@dataclass(frozen=True, kw_only=True)
class SpeechTrain(AnyTrain):
    """Options of ``fairseq-train``."""

    max_tokens: int = option(20_000, "most frames of speech in a batch, padding included", least=1)
    criterion: str = option("tacotron2_mla", "training criterion; fairseq's tacotron2 knows no weight of attention")
    n_frames_per_step: int = option(4, "frames that the decoder writes at once", least=1)
    use_guided_attention_loss: bool = option(True, "push attention to the diagonal")
    guided_attention_loss_sigma: float = option(0.4, "how far it may leave the diagonal, part of the whole", least=0)
    guided_attention_loss_weight: float | None = option(None, "weight of that loss; empty = 1", least=0)
    bce_pos_weight: float = option(5.0, "weight of the last frame in the stop loss", least=0)
    max_source_positions: int = option(1024, "longest text in symbols; longer ones are skipped", least=1)
    max_target_positions: int = option(2000, "longest speech in frames; longer ones are skipped", least=1)


@dataclass(frozen=True, kw_only=True)
class Average:
    """Which checkpoints become the model that is decoded."""

    last: int = option(
        5, "average of the last N checkpoints; 0 = the one with the best validation loss", flag="--last", least=0
    )


@dataclass(frozen=True, kw_only=True)
class Decode:
    """Options of ``fairseq-generate``."""

    subset: str = option("tst-COMMON", "split to translate", flag=None)
    beam: int = option(5, "beam size", least=1)
    lenpen: float = option(1.0, "length penalty: above 1 favours longer translations")
    max_len_a: float = option(0.0, "a in: at most a * frames + b tokens", least=0)
    max_len_b: int = option(200, "b in: at most a * frames + b tokens", least=0)
    max_tokens: int = option(50_000, "most frames in a batch, padding included", least=1)
    max_source_positions: int = option(
        6000, "longest utterance in frames; longer ones count as empty translations", least=1
    )
    skip_invalid_size_inputs_valid_test: bool = option(True, "skip too long utterances instead of stopping")
    required_batch_size_multiple: int = option(1, _MULTIPLE, least=1)
    extra: dict = field(default_factory=dict, metadata=about("further flags of fairseq-generate", flag=None))


@dataclass(frozen=True, kw_only=True)
class Score:
    """How translations are compared with the references."""

    tokenize: str = option("13a", "sacrebleu's tokenizer for BLEU", flag=None)
    lowercase: bool = option(False, "ignore case", flag=None)
    samples: int = option(5, "translations to show", flag=None, least=0)


@dataclass(frozen=True, kw_only=True)
class Synthesis:
    """Options of ``scripts/synthesize.py``."""

    subset: str = option("test", "set to speak", flag="--gen-subset")
    seed: int = option(1, "seed of the pre-net's dropout")
    max_tokens: int = option(20_000, "most frames in a batch", least=1)
    max_length_ratio: float | None = option(None, "end at the latest at so many times the expected length", least=0)
    no_pictures: bool = option(True, "write no picture of each utterance")
    recogniser: str | None = option(
        None, "let an independent recogniser of English listen; train = it knows the training texts", flag=None
    )
    extra: dict = field(default_factory=dict, metadata=about("further flags of scripts/synthesize.py", flag=None))


@dataclass(frozen=True, kw_only=True)
class Simul:
    """How a simultaneous model is evaluated: ``scripts/sweep_wait_k.py``."""

    laggings: str | None = option(None, "k of wait-k to decode with, such as 1,3,5; empty = the model is offline")
    segment_size: int = option(280, "audio that comes at once, in ms", least=1)


@dataclass(frozen=True, kw_only=True)
class Run:
    """How to run it here; changes no result beyond rounding, so it may differ from run to run."""

    device: str = option("auto", "auto = a GPU where torch sees one", choices=("auto", "cpu", "cuda"))
    threads: int | None = option(None, "CPU threads of each program; empty = torch's own choice", least=1)
    num_workers: int = option(1, "processes that load batches", least=0)


KINDS: dict[str, dict[str, type]] = {
    "translation": {
        "data": Data,
        "model": Model,
        "train": Train,
        "average": Average,
        "decode": Decode,
        "score": Score,
        "simul": Simul,
        "run": Run,
    },
    "speech": {
        "data": Voice,
        "model": SpeechModel,
        "train": SpeechTrain,
        "average": Average,
        "decode": Synthesis,
        "run": Run,
    },
}
"""The sections of each kind of recipe: text from speech, or speech from text."""
SECTIONS = tuple(dict.fromkeys(section for sections in KINDS.values() for section in sections))
TOP_KEYS = ("base", "kind", "description", *SECTIONS)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One experiment.

    Attributes:
        name: the run's folder.
        kind: of :data:`KINDS`.
        source: the file that it was read from.
        overrides: what ``--set`` changed.
        variables: the ``${NAME}`` that occurred, and what they were.
        description: its title in pictures.
        score: of translations alone, as is ``simul``.
    """

    name: str
    kind: str
    source: str
    overrides: tuple[str, ...]
    variables: dict[str, str]
    description: str
    data: Data | Voice
    model: Model | SpeechModel
    train: Train | SpeechTrain
    average: Average
    decode: Decode | Synthesis
    run: Run
    score: Score | None = None
    simul: Simul | None = None
