"""What every console script does: Ctrl-C ends it in one line, and warnings of fairseq's are not shown."""

import argparse
import itertools
import warnings
from collections.abc import Callable

import pytest
from fairseq.dataclass.utils import convert_namespace_to_omegaconf

from mla_fairseq.cli import average, options, sweep, translate


@pytest.mark.parametrize(
    ("main", "words", "message"),
    [
        (translate.main, ["a.pt", "a.wav", "--data", "d"], options.ENDED),
        (average.main, ["--inputs", "a.pt", "--output", "b.pt"], options.ENDED),
        (sweep.main, ["d", "--path", "a.pt", "--output", "o"], options.STOPPED),
    ],
)
def test_ctrl_c_says_whether_the_same_command_continues(
    main: Callable[[list[str]], None], words: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(args: argparse.Namespace) -> None:
        raise KeyboardInterrupt

    for module in (translate, average, sweep):
        monkeypatch.setattr(module, "run", stop)
    with pytest.raises(SystemExit, match=f"^{message}$"):
        main(words)


def test_warnings_that_fairseq_causes_are_not_shown() -> None:
    def run(args: argparse.Namespace) -> None:
        warnings.warn("'pin_memory' argument is set as true but no accelerator is found", UserWarning, stacklevel=1)
        convert_namespace_to_omegaconf(argparse.Namespace())
        warnings.warn("another", UserWarning, stacklevel=1)

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        options.run_command(argparse.ArgumentParser(), run, [])
    assert [str(one.message) for one in found] == ["another"]


@pytest.mark.parametrize("flag", ["--output", "--system"])
def test_a_name_that_no_table_can_have_is_refused_before_the_work(flag: str, capsys: pytest.CaptureFixture) -> None:
    words = {"--output": "sweep", "--system": "mine"} | {flag: "odd\nname"}
    with pytest.raises(SystemExit):
        sweep.build_parser().parse_args(["data", "--path", "a.pt", *itertools.chain(*words.items())])
    assert f"argument {flag}: 'odd\\nname' has a line break or control character: remove it" in capsys.readouterr().err


def test_values_of_k_are_sorted() -> None:
    parse = sweep.build_parser().parse_args
    assert parse(["data", "--path", "a.pt", "--output", "x", "--laggings", "9,1,9"]).laggings == [1, 9]
    assert parse(["data", "--path", "a.pt", "--output", "x"]).laggings == [1, 3, 5, 7, 9]
