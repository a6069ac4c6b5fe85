"""The layout that docs/architecture.md promises: who may import whom, no cycles, files of a size to read."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("lib_fluxkontext", "scripts", "benchmarks", "tools", "examples", "tests")
MAX_LINES = 300


@cache
def modules() -> dict[str, Path]:
    """Every module of the project by its dotted name."""
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}
    return {name.removesuffix(".__init__"): path for name, path in names.items()}


@cache
def imports() -> dict[str, set[str]]:
    """What each module imports of the project, inside of functions too."""
    found: dict[str, set[str]] = {}
    for name, path in modules().items():
        found[name] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    submodule = f"{node.module}.{alias.name}"
                    found[name].add(submodule if submodule in modules() else node.module)
            elif isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names}
        found[name] &= modules().keys() - {name}
    return found


def violations(importers: str, imported: str) -> list[str]:
    """Imports from one part of the package into another, as ``"importer → imported"``."""
    return [
        f"{name} → {target}"
        for name, targets in imports().items()
        for target in targets
        if re.match(importers, name) and re.match(imported, target)
    ]


def test_the_imports_were_read() -> None:
    assert "lib_fluxkontext.sampling.session" in imports()["lib_fluxkontext.hosts.forge.lifecycle.generation"]
    assert len(modules()) > 100


def test_there_is_no_import_cycle() -> None:
    left = {name: set(targets) for name, targets in imports().items()}
    while leaves := [name for name, targets in left.items() if not targets]:
        for leaf in leaves:
            del left[leaf]
        for targets in left.values():
            targets.difference_update(leaves)
    assert left == {}, "modules on a cycle, or importing one"


@pytest.mark.parametrize(
    ("importers", "imported"),
    [
        (r"lib_fluxkontext\.(?!hosts|commands|__main__)", r"lib_fluxkontext\.(hosts|commands)"),
        (r"lib_fluxkontext\.hosts", r"lib_fluxkontext\.commands"),
        (r"lib_fluxkontext\.hosts\.forge", r"lib_fluxkontext\.hosts\.diffusers"),
        (r"lib_fluxkontext\.hosts\.diffusers", r"lib_fluxkontext\.hosts\.forge"),
        (r"lib_fluxkontext\.caching", r"lib_fluxkontext\.(settings|hooks|sampling|telemetry|references)"),
        (r"lib_fluxkontext\.hooks", r"lib_fluxkontext\.(settings|sampling|telemetry)"),
        (r"lib_fluxkontext\.telemetry", r"lib_fluxkontext\.(settings|hooks|sampling)"),
        (r"lib_fluxkontext\.hosts\.forge\.(runtime|lifecycle)", r"lib_fluxkontext\.hosts\.forge\.ui"),
        (r"lib_fluxkontext", r"(tests|benchmarks|tools|examples)\b"),
        (r"benchmarks", r"tests\.(?!support)"),
    ],
)
def test_imports_go_one_way(importers: str, imported: str) -> None:
    assert violations(importers, imported) == []


def test_no_file_is_too_long_to_read() -> None:
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules().items()}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def test_every_file_that_the_architecture_names_exists() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w/]+\.(?:py|json|css|js))`", text))
    assert len(named) > 30
    missing = [
        name for name in sorted(named) if not any((base / name).exists() for base in (ROOT, ROOT / "lib_fluxkontext"))
    ]
    assert missing == []
