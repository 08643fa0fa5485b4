"""From YAML files and ``--set`` to a recipe: one base at most, variables filled in."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mla_fairseq.files import file_name, real_path, unusable
from mla_fairseq.recipes.layers import TEXTS, near, parse_overrides, read_layers
from mla_fairseq.recipes.stages import CONFIGS, STAGES, arguments

RUNS = Path("runs")
_VARIABLE = re.compile(r"\$\{([\w.]+)\}")


@dataclass(frozen=True, eq=False)
class Recipe:
    """One experiment.

    Attributes:
        name: the run's folder in the folder of all runs.
        run: path of that folder.
        again: the command that runs the recipe again.
        tree: the sections, with ``data`` (name of the prepared data) and ``title``; variables are filled in.
        shown: the same, with the folder of the corpora as ``$DATA``.
        recorded: the same, with the folder of all runs as ``$RUNS`` too: what is compared with earlier runs, which may
            have been moved.
    """

    name: str
    run: Path
    again: str
    tree: dict[str, Any]
    shown: dict[str, Any]
    recorded: dict[str, Any]

    def stages(self) -> Iterator[str]:
        """Yield the names of this recipe's stages, in the order in which they run."""
        yield from (name for name in STAGES if name in self.tree)

    def command(self, name: str) -> list[str]:
        """Return the command of a stage."""
        return [*STAGES[name].program, *arguments(STAGES[name], self.tree[name])]

    def show(self, name: str) -> str:
        """Return the command of a stage as a line for the shell."""
        words = [*STAGES[name].program, *arguments(STAGES[name], self.shown[name])]
        return " ".join(f'"{word}"' if word.startswith("$DATA") else shlex.quote(word) for word in words)

    def makes(self, name: str) -> Path:
        """Return the file or folder that a stage writes."""
        return Path(STAGES[name].makes.format(**self.tree))

    def manifest(self, subset: str) -> Path:
        """Return the path of a set's manifest."""
        return Path(self.tree["train"]["data"], f"{subset}.tsv")


def load_recipe(
    path: Path, out: Path = RUNS, overrides: Iterable[str] = (), name: str = "", data: str = "", cpu: bool = True
) -> Recipe:
    """Read a recipe.

    Args:
        path: the YAML file; one that is missing is looked up in ``CONFIGS``. Its ``base``, a path relative to its
            folder, is read first; the keys of the file win.
        out: folder of all runs, ``${RUNS}`` in recipes.
        overrides: ``section.key=value``, the value in YAML; ``section=null`` leaves a stage out;
            other sections still find its values.
        name: folder of the run in ``out``; FOLDER_FILE of the recipe when empty.
        data: folder of the corpora, ``${DATA}`` in recipes; not set when empty.
        cpu: there is no GPU. A training in float16 needs one, so that its commands are those for a GPU all the same.

    Raises:
        ValueError: a file, section or variable that is missing, a value that is not YAML or a name with slashes.
    """
    path = find_recipe(path)
    overrides, default = list(overrides), f"{real_path(path).parent.name}_{path.stem}"
    name = name or default
    layers = [*read_layers(path), parse_overrides(overrides)]
    sections = _sections(path, _plain(OmegaConf.merge({"data": name}, *layers)), name)
    given = OmegaConf.merge(*({key: one for key, one in layer.items() if one is not None} for layer in layers))
    wiring = {key: dict(STAGES[key].flags) for key in STAGES if key in given}
    cpu = cpu and not OmegaConf.select(given, "train.fp16")
    places: dict[str, Any] = {"RUNS": out.as_posix(), "RUN": (out / name).as_posix(), "NAME": name}
    places |= {"CPU": cpu, "DEVICE": "cpu" if cpu else "cuda"}
    places["CHECKPOINT"] = "${average.output}" if "average" in sections else "${train.save_dir}/checkpoint_best.pt"
    tree = _plain(OmegaConf.merge({key: name for key in TEXTS}, wiring, given, places))
    moved = tree | {"RUNS": "$RUNS", "RUN": f"$RUNS/{name}"}
    ways = ((tree, data), (tree, "$DATA"), (moved, "$DATA"))
    filled, shown, recorded = (_resolve(path, way, folder, (*TEXTS, *sections)) for way, folder in ways)
    again = _again(path, overrides, name if name != default else "")
    return Recipe(name, out / name, again, filled, shown, recorded)


