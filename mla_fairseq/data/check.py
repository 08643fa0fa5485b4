"""Check a prepared folder when it is loaded, without reading features: the first fault is reported in one line."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

from mla_fairseq.data import config
from mla_fairseq.data.spoken_text import SpokenText
from mla_fairseq.files import check_file, read_text
from mla_fairseq.speech import GlobalCMVN
from mla_fairseq.speech.mel import MelSpectrogram

log = logging.getLogger(__name__)
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")  # fairseq puts them in front of every dictionary
OVERWRITE = "#fairseq:overwrite"
SPACE = "\u2581"  # begins a word in SentencePiece
BYTE_ORDER_MARK = "\ufeff"
LEDGER = ".prepared.json"  # of mla-prepare, whose dictionaries have the order of the pieces
_NO_PIECE = re.compile(r"<.+>|madeupword\d+")  # what may be added to a dictionary: tags, and fairseq's padding
VOCODERS = ("griffin_lim", "hifigan", "code_hifigan")


def read_folder(
    path: Path, known: Mapping[str, Collection[str]], command: str, needed: Collection[str] = ()
) -> dict[str, Any]:
    """Read a data configuration; check it and its statistics, dictionary, SentencePiece model and speakers.

    Args:
        path: the yaml file in the folder.
        known: names that fairseq has registered, see ``config.check``.
        command: the command that prepares such a folder, for error messages.
        needed: sections that the task needs.

    Returns:
        The settings, with the paths of files resolved in the folder.

    Raises:
        ValueError: the first fault.
    """
    settings = config.read(path, command)
    config.check(path, settings, known)
    if missing := [section for section in needed if section not in settings]:
        raise ValueError(f"{path} has no section {missing[0]}: prepare the data with {command}")
    for section, key in (("bpe_tokenizer", "sentencepiece_model"), ("global_cmvn", "stats_npz_path")):
        if key in settings.get(section, {}):
            file = _resolved(path, settings[section][key], f"{key} of {section}", command)
            settings[section][key] = file.as_posix()
    _check_synthesis(path, settings)
    if (statistics := settings.get("global_cmvn", {}).get("stats_npz_path")) is not None:
        GlobalCMVN.load(Path(statistics), bins(settings))
    dictionary = _resolved(path, settings.get("vocab_filename", "dict.txt"), "vocab_filename", command)
    _check_pieces(path, settings, dictionary, symbols(dictionary))
    _check_speakers(path, settings, command)
    settings["audio_root"] = Path(os.path.abspath(path.parent / settings.get("audio_root", ""))).as_posix()
    return settings


def bins(settings: Mapping[str, Any]) -> int | None:
    """Return the number of bins of the features that a configuration describes; ``None``: it is not known."""
    if "features" in settings:  # text to speech
        return settings["features"].get("n_mels")
    if settings.get("use_audio_input", False):
        return None
    return settings.get("input_feat_per_channel", 80) * settings.get("input_channels", 1)


def symbols(path: Path) -> list[str]:
    """Return the symbols of a dictionary in fairseq's format, in order, without the four special ones.

    Raises:
        ValueError: the file is not UTF-8, or a line is not ``SYMBOL COUNT`` or repeats a symbol.
    """
    found: dict[str, None] = {}
    fix = "copy the dictionary again, or prepare the data again"
    text = read_text(path, mark=True)
    if text.startswith(BYTE_ORDER_MARK):
        raise ValueError(f"{path} begins with a byte order mark, which fairseq would read as a symbol: remove it")
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        symbol, space, count = line.rstrip().rpartition(" ")
        if overwrite := count == OVERWRITE:
            symbol, space, count = symbol.rpartition(" ")
        if not space or not symbol or not count.lstrip("-").isdecimal():
            raise ValueError(f"{path}:{number} is not SYMBOL COUNT ({line!r}): {fix}")
        if not overwrite and (symbol in found or symbol in SPECIAL):
            where = "it is built into fairseq" if symbol in SPECIAL else "it is on an earlier line"
            raise ValueError(f"{path}:{number} repeats the symbol {symbol!r} ({where}): {fix}")
        found[symbol] = None
    return list(found)


@lru_cache  # once for a folder
def warn_of_unknown_order(folder: str) -> None:
    """Log that nothing can tell whether a dictionary has the order that a checkpoint without symbols needs.

    Of a folder that mla-prepare made, the order is checked against the SentencePiece model.
    """
    if not Path(folder, LEDGER).is_file():
        log.warning(
            "the order of the dictionary in %s cannot be checked, because the checkpoint has no symbols and the folder "
            "no %s: make sure that the model was trained with this dictionary",
            folder,
            LEDGER,
        )


def _resolved(path: Path, name: object, key: str, command: str) -> Path:
    """Return the path of a file that the configuration at ``path`` names; an absolute one is kept.

    Raises:
        ValueError: there is no such file.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"{path}: {key} is not a file name ({name!r}): correct it")
    file = Path(os.path.abspath(path.parent / name))  # resolve() raises RuntimeError for a link to itself
    return check_file(file, f"prepare the data again with {command}")


