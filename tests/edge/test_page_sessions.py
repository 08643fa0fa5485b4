# ruff: noqa: F811 -- arguments are fixtures
"""Sessions of the page, in Node.js with onnxruntime-web: they emit what those of the package do, at the same time."""

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mla_fairseq.edge.speech_to_text import export_speech
from mla_fairseq.streaming import SearchOptions, Translator
from mla_fairseq.streaming.choice import begin_long
from tests.edge.scripts import NODE, run_script
from tests.edge.site import PACKAGES
from tests.streaming.conftest import joint, multilingual, noise  # noqa: F401 -- fixtures

RUNTIME = PACKAGES / "onnxruntime-web" / "dist" / "ort.node.min.mjs"
pytestmark = [
    pytest.mark.skipif(not NODE, reason="the scripts of the page need Node.js: apt-get install nodejs"),
    pytest.mark.skipif(
        not RUNTIME.exists(), reason=f"onnxruntime-web is not in {PACKAGES}: see INSTALL in edge/page.py"
    ),
]

IMPORTS = f"""
import * as ort from "{RUNTIME.as_uri()}";
import {{ loadModel }} from "./page/model.js";
import {{ LongSession }} from "./page/long.js";
ort.env.wasm.numThreads = 1;
"""
BODY = """
  const model = await loadModel(ort, (name) => readFileSync(new URL(`model/${name}`, import.meta.url)));
  const translate = async ({ samples, segment, choice }) => {
    const session = new LongSession(model, choice);
    const all = Float32Array.from(samples, (sample) => sample / 32768);
    const found = [];
    for (let start = 0; start < all.length; start += segment) {
      found.push(...(await session.push(all.slice(start, start + segment))));
    }
    found.push(...(await session.push(new Float32Array(0), true)));
    return found.map(({ text, ended, time, stretch, start }) => [text, ended, time, stretch, start]);
  };
  const results = [];
  for (const task of given) results.push(await translate(task));
  return results;
"""
# recordings: nothing, less than a frame, a stretch, several with pauses and zeros before them
RECORDINGS = [
    np.zeros(0, np.int16),
    noise(0.02),
    noise(1.7, 1),
    np.concatenate(
        [np.zeros(3000, np.int16), noise(2.3, 2), noise(0.6, 3) // 400, noise(4.1, 4), noise(0.31, 5) // 400]
    ),
    noise(6.0, 6),
]
BOUNDARY = "--boundary-weight 1 --context-ratio 0.8 --criterion label_smoothed_cross_entropy_mla"
MODELS = {
    "boundary": (f"--attn-type cosformer {BOUNDARY}",),
    "relu": ("--attn-type relu",),
    "softmax": (f"--attn-type softmax --encoder-left-chunks 3 {BOUNDARY}",),
    "convtransformer": (f"--attn-type relu {BOUNDARY}", "convtransformer_simul_mla"),
}
FAST = "softmax"  # with rings, and a boundary output


@pytest.fixture(scope="module")
def load(translator: Callable[..., Translator]) -> Callable[[str], Translator]:
    """``load(name)``: one of ``MODELS``; its boundary output finds speech and ends of sentences at random."""

    @functools.cache
    def load(name: str) -> Translator:
        model = translator(*MODELS[name])
        if (boundary := model.model.encoder.boundary) is not None:
            torch.nn.init.normal_(boundary.linear.weight, std=0.2, generator=torch.Generator().manual_seed(1))
            boundary.linear.bias.data = torch.tensor([-4.0, 7.0])
        return model

    return load


def expected(model: Translator, samples: np.ndarray, lagging: int, language: str | None = None) -> list[list[Any]]:
    """Return the emissions of the package."""
    session = begin_long(model, number=lagging, options=SearchOptions(tgt_lang=language))
    emissions = session.push(samples, final=True)
    return [[e.text, e.sentence_ended, e.milliseconds, e.stretch, e.start] for e in emissions]


def emitted(folder: Path, tasks: list[tuple[np.ndarray, int, str | None]]) -> list[list[list[Any]]]:
    """Return the emissions of the page for recordings in segments of several sizes."""
    given = [
        {"samples": samples.tolist(), "segment": 1000 + 977 * i, "choice": {"lagging": lagging, "language": language}}
        for i, (samples, lagging, language) in enumerate(tasks)
    ]
    return run_script(folder, IMPORTS, BODY, given)


@pytest.fixture(scope="module")
def exported(
    load: Callable[[str], Translator], data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """``exported(name)``: a folder with the folder ``model`` of one of ``MODELS``."""

    @functools.cache
    def exported(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        export_speech(load(name), data, folder / "model", 30.0, SearchOptions(), int8=False)
        return folder

    return exported


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == FAST else pytest.mark.slow) for name in MODELS]
)
def test_long_sessions_emit_the_same(
    name: str, load: Callable[[str], Translator], exported: Callable[[str], Path]
) -> None:
    tasks = [(samples, 1 + i % 3, None) for i, samples in enumerate(RECORDINGS)]
    found = emitted(exported(name), tasks)
    assert found == [expected(load(name), samples, lagging) for samples, lagging, _ in tasks]
    emissions = [emission for recording in found for emission in recording]
    assert len(emissions) > 5 and len({stretch for *_, stretch, _ in emissions}) > 1


@pytest.mark.slow
def test_a_language_is_chosen(multilingual: Callable[..., Path], joint: Path, tmp_path: Path) -> None:
    model = Translator.load(multilingual("--attn-type relu"), joint)
    export_speech(model, joint, tmp_path / "model", 30.0, SearchOptions(tgt_lang=model.languages[0]), int8=False)
    tasks = [(RECORDINGS[2], 2, language) for language in model.languages]
    found = emitted(tmp_path, tasks)
    assert found == [expected(model, samples, 2, language) for samples, _, language in tasks]
    assert found[0] != found[1]


def damage(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:-1] + b"?")


def change(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | values))


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "graph": (lambda folder: damage(folder, "decoder.onnx"), "decoder.onnx is damaged: copy the whole folder"),
    "tokens": (lambda folder: damage(folder, "tokens.txt"), "tokens.txt is damaged: copy the whole folder"),
    "cut": (lambda folder: damage(folder, "config.json"), "config.json is not complete: copy the whole folder"),
    "format": (lambda folder: change(folder, format=2), "config.json is not of a model for speech translation"),
    "type": (lambda folder: change(folder, type="text-to-spectrogram"), "config.json is not of a model for speech"),
    "policy": (lambda folder: change(folder, policy={"type": "monotonic"}), "the policy of the model (monotonic)"),
    "files": (lambda folder: change(folder, files={}), "the folder has no tokens.txt: copy the whole folder"),
}


def test_a_damaged_folder_is_reported(exported: Callable[[str], Path], tmp_path: Path) -> None:
    for name, (break_it, _) in DAMAGES.items():
        break_it(Path(shutil.copytree(exported(FAST) / "model", tmp_path / name)))
    body = """
      const load = async (folder) => {
        try {
          await loadModel(ort, (name) => readFileSync(new URL(`${folder}/${name}`, import.meta.url)));
        } catch (error) {
          return error.message;
        }
      };
      return Promise.all(given.map(load));"""
    messages = run_script(tmp_path, IMPORTS, body, list(DAMAGES))
    for message, (_, expected) in zip(messages, DAMAGES.values(), strict=True):
        assert expected in message
