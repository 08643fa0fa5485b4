"""YAML and JSON that somebody else wrote: nothing exhausts the stack, the memory or the time."""

from itertools import pairwise

import pytest

from mla_fairseq.data import config
from mla_fairseq.data.ledger import Ledger
from mla_fairseq.evaluation.instances import read_instances
from mla_fairseq.evaluation.segmentation import read_segmentation
from mla_fairseq.files import read_json
from mla_fairseq.parsing import parse_json, parse_yaml

DEEP = "[" * 100_000
BOMB = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("abcdefg"))


def test_types_are_those_of_yaml_or_kept():
    text = "{a: 007, b: [no, 1.5], c: null}"
    assert parse_yaml(text) == {"a": 7, "b": [False, 1.5], "c": None}
    assert parse_yaml(text, strings=True) == {"a": "007", "b": ["no", "1.5"], "c": "null"}
    assert (parse_yaml(""), parse_json('{"a": [1]}')) == (None, {"a": [1]})


@pytest.mark.parametrize("strings", [False, True])
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (DEEP, "^line 1 is nested more than 50 levels deep$"),
        ("- " * 3000, "nested more than 50"),
        ("x: " + "[" * 60 + "]" * 60, "nested more than 50"),
        (BOMB, r"^line 2 has an alias, \*a: write the value in full$"),
        ("a: &a {b: *a}", r"alias, \*a"),
        ("a: !!bool x", "has a tag, tag:yaml.org,2002:bool: remove it"),
        ("a: !!python/object/apply:os.system [ls]", "has a tag"),
        ("a: [", "^while parsing a flow"),
    ],
)
def test_yaml_is_refused_in_one_line(text, reason, strings):
    with pytest.raises(ValueError, match=reason) as caught:
        parse_yaml(text, strings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["a: 2020-13-45", f"a: {'1' * 5000}", "{[1]: 2}"])
def test_values_that_yaml_cannot_read_are_refused(text):
    with pytest.raises(ValueError):
        parse_yaml(text)


@pytest.mark.parametrize("text", [DEEP, "[" * 60 + "]" * 60, '{"a":' * 60 + "1" + "}" * 60])
def test_deep_json_is_refused(text):
    with pytest.raises(ValueError, match=r"^nested more than 50 levels deep$"):
        parse_json(text)


@pytest.mark.parametrize(
    "read", [read_json, config.read, lambda path: read_segmentation(path, path), read_instances, Ledger]
)
def test_every_reader_names_the_file(tmp_path, read):
    path = tmp_path / "some.file"
    path.write_text(DEEP)
    with pytest.raises(ValueError, match=r"some\.file .*nested more than 50"):
        read(path)
