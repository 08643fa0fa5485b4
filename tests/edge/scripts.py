"""Run the scripts of the page in Node.js, outside of a browser."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import mla_fairseq

NODE = shutil.which("node")
PAGE = Path(mla_fairseq.__file__).resolve().parent / "edge" / "web" / "page"
FRAME = """
import { readFileSync } from "node:fs";
const given = JSON.parse(readFileSync(0, "utf8"));
const result = await (async () => { BODY })();
console.log(JSON.stringify(result));
"""


def run_script(folder: Path, imports: str, body: str, given: Any, seconds: float = 500) -> Any:
    """Return what the body of a function of ``given`` returns; ``folder`` gets a copy of the page's scripts."""
    if not (folder / "page").exists():
        shutil.copytree(PAGE, folder / "page")
    (folder / "package.json").write_text('{"type": "module"}')  # as in browsers
    (folder / "main.js").write_text(imports + FRAME.replace("BODY", body))
    command = [str(NODE), str(folder / "main.js")]
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
