"""No damaged file ends any command with a traceback, a hang or a silent wrong result.

``FUZZ_SEED``, ``FUZZ_CASES`` and ``FUZZ_SECONDS`` set how much is tried. A failure is printed with its number;
``FUZZ_CASE`` repeats one case alone, and ``FUZZ_COMMANDS`` (names with commas) runs the cases of some commands alone.
"""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fuzz.campaign import BAD, campaign, table
from tests.fuzz.commands import COMMANDS
from tests.fuzz.world import make_world

DEFAULTS = {"SEED": 1, "CASES": 1000, "SECONDS": 900}
SEED, CASES, SECONDS = (int(os.environ.get(f"FUZZ_{name}", value)) for name, value in DEFAULTS.items())


@pytest.mark.slow
def test_damaged_files_are_reported(tmp_path: Path) -> None:
    one = os.environ.get("FUZZ_CASE")
    numbers = range(int(one), int(one) + 1) if one else range(CASES)
    only = set(filter(None, os.environ.get("FUZZ_COMMANDS", "").split(",")))
    place = make_world(tmp_path / "case")
    whole = COMMANDS["whole-recipe"]  # another command continues what it leaves
    done = replace(whole, line=whole.line.replace("--out {}/out", "--out {}/runs")).run(place)
    assert done.code == 0, done.err
    world = place.rename(tmp_path / "world")
    outcomes = []
    for outcome in campaign(SEED, numbers, SECONDS, world, place, only):
        outcomes.append(outcome)
        if outcome.verdict in BAD or one:
            print(outcome, flush=True)
    print(table(outcomes), f"\nseed {SEED}: FUZZ_SEED={SEED} FUZZ_CASE=N repeats case N alone", flush=True)
    failures = [str(outcome) for outcome in outcomes if outcome.verdict in BAD]
    assert not failures, "\n".join(failures)
