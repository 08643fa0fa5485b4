"""Translate a test set at several latencies: by wait-k in batches, or by an agent under SimulEval."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from mla_fairseq.errors import install
from mla_fairseq.evaluation import offline
from mla_fairseq.evaluation.instances import LOG_NAME
from mla_fairseq.evaluation.programs import is_done, mark_done, run_program
from mla_fairseq.evaluation.quality_latency import OFFLINE, draw_quality_latency, read_points, write_points
from mla_fairseq.evaluation.simultaneous import SimultaneousScores, score_log
from mla_fairseq.files import check_file, make_folder, read_text, real_path, user_dir
from mla_fairseq.parsing import parse_yaml

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WaitKSweep:
    """Translations of a test set by one simultaneous model, each by ``fairseq-generate``.

    Attributes:
        data: the prepared folder.
        path: the checkpoint.
        output: folder for the translations, one folder for each.
        config_yaml: data configuration in ``data``.
        subset: manifest in ``data``, without suffix.
        segment_size: audio that arrives at once, in ms.
        max_len_a, max_len_b: a translation has at most a * frames + b tokens.
        max_tokens: frames in a batch.
        tokenize, lowercase: sacrebleu's tokeniser, and scores without case.
        cpu: use no GPU.
        user_dir: fairseq plugin folder; ``None``: this package.
    """

    data: Path
    path: Path
    output: Path
    config_yaml: str
    subset: str
    segment_size: int
    max_len_a: float
    max_len_b: int
    max_tokens: int
    tokenize: str
    lowercase: bool
    cpu: bool
    user_dir: str | None = None

    def log(self, k: int) -> Path:
        """Return the path of the log of a ``k``."""
        return self.output / f"k{k}" / LOG_NAME

    def score(self, k: int) -> SimultaneousScores:
        """Translate by wait-k, unless that was done, and score.

        Raises:
            ValueError: there is no checkpoint, or the translation failed.
        """
        log = self.log(k)
        flags = ["--simul-waitk-lagging", str(k), "--simul-log", str(log)]
        self._translate(log.parent, [*flags, "--simul-segment-size", str(self.segment_size)], [log])
        return score_log(log, self.tokenize, self.lowercase)

    def offline_bleu(self) -> float:
        """Translate with the whole source, greedily as well, unless that was done; return BLEU.

        Raises:
            ValueError: there is no checkpoint, or the translation failed.
        """
        generated = offline.read_generated(self._translate(self.output / "whole", [], []))
        references = [text for texts in offline.read_sets(self.data, self.subset).values() for text in texts]
        return offline.score(offline.pair_up(generated, references), references, self.tokenize, self.lowercase).bleu

    def _translate(self, folder: Path, flags: list[str], logs: list[Path]) -> Path:
        """Translate the set, unless that was done; return the output of ``fairseq-generate``."""
        check_file(self.path, "check --path")
        output, command = folder / "generate.txt", self._command(flags)
        stamp = f"{shlex.join(command)} # {self._times()}\n"
        if not is_done(folder, stamp, [output, *logs]):
            run_program(command, make_folder(folder) / "log", output)
            mark_done(folder, stamp)
        return output

    def _command(self, flags: list[str]) -> list[str]:
        config = check_file(self.data / self.config_yaml, "check the data folder and --config-yaml")
        plugin = self.user_dir or user_dir()
        task = [str(self.data), "--user-dir", plugin, "--task", "speech_to_text_mla"]
        task += ["--config-yaml", self.config_yaml, "--gen-subset", self.subset, "--path", str(self.path)]
        limits = ["--beam", "1", "--max-len-a", str(self.max_len_a), "--max-len-b", str(self.max_len_b)]
        limits += ["--max-tokens", str(self.max_tokens), *(["--cpu"] if self.cpu else [])]
        text = read_text(config)
        try:
            settings = parse_yaml(text)
        except ValueError:  # fairseq-generate reports it
            settings = None
        if isinstance(settings, dict) and settings.get("prepend_tgt_lang_tag"):
            limits += ["--prefix-size", "1"]  # the tag of the target language
        return ["fairseq-generate", *task, *limits, *flags]

    def _times(self) -> str:
        """Return the times at which the files that a translation depends on were changed."""
        manifests = [self.data / f"{name}.tsv" for name in self.subset.split(",")]
        files = [self.path, *manifests, self.data / self.config_yaml]
        files += sorted(self.data.glob("*.npz"))
        return " ".join(str(path.stat().st_mtime_ns) for path in files if path.is_file())


def simulate(agent: str, flags: list[str], folder: Path) -> Path:
    """Translate a test set by an agent of this package under SimulEval, unless that was done; return the log.

    Raises:
        ValueError: SimulEval failed.
    """
    command = ["simuleval", "--agent-class", f"mla_fairseq.agents.{agent}", *flags]
    log, stamp = folder / LOG_NAME, shlex.join(command) + "\n"
    if not is_done(folder, stamp, [log]):
        (make_folder(folder) / "made-by").unlink(missing_ok=True)  # SimulEval writes the log while it runs
        run_program([*command, "--output", str(folder)], folder / "simuleval.log")
        mark_done(folder, stamp)
    return log


def write_sweep(
    output: Path,
    knob: str,
    scores: Mapping[str, SimultaneousScores],
    system: str | None = None,
    title: str = "",
    offline_bleu: float | None = None,
) -> Path | None:
    """Write a sweep's points.tsv and its picture; return the path of the picture.

    There is no picture, ``None``, without matplotlib or if all translations are empty. The log reports both.

    Args:
        output: folder to write to.
        knob: what sets the latency: ``k`` or ``setting``.
        scores: scores by the value of the knob.
        system: name in table and picture; ``None``: the folder's name.
        title: title above the picture.
        offline_bleu: BLEU with the whole source, if known.
    """
    name, more = system or real_path(output).name, {} if offline_bleu is None else {OFFLINE: offline_bleu}
    rows = [{"system": name, knob: value, **asdict(score), **more} for value, score in scores.items()]
    write_points(output / "points.tsv", rows)
    for value, score in scores.items():
        if score.al is None:
            logger.warning("%s = %s: every translation is empty, so it has no latency", knob, value)
    points = [point for point in read_points(output / "points.tsv") if "al" in point.figures]
    try:
        return draw_quality_latency(points, output / "quality-latency", title=title)[0] if points else None
    except ModuleNotFoundError as error:
        logger.warning("no pictures: %s: %s", error, install("plots"))
        return None
