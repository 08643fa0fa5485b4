"""The folder of the page: which files it gets, and what is reported."""

import json
import re
import shutil
from pathlib import Path

import pytest

from mla_fairseq.edge.page import INSTALL, RUNTIME, VERSION, write_page
from mla_fairseq.speech import pauses, samples
from mla_fairseq.streaming import boundary, detectors, long
from tests.edge.scripts import PAGE
from tests.programs import run
from tests.streaming.conftest import Save

PARTS = ("encoder", "reader", "decoder")
TWINS = {"long.js": (long,), "detectors.js": (boundary, detectors, pauses), "source.js": (samples,)}
OTHERS = {"PAUSE", "RATE", "INITIAL", "LOWEST", "UNKNOWN", "BANKS"}  # numbers without the same name in the package
CONFIG = {"format": 1, "type": "speech-to-text", "policy": {"type": "waitk"}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a model with graphs of both kinds."""
    names = ["tokens.txt", "frontend.onnx", *(f"{part}{kind}.onnx" for part in PARTS for kind in ("", ".int8"))]
    for name in names:
        (tmp_path / "model" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "model" / name).write_text(name)
    files = {name: {"bytes": len(name), "sha256": ""} for name in names}
    (tmp_path / "model" / "config.json").write_text(json.dumps(CONFIG | {"files": files}))
    return tmp_path / "model"


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """Return a folder ``node_modules``."""
    package = tmp_path / "node_modules" / "onnxruntime-web"
    (package / "dist").mkdir(parents=True)
    (package / "package.json").write_text(json.dumps({"version": VERSION}))
    for name in RUNTIME:
        (package / "dist" / name).write_text(name)
    return tmp_path / "node_modules"


def stored(folder: Path) -> tuple[str, dict[str, int]]:
    """Return the version and the files that the service worker of a page stores."""
    text = (folder / "sw.js").read_text("utf-8")
    found = re.match(r'const VERSION = "(\w{16})";\nconst FILES = (\{.*?\});\n', text, re.DOTALL)
    assert found
    return found[1], json.loads(found[2])


def test_the_service_worker_stores_all_that_the_page_loads(folder: Path, packages: Path) -> None:
    size = write_page(folder, packages)
    files = stored(folder)[1]
    assert size == sum(files.values())
    assert {"./", "config.json", "tokens.txt", "frontend.onnx", "page/ort/ort.js"} <= set(files)
    assert {f"{part}.int8.onnx" for part in PARTS} <= set(files)
    assert not {f"{part}.onnx" for part in PARTS} & set(files), "float graphs are not used"
    for name, expected in files.items():
        assert (folder / (name if name != "./" else "index.html")).stat().st_size == expected
    sources = [path.read_text("utf-8") for path in [folder / "index.html", *(folder / "page").glob("*.js")]]
    imported = {name for text in sources for name in re.findall(r'["/]([\w-]+\.(?:js|css))"', text)} - {"sw.js"}
    assert imported == {Path(name).name for name in files if re.search(r"\.(js|css)$", name)}


def test_the_version_changes_with_every_file(folder: Path, packages: Path) -> None:
    write_page(folder, packages)
    version = stored(folder)[0]
    write_page(folder, packages)
    assert stored(folder)[0] == version
    (folder / "decoder.int8.onnx").write_text("another one")
    write_page(folder, packages)
    assert stored(folder)[0] != version


def test_a_missing_runtime_is_reported_with_the_command_that_installs_it(folder: Path, packages: Path) -> None:
    before = sorted(folder.iterdir())
    for name in (*(f"dist/{name}" for name in reversed(RUNTIME)), "package.json"):
        (packages / "onnxruntime-web" / name).unlink()
        with pytest.raises(ValueError, match=rf"onnxruntime-web/{name} is missing: run `{INSTALL}`"):
            write_page(folder, packages)
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("description", ['{"version": "1.29.0"}', "[]"])
def test_another_version_of_the_runtime_is_reported(folder: Path, packages: Path, description: str) -> None:
    (packages / "onnxruntime-web" / "package.json").write_text(description)
    with pytest.raises(ValueError, match=rf"but the page needs {VERSION}: run `{INSTALL}`"):
        write_page(folder, packages)


@pytest.mark.parametrize("values", [{"policy": {"type": "monotonic"}}, {"type": "text-to-spectrogram", "policy": {}}])
def test_a_model_that_the_page_cannot_run_is_reported(folder: Path, packages: Path, values: dict[str, object]) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIG | {"files": {}} | values))
    with pytest.raises(ValueError, match=r"another policy \((monotonic|text-to-spectrogram)\): remove --web"):
        write_page(folder, packages)
    assert not (folder / "page").exists()


def test_mla_export_adds_the_page_to_a_new_folder_and_to_one_that_it_replaces(
    save: Save, data: Path, packages: Path, tmp_path: Path
) -> None:
    output = tmp_path / "site"
    shutil.copytree(PAGE, output / "page")
    (output / "config.json").write_text(json.dumps(CONFIG | {"files": {}}))  # as of an earlier export
    done = run("mla-export", save("--attn-type relu"), "--data", data, "--output", output, "--web", packages)
    assert done.code == 0, done.err
    assert f"--directory {output} and open http://localhost:8000" in done.out
    assert {"index.html", "sw.js", "page", "config.json"} < {path.name for path in output.iterdir()}
    for name, size in stored(output)[1].items():
        assert (output / (name if name != "./" else "index.html")).stat().st_size == size


def test_mla_export_reports_a_missing_runtime_before_it_loads_the_model(tmp_path: Path) -> None:
    flags = ("--data", tmp_path, "--output", tmp_path / "site", "--web", tmp_path)
    done = run("mla-export", tmp_path / "no_checkpoint.pt", *flags)
    assert done.code and done.last_line.endswith(f"run `{INSTALL}`, and give its node_modules to --web")
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize("script", TWINS)
def test_numbers_of_scripts_are_those_of_the_package(script: str) -> None:
    text = (PAGE / script).read_text("utf-8")
    found = dict(re.findall(r"^(?:export )?const ([A-Z]+) = ([\d.]+);", text, re.MULTILINE))
    package = {name: value for module in TWINS[script] for name, value in vars(module).items()}
    numbers = {name: float(value) for name, value in found.items() if name not in OTHERS}
    assert numbers and numbers == {name: package[name] for name in numbers}
