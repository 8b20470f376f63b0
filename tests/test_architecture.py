"""Imports run one way: config ← replicator.binlog ← replicator, loader.

Read from the source text, so that an import inside a function or under
TYPE_CHECKING counts as well. The command-line floor may see both legs: it is
where they are put together.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("config", "replicator", "loader")
FLOOR = ("replicator.cli", "replicator.pipeline", "replicator.sandbox")
MODULES = sorted(path for package in OURS for path in (ROOT / package).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def imported(path: Path) -> Iterator[str]:
    """Every module of ours that `path` names in an import, as a full name."""
    here = module_name(path).split(".")
    package = here if path.name == "__init__.py" else here[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if within(name, *OURS))


def allowed(importer: str, name: str) -> bool:
    """Whether the module `importer` may import what `name` stands for."""
    if within(importer, "config"):
        return within(name, "config")
    if within(importer, "replicator.binlog"):
        return within(name, "config", "replicator.binlog")
    if within(importer, "loader"):
        return within(name, "config", "replicator.binlog", "loader")
    if within(importer, *FLOOR) or importer == "replicator.__main__":
        return True
    return within(name, "config", "replicator") and not within(name, *FLOOR)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_module_imports_only_in_the_allowed_direction(path: Path) -> None:
    importer = module_name(path)
    assert [name for name in imported(path) if not allowed(importer, name)] == []


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_module_says_what_it_owns(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_no_module_is_named_after_nothing(path: Path) -> None:
    assert path.stem not in {"utils", "util", "common", "helpers", "misc"}


@pytest.mark.parametrize(
    ("importer", "name", "verdict"),
    [
        ("config.settings", "config.errors", True),
        ("config.settings", "replicator.binlog.events", False),
        ("replicator.binlog.events", "replicator.exact", False),
        ("replicator.exact", "replicator.binlog.events", True),
        ("replicator.exact", "loader.batch", False),
        ("replicator.daemon", "replicator.sandbox", False),
        ("replicator.cli.main", "loader.batch", True),
        ("replicator.sandbox.demo", "loader.daemon", True),
        ("loader.upsert", "replicator.binlog.schema", True),
        ("loader.upsert", "replicator.exact", False),
    ],
)
def test_the_rule_itself(importer: str, name: str, verdict: bool) -> None:
    assert allowed(importer, name) is verdict


def test_every_kind_of_import_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / "loader" / "inner" / "module.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "import replicator.exact\n"
        "from config import errors\n"
        "from . import near\n"
        "from ..batch import Fold\n"
        "def f():\n    from replicator.daemon import run\n"
        "import json\n"
    )
    assert set(imported(path)) == {
        "replicator.exact",
        "config.errors",
        "loader.inner.near",
        "loader.batch.Fold",
        "replicator.daemon.run",
    }
