"""What can be wrong with a file: damage to its bytes, and wrong values in the formats that the commands read."""

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import yaml

from tests.fuzz import binary
from tests.fuzz.values import TEXTS, VALUES

Apply = Callable[[Random, Path], object]


@dataclass(frozen=True)
class Mutation:
    """A change of a file.

    Attributes:
        name: for the report.
        apply: change the file; what it returns is reported too.
        harmful: a result that differs after it must come with an error or a warning. Without it, a different result
            may be right: a byte of a feature, or a word of a text, is changed and still valid.
    """

    name: str
    apply: Apply
    harmful: bool = False


def rewrite(change: Callable[[Random, bytes], bytes]) -> Apply:
    """Return what applies a change of bytes."""
    return lambda random, path: path.write_bytes(change(random, path.read_bytes())) and None


def cut(random: Random, data: bytes) -> bytes:
    return data[: random.randrange(len(data))]


def flip(random: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(random.randint(1, 8)):
        changed[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(changed)


def remove_range(random: Random, data: bytes) -> bytes:
    start = random.randrange(len(data))
    return data[:start] + data[start + random.randint(1, 64) :]


def insert(random: Random, data: bytes) -> bytes:
    start = random.randrange(len(data))
    return data[:start] + random.randbytes(random.randint(1, 64)) + data[start:]


def become_folder(_: Random, path: Path) -> None:
    path.unlink()
    path.mkdir()


def become_pipe(_: Random, path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def become_loop(_: Random, path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def become_other(random: Random, path: Path) -> str:
    """Replace the file by one of another folder and of another type."""
    others = sorted(one for one in path.parents[2].glob("**/*.*") if one.is_file() and one.suffix != path.suffix)
    other = random.choice(others)
    shutil.copy(other, path)
    return other.name


BYTES = [
    Mutation("missing", lambda _, path: path.unlink(), harmful=True),
    Mutation("empty", lambda _, path: path.write_bytes(b"") and None, harmful=True),
    Mutation("cut", rewrite(cut), harmful=True),
    Mutation("bits flipped", rewrite(flip)),
    Mutation("bytes removed", rewrite(remove_range)),
    Mutation("bytes inserted", rewrite(insert)),
    Mutation("noise", rewrite(lambda random, data: random.randbytes(len(data))), harmful=True),
    Mutation("a folder", become_folder, harmful=True),
    Mutation("a pipe", become_pipe, harmful=True),
    Mutation("a link to itself", become_loop, harmful=True),
    Mutation("another file", become_other, harmful=True),
]


def text(change: Callable[[Random, list[str]], list[str] | None], end: str = "\n") -> Apply:
    """Return what applies a change of lines."""

    def apply(random: Random, path: Path) -> None:
        lines = path.read_text(encoding="utf-8").splitlines()
        lines = change(random, lines) or lines
        path.write_text("".join(line + end for line in lines), encoding="utf-8", newline="")

    return apply


def drop_line(random: Random, lines: list[str]) -> None:
    del lines[random.randrange(len(lines))]


def double_line(random: Random, lines: list[str]) -> None:
    lines.insert(random.randrange(len(lines)), random.choice(lines))


def swap_lines(random: Random, lines: list[str]) -> None:
    one, other = random.randrange(len(lines)), random.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]


def long_line(random: Random, lines: list[str]) -> None:
    lines[random.randrange(len(lines))] += "x" * 200_000


def odd_word(random: Random, lines: list[str]) -> str:
    """Replace one word by an odd text."""
    place = random.randrange(len(lines))
    words = re.split(r"(\s|\||:)", lines[place])
    words[2 * random.randrange((len(words) + 1) // 2)] = random.choice(TEXTS)
    lines[place] = "".join(words)


def odd_line(random: Random, lines: list[str]) -> None:
    lines.insert(random.randrange(len(lines) + 1), random.choice(TEXTS))


LINES = [
    Mutation("line dropped", text(drop_line)),
    Mutation("line doubled", text(double_line)),
    Mutation("lines swapped", text(swap_lines)),
    Mutation("long line", text(long_line)),
    Mutation("odd word", text(odd_word)),
    Mutation("odd line", text(odd_line)),
    Mutation("lines end as on Windows", text(lambda _, lines: lines, "\r\n")),
    Mutation("not UTF-8", rewrite(lambda _, data: data.replace(b"e", b"\xe9")), harmful=True),
    Mutation("UTF-16", rewrite(lambda _, data: data.decode().encode("utf-16")), harmful=True),
    Mutation("byte order mark", rewrite(lambda _, data: b"\xef\xbb\xbf" + data)),
    Mutation("null bytes", rewrite(lambda random, data: data.replace(b" ", b"\0", 1))),
]


def cell(column: str | None = None, values: list[str] = TEXTS) -> Apply:
    """Return what gives a cell of a table an odd value."""

    def apply(random: Random, path: Path) -> str:
        header, *rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
        place = random.randrange(len(header)) if column is None else header.index(column)
        row = random.choice(rows)
        row[place] = value = random.choice(values)
        path.write_text("".join("\t".join(line) + "\n" for line in (header, *rows)), encoding="utf-8")
        return f"{header[place]}={value[:20]!r}"

    return apply


def drop_column(random: Random, path: Path) -> str:
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    place = random.randrange(len(rows[0]))
    name = rows[0][place]
    path.write_text("".join("\t".join(row[:place] + row[place + 1 :]) + "\n" for row in rows), encoding="utf-8")
    return name


def header_only(_: Random, lines: list[str]) -> list[str]:
    return lines[:1]


COUNTS = ["", "0", "-1", "1", "7", "9999999", "1e3", "nan", "5.5", "x"]
PLACES = ["fbank80.zip:0:10", "fbank80.zip:-5:100", "../x.npy", "/etc/hostname", "fbank80.zip", "x.zip:0:1", ":1:2", ""]
TABLE = [
    Mutation("odd cell", cell()),
    Mutation("column dropped", drop_column, harmful=True),
    Mutation("rows dropped", text(header_only), harmful=True),
]
MANIFEST = [
    *TABLE,
    Mutation("wrong n_frames", cell("n_frames", COUNTS), harmful=True),
    Mutation("wrong audio", cell("audio", PLACES), harmful=True),
    Mutation("odd id", cell("id")),
]


def tree(load: Callable[[str], object], dump: Callable[[object], str], drop: bool = False) -> Apply:
    """Return what changes, or drops, one value anywhere in a tree of lists and dictionaries."""

    def apply(random: Random, path: Path) -> str:
        content = load(path.read_text(encoding="utf-8"))
        parent, key = random.choice(list(places(content)))
        value = None if drop else random.choice(VALUES)
        if drop:
            del parent[key]
        else:
            parent[key] = value
        path.write_text(dump(content), encoding="utf-8")
        return f"{key}{'' if drop else '='}{'' if drop else repr(value)[:30]}"

    return apply


def places(content: object) -> list[tuple]:
    """Return (container, key) of every value in a tree."""
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else []
    found = []
    for key, value in pairs:
        found += [(content, key), *places(value)]
    return found


def dump_yaml(content: object) -> str:
    return yaml.dump(content, sort_keys=False)


def json_line(drop: bool = False) -> Apply:
    """Return what changes, or drops, one value in one line of a log of JSON lines."""

    def apply(random: Random, path: Path) -> str:
        lines = path.read_text(encoding="utf-8").splitlines()
        place = random.randrange(len(lines))
        part = path.with_name("line")
        part.write_text(lines[place])
        changed = tree(json.loads, json.dumps, drop)(random, part)
        lines[place] = part.read_text()
        part.unlink()
        path.write_text("".join(f"{line}\n" for line in lines))
        return changed

    return apply


YAML = [
    Mutation("odd value", tree(yaml.safe_load, dump_yaml)),
    Mutation("key dropped", tree(yaml.safe_load, dump_yaml, drop=True)),
    Mutation("not YAML", text(lambda _, lines: [*lines, "x: [1", "y: }"]), harmful=True),
    Mutation("runs code", text(lambda _, lines: [*lines, "x: !!python/object/apply:os.mkdir [executed]"])),
]
CONFIG = [
    *YAML,
    Mutation("unknown transform", rewrite(lambda _, data: data.replace(b"global_cmvn\n", b"local\n", 1)), harmful=True),
]


def reversed_symbols(_: Random, lines: list[str]) -> list[str]:
    return lines[::-1]


def without_counts(_: Random, lines: list[str]) -> list[str]:
    return [line.split(" ")[0] for line in lines]


DICTIONARY = [
    Mutation("other order", text(reversed_symbols), harmful=True),
    Mutation("without counts", text(without_counts)),
    Mutation("special symbol", text(lambda random, lines: lines.insert(3, random.choice(["<s> 1", "<pad> 1", "a b"])))),
]

MUTATIONS: dict[str, list[Mutation]] = {
    "config": [*CONFIG, *LINES],
    "manifest": [*MANIFEST, *LINES],
    "archive": [Mutation(name, apply, True) for name, apply in binary.ARCHIVE.items()],
    "statistics": [Mutation(name, apply, name not in binary.HARMLESS) for name, apply in binary.STATISTICS.items()],
    "pieces": [Mutation(name, apply, True) for name, apply in binary.PIECES.items()],
    "dictionary": [*DICTIONARY, *LINES],
    "checkpoint": [
        Mutation(name, apply, name not in binary.HARMLESS) for name, apply in binary.CHECKPOINT.items() for _ in "12"
    ],
    "generator": [Mutation(name, apply, True) for name, apply in binary.GENERATOR.items()],
    "settings": [
        Mutation("odd value", tree(json.loads, json.dumps)),
        Mutation("key dropped", tree(json.loads, json.dumps, drop=True)),
        *LINES,
    ],
    "listing": [*YAML, *LINES],
    "lines": LINES,
    "audio": [Mutation(name, apply, name not in binary.HARMLESS) for name, apply in binary.AUDIO.items()],
    "array": [Mutation(name, apply, name not in binary.HARMLESS) for name, apply in binary.ARRAY.items()],
    "instances": [
        *[Mutation("odd value", json_line()), Mutation("key dropped", json_line(drop=True))] * 3,
        *LINES,
    ],
    "points": [Mutation("column dropped", drop_column), *TABLE[::2], *LINES],
    "log": LINES,
    "recipe": [*YAML, *LINES],
}
"""The mutations of each kind of file, beside ``BYTES``."""