def _check_pieces(path: Path, settings: Mapping[str, Any], dictionary: Path, known: list[str]) -> None:
    """Check that the dictionary has all pieces of the SentencePiece model, and those of mla-prepare in their order."""
    section = settings.get("bpe_tokenizer", {})
    if section.get("bpe") is None:
        if piece := next((symbol for symbol in known if SPACE in symbol), None):
            raise ValueError(
                f"{path} has no bpe_tokenizer, but {dictionary.name} has SentencePiece's pieces ({piece!r}): "
                "add the section with bpe: sentencepiece and sentencepiece_model"
            )
        return
    if section["bpe"] != "sentencepiece":
        return
    model = Path(section.get("sentencepiece_model") or "")
    if not model.is_file():
        raise ValueError(f"{path}: bpe_tokenizer has no sentencepiece_model: add it, such as spm_unigram8000_st.model")
    processor, listed = _processor(model), frozenset(known)
    pieces = _pieces(processor)
    emitted = frozenset(pieces)
    fix = "copy both files again from one folder, or prepare the data again"
    if missing := [piece for piece in pieces if piece not in listed]:
        raise ValueError(
            f"{dictionary} lacks {len(missing)} of {len(pieces)} pieces of {model.name}, such as {missing[0]!r}: {fix}"
        )
    if not (path.parent / LEDGER).is_file():  # other programs may add symbols
        return
    others = (symbol for symbol in known if not _NO_PIECE.fullmatch(symbol))
    if more := [symbol for symbol in others if processor.piece_to_id(symbol) == processor.unk_id()]:
        raise ValueError(f"{dictionary} has {len(more)} symbols that {model.name} lacks, such as {more[0]!r}: {fix}")
    order = [symbol for symbol in known if symbol in emitted]
    if pieces != order:
        place = next(i for i, pair in enumerate(zip(pieces, order, strict=True)) if pair[0] != pair[1])
        raise ValueError(
            f"{dictionary} has {order[place]!r} where {model.name} has {pieces[place]!r} (piece {place + 1}), and a "
            f"model would read one as the other: {fix}"
        )


def _processor(model: Path) -> sentencepiece.SentencePieceProcessor:
    """Return a SentencePiece model.

    Raises:
        ValueError: a broken file.
    """
    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(model))
    except (RuntimeError, OSError) as error:
        raise ValueError(f"{model} is not a SentencePiece model, or is broken: copy it again") from error


def _pieces(processor: sentencepiece.SentencePieceProcessor) -> list[str]:
    """Return the pieces that a SentencePiece model can emit, by index."""
    numbers = range(processor.get_piece_size())
    skipped = (processor.is_control, processor.is_unknown, processor.is_unused)
    return [processor.id_to_piece(number) for number in numbers if not any(test(number) for test in skipped)]


def _check_speakers(path: Path, settings: Mapping[str, Any], command: str) -> None:
    """Check the list of speakers and their embeddings, if the configuration names them."""
    if settings.get("speaker_set_filename") is None:
        return
    file = _resolved(path, settings["speaker_set_filename"], "speaker_set_filename", command)
    names = [line.strip() for line in read_text(file, mark=True).removesuffix("\n").split("\n")]
    for number, name in enumerate(names, start=1):
        if not name or name in names[: number - 1]:
            problem = f"repeats {name!r}" if name else "is empty"
            raise ValueError(f"{file}:{number} {problem}: each line needs the name of another speaker")
    if settings.get("speaker_emb_filename") is None:
        return
    embeddings = _resolved(path, settings["speaker_emb_filename"], "speaker_emb_filename", command)
    try:
        array = np.load(embeddings, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{embeddings} is not a numpy array ({error}): copy it again") from error
    if getattr(array, "ndim", 0) != 2 or len(array) != len(names) or not np.isfinite(array).all():
        shape = getattr(array, "shape", None)
        raise ValueError(f"{embeddings} is not a finite row for each of {len(names)} speakers ({shape}): copy it again")


def _check_synthesis(path: Path, settings: Mapping[str, Any]) -> None:
    """Check the sections of text to speech, if there are any."""
    for key in ("sample_rate", "hop_length"):
        if key not in settings.get("features", {key: None}):
            raise ValueError(f"{path}: features has no {key}: prepare the data again with mla-prepare-tts")
    for key in ("sample_rate", "hop_length", "win_length", "n_fft", "n_mels", "f_min", "f_max"):
        value = settings.get("features", {}).get(key, 1)
        if not config.TYPES["a number of at least 0" if key.startswith("f_") else "a whole number above 0"](value):
            raise ValueError(f"{path}: {key} of features is not a number above 0 ({value!r}): correct it")
    if "spoken_text" in settings:
        try:
            MelSpectrogram.from_config(settings.get("features", {}))
            SpokenText.from_config(settings)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {error}") from error
    if (vocoder := settings.get("vocoder", {}).get("type", VOCODERS[0])) not in VOCODERS:
        raise ValueError(f"{path}: the type of vocoder is unknown ({vocoder!r}): use one of {', '.join(VOCODERS)}")
