"""Short logs in the formats of fairseq and SimulEval."""

import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest

START = datetime(2030, 1, 1, 12, 0, 0)


def line(seconds: float, tag: str, message: dict | str) -> str:
    text = message if isinstance(message, str) else json.dumps({key: str(value) for key, value in message.items()})
    return f"{START + timedelta(seconds=seconds):%Y-%m-%d %H:%M:%S} | INFO | {tag} | {text}"


def inner(seconds: float, update: int, loss: float, wps: float = 100.0) -> str:
    stats = {"epoch": 1, "update": update / 8, "loss": loss + 1, "nll_loss": loss, "ppl": round(2**loss, 2)}
    return line(seconds, "train_inner", {**stats, "wps": wps, "ups": wps / 50, "num_updates": update})


def valid(seconds: float, update: int, loss: float) -> str:
    stats = {"loss": loss + 1, "nll_loss": loss, "ppl": round(2**loss, 2), "num_updates": update}
    return line(seconds, "dev_st", {"epoch": 1, **{f"dev_st_{key}": value for key, value in stats.items()}})


SESSION_1 = [
    "# session 2030-01-01T11:59:00+00:00 fairseq-train",
    line(0, "fairseq_cli.train", "num. shared model params: 2,506,624 (num. trained: 2,506,624)"),
    "INFO:a line of another format",
    inner(60, 10, 6.0, wps=90.0),
    valid(90, 10, 5.0),
    inner(120, 20, 4.0, wps=100.0),
    inner(150, 25, 3.5, wps=10.0),
]
SESSION_2 = [
    "# session 2030-01-01T15:00:00+00:00 fairseq-train",
    line(10_000, "fairseq_cli.train", "num. shared model params: 2,506,624 (num. trained: 2,506,624)"),
    inner(10_060, 25, 3.0),
    valid(10_090, 30, 2.5),
    line(10_120, "train", {"epoch": 4, "train_loss": 4.0, "train_nll_loss": 3.0, "train_num_updates": 32}),
    line(10_120, "fairseq_cli.train", "done training in 120.0 seconds"),
]


@pytest.fixture
def train_log(tmp_path: Path) -> Path:
    """A training that was stopped after 25 updates, resumed from update 20 hours later, and ended after update 32."""
    path = tmp_path / "train.log"
    path.write_text("\n".join([*SESSION_1, *SESSION_2]) + "\n", encoding="utf-8")
    return path


def simul_sentence(**changes) -> dict:
    """Return a line of SimulEval's log: a source of 1.6 s, two words emitted during it and two at its end."""
    line = {
        "index": 0,
        "prediction": "drei $ 5 und",
        "delays": [560.0, 840.0, 1600.0, 1600.0],
        "elapsed": [600.0, 900.0, 1700.0, 1700.0],
        "prediction_length": 4,
        "reference": "drei oder fünf und mehr",
        "source": ["no/such.wav", "samplerate: 16000 Hz"],
        "source_length": 1600.0,
    }
    return {**line, **changes}


@pytest.fixture
def write_log(tmp_path: Path):
    """Write a log of such sentences, one for each mapping of changes; return its path."""

    def write(*sentences: dict, name: str = "run") -> Path:
        path = tmp_path / name / "instances.log"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(simul_sentence(**changes)) + "\n" for changes in sentences))
        return path

    return write
