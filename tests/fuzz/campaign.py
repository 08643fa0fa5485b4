"""Draw cases from a seed, run them, and judge what happened."""

import re
import shutil
import time
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.fuzz.commands import COMMANDS, Command
from tests.fuzz.mutations import BYTES, MUTATIONS, Mutation
from tests.fuzz.world import KINDS
from tests.programs import Done

GOOD = ("right", "clear error", "of SimulEval")
BAD = ("traceback", "unclear error", "silent", "hang", "crash", "code ran", "data changed")
SHORTER = ("lines", "log", "recipe")  # files that may be whole after a cut: with fewer lines or flags
WARNING = re.compile(
    r"\bWARNING\b|warning:|symbols that the training set does not contain|(clips|segments) kept|was cut short"
)


@dataclass(frozen=True)
class Case:
    """A command, the file that is mutated, and how; ``number`` and the seed give it again."""

    number: int
    name: str
    file: str
    mutation: Mutation
    random: Random

    @property
    def command(self) -> Command:
        """Return the command that is run."""
        return COMMANDS[self.name]


@dataclass(frozen=True)
class Outcome:
    """A case that was run."""

    case: Case
    verdict: str
    changed: object
    last_line: str
    seconds: float

    def __str__(self) -> str:
        case, what = self.case, f" ({self.changed})" if self.changed else ""
        head = f"case {case.number}: {self.verdict}: {case.name}, {case.file}: {case.mutation.name}{what}"
        return f"{head}, {self.seconds:.1f} s\n    {self.last_line[-400:]}"


def draw(seed: int, number: int) -> Case:
    """Return a case; commands, files and mutations are drawn evenly, each after the one before."""
    random = Random(f"{seed} {number}")  # a text, so that the numbers of all cases differ
    name = random.choice(sorted(COMMANDS))
    file = random.choice(COMMANDS[name].files)
    special = random.random() < 0.7
    mutation = random.choice(MUTATIONS[KINDS[file]] if special else BYTES)
    if mutation.name == "a pipe" and file == "live/names.txt":  # an input that programs rightly wait for
        mutation = BYTES[0]
    return Case(number, name, file, mutation, random)


class Campaign:
    """Run cases on copies of a world, all in the same place, so that outputs do not differ by their paths.

    Args:
        world: the folder that ``make_world`` made at ``place``.
        place: where cases find their copy.
    """

    def __init__(self, world: Path, place: Path) -> None:
        self.world, self.place = world, place
        self.usual: dict[str, object] = {}

    def run(self, case: Case) -> Outcome:
        """Mutate a copy, run the command and judge."""
        if case.name not in self.usual:
            self.copy()
            done = case.command.run(self.place)
            assert done.code == 0, f"{case.name} fails without any mutation: {done.err[-3000:]}"
            self.usual[case.name] = case.command.result(done, self.place)
            assert self.usual[case.name], f"{case.name} has no result to compare with"
        self.copy()
        changed = case.mutation.apply(case.random, self.place / case.file)
        begin = time.monotonic()
        done = case.command.run(self.place)
        seconds = time.monotonic() - begin
        return Outcome(case, self.judge(case, done, seconds), changed, done.last_line, seconds)

    def copy(self) -> None:
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(self.world, self.place)

    def judge(self, case: Case, done: Done, seconds: float) -> str:
        """Return one of ``GOOD`` or ``BAD``."""
        if list(self.place.rglob("executed")) or Path("executed").exists():
            return "code ran"
        theirs = case.command.line.startswith("simuleval") and case.file.endswith(".wav")  # SimulEval opens the audio
        if done.code < 0 or done.code in (134, 139):
            return "of SimulEval" if theirs else "hang" if seconds >= case.command.seconds else "crash"
        if "Traceback (most recent call last)" in done.err + done.out:
            ours = "mla_fairseq/" in done.err.rpartition("simuleval/")[2]
            return "of SimulEval" if theirs and not ours else "traceback"
        if done.code:
            return "clear error" if is_clear(done.last_line, case) else "unclear error"
        try:
            same = case.command.result(done, self.place) == self.usual[case.name]
        except Exception as error:  # no result is one that differs
            same = isinstance(error, AssertionError)
        harmful = case.mutation.harmful and not self.is_whole(case)
        return "right" if same or not harmful or WARNING.search(done.err + done.out) else "silent"

    def is_whole(self, case: Case) -> bool:
        """Tell whether a file that was cut or replaced can be a right one: nobody knows what its lines should say."""
        if case.mutation.name == "another file" and KINDS[case.file] == "lines":
            texts = [(folder / case.file).read_text(encoding="utf-8") for folder in (self.place, self.world)]
            return len({text.count("\n") for text in texts}) == 1
        return case.mutation.name == "cut" and KINDS[case.file] in SHORTER


def is_clear(line: str, case: Case) -> bool:
    """Tell whether an error names a file, a flag or a value."""
    path = Path(case.file)
    named = path.name in line or path.stem in line or path.parent.name in line
    return "error: " in line and (named or bool(re.search(r"--[a-z]|'.+'|\(.+\)|\d|is missing", line)))


def campaign(
    seed: int, numbers: range, seconds: float, world: Path, place: Path, only: Collection[str] = ()
) -> Iterator[Outcome]:
    """Yield the outcomes of cases, of ``only`` some commands or of all, until the time is over."""
    end, runner = time.monotonic() + seconds, Campaign(world, place)
    for number in numbers:
        if time.monotonic() > end:
            return
        case = draw(seed, number)
        if not only or case.name in only:
            yield runner.run(case)


def table(outcomes: list[Outcome]) -> str:
    """Return counts of verdicts by command and kind of file, as a markdown table."""
    columns = [*GOOD, *(name for name in BAD if any(one.verdict == name for one in outcomes))]
    rows = ["| command | file | cases | " + " | ".join(columns) + " |", "|---|---|" + "---:|" * (len(columns) + 1)]
    groups: dict[tuple[str, str], Counter[str]] = {}
    for one in outcomes:
        for key in ((one.case.name, KINDS[one.case.file]), ("~all", "")):
            groups.setdefault(key, Counter())[one.verdict] += 1
    for (name, kind), counts in sorted(groups.items()):
        cells = [counts.total(), *(counts[column] for column in columns)]
        rows.append(f"| {name.strip('~')} | {kind} | " + " | ".join(map(str, cells)) + " |")
    return "\n".join(rows)
