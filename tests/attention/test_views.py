"""Views as pictures: a row per query, a column per key, # for seen. The oracle must agree with them too."""

import numpy as np
import pytest
import torch
from torch import Tensor

from mla_fairseq.attention import Blocks, Causal, Full, Prefix, View
from tests.attention.oracle import visibility

PICTURES: dict[str, tuple[View, list[str]]] = {
    "full": (Full(), ["####", "####"]),
    "causal": (Causal(), ["#...", "##..", "###.", "####"]),
    "window1": (Causal(1), ["#...", ".#..", "..#.", "...#"]),
    "window2": (Causal(2), ["#...", "##..", ".##.", "..##"]),
    "window9": (Causal(9), ["#...", "##..", "###.", "####"]),
    "blocks2": (Blocks(2), ["##...", "##...", "####.", "####.", "#####"]),
    "blocks9": (Blocks(9), ["###", "###", "###"]),
    "blocks2-left0": (Blocks(2, left=0), ["##...", "##...", "..##.", "..##.", "....#"]),
    "blocks2-left1": (Blocks(2, left=1), ["##...", "##...", "####.", "####.", "..###"]),
    "prefix": (Prefix(torch.tensor([0, 2, 2, 9])), ["...", "##.", "##.", "###"]),
}


def mask_of(rows: list[str]) -> Tensor:
    return torch.tensor([[mark == "#" for mark in row] for row in rows])


@pytest.mark.parametrize(("view", "rows"), PICTURES.values(), ids=PICTURES)
def test_a_view_is_its_picture(view: View, rows: list[str]) -> None:
    seen = view.visible(torch.arange(len(rows)), torch.arange(len(rows[0])))
    if isinstance(view, Full):
        assert seen is None
    else:
        assert torch.equal(seen.reshape(len(rows), -1), mask_of(rows))
    assert torch.equal(visibility(view, len(rows), len(rows[0]))[0, 0], mask_of(rows))


@pytest.mark.parametrize("name", [name for name, (view, _) in PICTURES.items() if isinstance(view, Causal | Blocks)])
def test_positions_count_over_the_whole_stream(name: str) -> None:
    view, rows = PICTURES[name]
    middle = view.visible(torch.tensor([2]), torch.arange(1, len(rows[0])))
    assert torch.equal(middle, mask_of([rows[2][1:]]))


@pytest.mark.parametrize(
    ("view", "reach"),
    [(Full(), None), (Causal(), None), (Causal(1), 0), (Causal(4), 3), (Blocks(3), None), (Blocks(3, 2), 6)],
    ids=str,
)
def test_reach_is_what_later_queries_can_still_see(view: View, reach: int | None) -> None:
    assert view.reach == reach
    if reach is not None:
        size = getattr(view, "size", 1)  # the next query after a whole number of blocks
        row = visibility(view, 4 * size + 1, 4 * size)[0, 0, -1]
        assert int(row.sum()) == reach


def test_each_stream_has_its_own_prefix() -> None:
    view = Prefix(torch.tensor([[0, 1], [2, 3]]))
    seen = view.visible(torch.arange(2), torch.arange(3))
    assert torch.equal(seen, torch.stack([mask_of(["...", "#.."]), mask_of(["##.", "###"])]))
    assert torch.equal(seen.unsqueeze(1), visibility(view, 2, 3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda: Causal(0), "at least 1, but is 0", id="window0"),
        pytest.param(lambda: Causal(2.5), r"an int of at least 1, but is 2\.5", id="window-float"),
        pytest.param(lambda: Causal("3"), "an int of at least 1, but is '3'", id="window-text"),
        pytest.param(lambda: Blocks("3"), "but have size 3", id="size-text"),
        pytest.param(lambda: Prefix([1, 2]), "but are list", id="prefix-list"),
        pytest.param(lambda: Prefix(torch.tensor([True, False])), "but are torch.bool", id="prefix-bool"),
        pytest.param(lambda: Blocks(0), "size >= 1, left >= -1, but have size 0", id="size0"),
        pytest.param(lambda: Blocks(2, -2), "but have size 2 and left -2", id="left-2"),
        pytest.param(lambda: Prefix(torch.zeros(1, 2, 3)), r"but are .*, \(1, 2, 3\)", id="prefix-of-3-dimensions"),
        pytest.param(lambda: Prefix(torch.tensor([2, 1])), "must not decrease", id="prefix-decreases"),
        pytest.param(lambda: Prefix(torch.tensor([[1, 2], [2, 1]])), "must not decrease", id="one-prefix-decreases"),
    ],
)
def test_a_wrong_view_is_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_numbers_of_numpy_make_views() -> None:
    three = np.int64(3)
    for view, plain in ((Causal(three), Causal(3)), (Blocks(three, np.int32(1)), Blocks(3, 1))):
        assert view == plain
        assert torch.equal(visibility(view, 9, 9), visibility(plain, 9, 9))