def find_recipe(path: Path) -> Path:
    """Return the path of a recipe: the file itself, or the packaged one, such as ``mustc/st.yaml``.

    Raises:
        ValueError: neither exists.
    """
    for place in (path, CONFIGS / path, CONFIGS.parent / path):  # the last for configs/mustc/st.yaml, from any folder
        if not unusable(place):
            return place
    known = sorted(one.relative_to(CONFIGS).as_posix() for one in CONFIGS.glob("*/*.yaml"))
    raise ValueError(f"recipe {path} {unusable(path)}: {near(path.as_posix(), known)}")


def _plain(tree: DictConfig | ListConfig) -> dict[str, Any]:
    """Return the sections as a dictionary, variables as they are written."""
    plain = OmegaConf.to_container(tree)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _sections(path: Path, tree: dict[str, Any], name: str) -> list[str]:
    """Return the names of the sections; one that is null is left out."""
    if not tree.get("train"):
        raise ValueError(f"{path}: there is no section 'train': add one, or name a base that has it")
    for key, value in (("--name", name), ("data", tree["data"])):
        if value in (None, "", ".", "..") or "/" in str(value):
            raise ValueError(f"{key} is '{value or ''}': give the name of one folder, without slashes")
        file_name(str(value), key)
    return [key for key, value in tree.items() if isinstance(value, dict)]


def _resolve(path: Path, sections: dict[str, Any], data: str, keys: tuple[str, ...]) -> dict[str, Any]:
    """Fill in the variables of the sections ``keys``."""
    tree = OmegaConf.create(sections | ({"DATA": data} if data else {}))
    try:
        _check_lists(path, sections, tree, keys)
        return {key: OmegaConf.to_container(tree[key], resolve=True) if key in STAGES else tree[key] for key in keys}
    except OmegaConfBaseException as error:
        if "'DATA'" in str(error):
            raise ValueError(f"{path}: DATA is not set: export DATA=/folder/of/the/corpora") from error
        problem = str(error).splitlines()[0]
        if missing := re.search(r"key '(.+)' not found", problem):
            problem = f"{missing[1]} is not given: add it; if this is a base, run a recipe that names it as its base"
        raise ValueError(f"{path}: {error.full_key}: {problem}") from error


def _check_lists(path: Path, sections: dict[str, Any], tree: DictConfig | ListConfig, keys: tuple[str, ...]) -> None:
    """Check that no list is filled into a longer text, such as the name of a folder."""
    stages = ((key, sections[key]) for key in keys if key in STAGES)
    for key, flag, value in ((key, flag, value) for key, section in stages for flag, value in section.items()):
        if isinstance(value, str) and not _VARIABLE.fullmatch(value):
            for variable in _VARIABLE.findall(value):
                if OmegaConf.is_list(OmegaConf.select(tree, variable)):
                    raise ValueError(
                        f"{path}: {key}.{flag} needs one {variable}, which is a list: set {key}.{flag} too"
                    )


def _again(path: Path, overrides: list[str], name: str) -> str:
    """Return the command of a recipe; a packaged one has the same path in it wherever the package is installed."""
    real = real_path(path)
    shown = real.relative_to(CONFIGS.parent) if real.is_relative_to(CONFIGS) else path
    words = ["mla-recipe", shown.as_posix(), *(["--set", *overrides] if overrides else [])]
    threads = os.environ.get("OMP_NUM_THREADS")
    return (f"OMP_NUM_THREADS={threads} " if threads else "") + shlex.join(words + (["--name", name] if name else []))
