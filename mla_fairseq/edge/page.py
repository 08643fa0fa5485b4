"""Write the page that translates speech in a browser: static files beside those of the model.

Everything is computed on the device, by onnxruntime-web, whose files are copied from a local folder. A service worker
stores all files at the first visit, so the page works without a network afterwards.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mla_fairseq.edge.runtime.names import CONFIG, TOKENS
from mla_fairseq.files import check_file, read_json, write_text

VERSION = "1.30.0"  # of onnxruntime-web; another one may need other files
INSTALL = f"npm install --ignore-scripts onnxruntime-web@{VERSION}"
# under names for which every server knows the type
RUNTIME = {"ort.wasm.bundle.min.mjs": "ort.js", "ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm"}
PAGE = ("index.html", "sw.js", "page")
"""What a folder has besides the model."""
PARTS = ("frontend", "encoder", "reader", "decoder")
HERE = Path(__file__).resolve().parent
LOOKS = HERE.parent / "live" / "page" / "live.css"  # both pages look the same


def find_runtime(packages: Path) -> Path:
    """Return the folder of the files of onnxruntime-web in a folder ``node_modules``.

    Raises:
        ValueError: a file is missing, or the version is another one.
    """
    package = packages / "onnxruntime-web"
    fix = f"run `{INSTALL}`, and give its node_modules to --web"
    description = read_json(check_file(package / "package.json", fix))
    version = description.get("version") if isinstance(description, dict) else None
    if version != VERSION:
        raise ValueError(f"{package} has version {version} of onnxruntime-web, but the page needs {VERSION}: {fix}")
    for name in RUNTIME:
        check_file(package / "dist" / name, fix)
    return package / "dist"


def check_policy(config: Mapping[str, Any]) -> None:
    """Check that the page can run a model, from its ``config.json``.

    Raises:
        ValueError: it is not a model for translation under wait-k.
    """
    policy = config.get("policy", {}).get("type", config["type"])
    if policy != "waitk":
        raise ValueError(
            f"the page follows only wait-k, but the model is made for another policy ({policy}): remove --web"
        )


def write_page(folder: Path, packages: Path) -> int:
    """Add the page to the folder of a model; return the bytes that a browser loads.

    Args:
        folder: what ``mla-export`` wrote.
        packages: ``node_modules`` with onnxruntime-web.

    Raises:
        ValueError: as ``find_runtime`` and ``check_policy``.
    """
    check_policy(read_json(folder / CONFIG))
    runtime = find_runtime(packages)
    shutil.copytree(HERE / "web" / "page", folder / "page", dirs_exist_ok=True)
    shutil.copy(HERE / "web" / "index.html", folder)
    shutil.copy(LOOKS, folder / "page")
    (folder / "page" / "ort").mkdir(exist_ok=True)
    for name, copied in RUNTIME.items():
        shutil.copy(runtime / name, folder / "page" / "ort" / copied)
    files = _files(folder)
    worker = (HERE / "web" / "sw.js").read_text(encoding="utf-8")
    sizes = {name: path.stat().st_size for name, path in files.items()}
    constants = {"VERSION": _version([*files.values(), HERE / "web" / "sw.js"]), "FILES": sizes}
    head = "".join(f"const {name} = {json.dumps(value, indent=2)};\n" for name, value in constants.items())
    write_text(folder / "sw.js", f"{head}\n{worker}")
    return sum(sizes.values())


def _files(folder: Path) -> dict[str, Path]:
    """Return the files that a browser needs, by their addresses."""
    exported = read_json(folder / CONFIG)["files"]
    # of both kinds of a graph, the page takes the smaller one, as mla-edge does
    graphs = [next(name for name in (f"{part}.int8.onnx", f"{part}.onnx") if name in exported) for part in PARTS]
    below = sorted(path.relative_to(folder).as_posix() for path in (folder / "page").rglob("*") if path.is_file())
    names = [CONFIG, TOKENS, *graphs, *below]
    # servers answer "./" with index.html; some send a redirection for the file itself
    return {"./": folder / "index.html"} | {name: folder / name for name in names}


def _version(files: list[Path]) -> str:
    """Return a text that changes with the contents of files."""
    return hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in files)).hexdigest()[:16]
