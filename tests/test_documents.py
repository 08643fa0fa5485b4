"""The documents match the code: links lead somewhere, Python runs, tables and references are complete."""

import ast
import importlib
import inspect
import re
import runpy
from types import SimpleNamespace

import pytest
import yaml

from mla_fairseq import (
    plugin,  # noqa: F401 -- registers the architectures
)
from mla_fairseq.attention import registry
from mla_fairseq.streaming.settings import Settings
from tests.documents import FENCE, NAMES, ROOT, TEXTS, blocks


def anchors(name: str) -> set[str]:
    """Return the anchors of a document's headings, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", TEXTS[name]), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    for link, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", TEXTS[name]):
        path = ROOT.joinpath(name).parent.joinpath(link).resolve() if link else ROOT / name
        assert path.exists(), link
        assert not anchor or anchor in anchors(path.relative_to(ROOT).as_posix()), f"{link}#{anchor}"


@pytest.mark.parametrize("name", NAMES)
def test_named_files_exist(name: str) -> None:
    named = re.findall(r"(?<![\w/.$-])(?:configs|scripts|examples|tests|docs|mla_fairseq)/[\w/.*-]*\w[*]?", TEXTS[name])
    assert not [path for path in named if not any(ROOT.glob(path))]


PYTHON = [(f"{name}-{place}", block) for place, (name, block) in enumerate(blocks("python"))]


@pytest.mark.parametrize("block", [block for _, block in PYTHON], ids=[name for name, _ in PYTHON])
def test_python_calls_what_exists(block: str) -> None:
    """Import every name, and bind the arguments of every call of one that is imported."""
    found: dict[str, object] = {}
    for node in ast.walk(tree := ast.parse(block)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            found |= {alias.name: getattr(module, alias.name) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (called := _called(node.func, found)):
            keywords = {keyword.arg: None for keyword in node.keywords}
            inspect.signature(called).bind(*node.args, **keywords)


def _called(function: ast.expr, found: dict[str, object]) -> object:
    """Return the imported object that an expression such as ``Layout.at`` names, or ``None``."""
    *owners, name = ast.unparse(function).split(".")
    target = found.get(owners[0] if owners else name)
    return getattr(target, name) if owners and target else target


@pytest.mark.parametrize("block", [block for _, block in PYTHON], ids=[name for name, _ in PYTHON])
def test_python_that_needs_no_checkpoint_runs(block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))  # what a block registers is for it alone
    if ".load(" not in block:
        exec(compile(block, "block", "exec"), {"__name__": "block"})


def test_a_state_gives_the_same_as_the_whole(capsys: pytest.CaptureFixture[str]) -> None:
    block = next(block for _, block in PYTHON if "nbytes(state)" in block)
    exec(compile(block, "block", "exec"), {})
    difference, size = re.fullmatch(r"tensor\((.+), grad_fn=.*\) (\d+)\n", capsys.readouterr().out).groups()
    assert float(difference) < 1e-4
    assert 0 < int(size) < 1_000_000


def test_yaml_is_that_of_a_recipe() -> None:
    recipes = [path.read_text(encoding="utf-8") for path in ROOT.glob("configs/*/*.yaml")]
    shown = [block for _, block in blocks("yaml") if not block.startswith("type: ")]
    assert shown and all(any(block in recipe for recipe in recipes) for block in shown)


def test_yaml_for_simulstream_is_its_configuration() -> None:
    (shown,) = (yaml.safe_load(block) for _, block in blocks("yaml") if block.startswith("type: "))
    assert shown == yaml.safe_load((ROOT / "configs/simulstream/processor.yaml").read_text(encoding="utf-8"))
    settings = Settings.read(SimpleNamespace(**shown))
    module, _, name = shown["type"].rpartition(".")
    assert f"class {name}(" in (ROOT / module.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8")
    keys = {key for row in re.findall(r"^\| (`[a-z_`, ]+) \|", TEXTS["docs/guides/long_recordings.md"], re.MULTILINE)
            for key in re.findall(r"\w+", row)}  # fmt: skip
    assert keys >= vars(settings).keys() - {"model_path", "data_bin"}


def test_the_dockerfile_copies_what_exists() -> None:
    text = (ROOT / "examples/simulstream/Dockerfile").read_text(encoding="utf-8")
    arguments = dict(re.findall(r"^ARG (\w+)=(.*)$", text, re.MULTILINE))
    settings = yaml.safe_load((ROOT / arguments["PROCESSOR"]).read_text(encoding="utf-8"))
    assert (arguments["MODEL"], arguments["DATA"]) == (settings["model_path"], settings["data_bin"])
    sources = [word for line in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE) for word in line.split()]
    assert len(sources) > 8 and all((ROOT / word).exists() for word in sources if "$" not in word)


def test_the_readme_is_short() -> None:
    text = TEXTS["README.md"]
    for output in (body for name, body in blocks("text") if name == "README.md"):  # shows more than it tells
        text = text.replace(output, "")
    assert len(text.split()) <= 900


@pytest.mark.parametrize("page", ["attention", "streaming", "agents", "recipes"])
def test_the_reference_has_every_public_name(page: str) -> None:
    module = importlib.import_module(f"mla_fairseq.{page}")
    shown = re.findall(rf"^::: {module.__name__}\.(\w+)$", TEXTS[f"docs/reference/{page}.md"], re.MULTILINE)
    assert sorted(shown) == sorted(module.__all__)


@pytest.fixture
def only_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the mechanisms of examples and of other tests in this process."""
    ours = {
        name: entry for name, entry in registry._ENTRIES.items() if entry.build.__module__.startswith("mla_fairseq.")
    }
    monkeypatch.setattr(registry, "_ENTRIES", ours)


@pytest.mark.usefixtures("only_ours")
@pytest.mark.parametrize(
    ("script", "make", "page"),
    [("mechanisms", "table", "mechanisms.md"), ("commands", "document", "reference/commands.md")],
)
def test_generated_pages_match_the_code(script: str, make: str, page: str) -> None:
    """Run ``python scripts/describe_mechanisms.py`` or ``describe_commands.py`` to write a page again."""
    assert TEXTS[f"docs/{page}"] == runpy.run_path(str(ROOT / "scripts" / f"describe_{script}.py"))[make]()
