# ruff: noqa: F811 -- arguments are fixtures
"""``scripts/bench_browser.py``: the page of a model is measured, by the clock and in CPU time."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.chromium import BINARY
from tests.edge.site import PACKAGES
from tests.programs import Done
from tests.test_bench import Report, report, rows  # noqa: F401 -- a fixture


@pytest.mark.slow
@pytest.mark.skipif(not BINARY, reason="the page needs Chromium: apt-get install chromium")
@pytest.mark.skipif(not PACKAGES.exists(), reason=f"{PACKAGES} does not exist: see INSTALL in edge/page.py")
def test_pages_are_measured(report: Report, export: Callable[..., tuple[Path, Done]], tmp_path: Path) -> None:
    folder, done = export("--attn-type relu")
    assert done.code == 0, done.err
    wav = tmp_path / "noise.wav"
    soundfile.write(wav, np.random.default_rng(1).integers(-3000, 3000, 3 * 16_000, dtype=np.int16), 16_000)
    small = ("--arch", "s2t_transformer_simul_mla_tiny", "--vocabulary", "100", "--untrained", "--attn-type relu")
    flags = ("--wav", str(wav), "--web", str(PACKAGES), "--lagging", "2", "--turns", "1", *small)
    table = rows(report("bench_browser.py", str(folder), *flags), "# Exported models in a browser")
    assert [line[0] for line in table] == [folder.name, "s2t_transformer_simul_mla_tiny --attn-type relu"]
    assert all(min(map(float, line[1:5])) > 0 and float(line[-1]) > 14 for line in table)
