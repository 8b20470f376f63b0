"""The errors an operator may meet, as a part of `docs/operations.md`.

python -m config.errors_page    writes that part anew; a test keeps it as it is

Left: the tree of `config.errors`, and the places in the source where one of its errors is made.
Right: for each kind what it means, and below it each message with what to do. What only the
moment knows (a name, a position) stands as …, as do words that are put together elsewhere. So
whoever changes a message or a hint changes the document, or hears of it from the test.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from config import errors
from config.errors import Halt, ReplicatorError, Transient

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "operations.md"
BEGIN: Final = "<!-- Made by `python -m config.errors_page`; a test keeps it as it is. -->"
END: Final = "<!-- Made until here. -->"
_ROOMS: Final = ("config", "replicator", "loader")
_NOT_MET: Final = ("replicator/sandbox",)
"""Errors of the throwaway servers are nobody's who operates a pipeline."""
_SOME: Final = "…"


@dataclass(frozen=True, slots=True, order=True)
class Said:
    """One message of a kind of error, and its own remedy; "" where it is the kind's."""

    kind: str
    message: str
    remedy: str


def kinds() -> list[type[ReplicatorError]]:
    """Every kind of the tree, as it is written there."""
    found = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, ReplicatorError)
    ]
    return [kind for kind in found if kind is not ReplicatorError]


def said_in(source: str) -> Iterator[Said]:
    """What a module says. Pure."""
    names = {kind.__name__ for kind in kinds()}
    tree = ast.parse(source)
    known = dict(_texts(tree))
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.args:
            if call.func.id not in names:
                continue
            hint = next((word.value for word in call.keywords if word.arg == "hint"), None)
            hint = call.args[1] if hint is None and len(call.args) > 1 else hint
            message = _words(call.args[0], known)
            if message.strip(f"{_SOME} :;,.()"):
                yield Said(call.func.id, message, "" if hint is None else _words(hint, known))


def _texts(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """A module's constants by name."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            yield node.target.id, node.value


def _words(node: ast.expr, known: Mapping[str, ast.expr]) -> str:
    """The text of an expression, as far as it stands there."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.Name) and isinstance(found := known.get(node.id), ast.Constant):
        return str(found.value)
    if isinstance(node, ast.FormattedValue):
        return _words(node.value, known) if isinstance(node.value, ast.Name) else _SOME
    if isinstance(node, ast.JoinedStr):
        text = "".join(_words(part, known) for part in node.values)
        return text.replace(_SOME + _SOME, _SOME)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _words(node.left, known) + _words(node.right, known)
    if isinstance(node, ast.IfExp):
        return f"{_words(node.body, known)} / {_words(node.orelse, known)}"
    return _SOME


@cache
def everything_said() -> tuple[Said, ...]:
    """All messages of the program, without repeats, in order."""
    found: set[Said] = set()
    for room in _ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            if not path.relative_to(ROOT).as_posix().startswith(_NOT_MET):
                found.update(said_in(path.read_text(encoding="utf-8")))
    return tuple(sorted(found))


def as_markdown() -> str:
    """The document's part, with its marks."""
    said = everything_said()
    sections = [
        _section(kind, [one for one in said if one.kind == kind.__name__]) for kind in kinds()
    ]
    return "\n\n".join([BEGIN, *sections, END])


def _section(kind: type[ReplicatorError], said: list[Said]) -> str:
    meaning = " ".join((kind.__doc__ or "").split())
    lines = [f"### {kind.__name__}", "", f"{meaning} *{_handling(kind)}* {kind.remedy}"]
    if said:
        lines += ["", "| message | what to do |", "|---|---|"]
        lines += [f"| {_cell(one.message)} | {_cell(one.remedy) or 'as above'} |" for one in said]
    return "\n".join(lines)


def _handling(kind: type[ReplicatorError]) -> str:
    if issubclass(kind, Transient):
        return "The daemon waits and tries again."
    if issubclass(kind, Halt):
        return "The daemon stops with exit code 2."
    return ""


def _cell(text: str) -> str:
    """One line of a table; what Markdown would take for its own is as it is."""
    line = " ".join(text.split())
    for mark in ("\\", "|", "<", ">", "*", "_", "`", "[", "]"):
        line = line.replace(mark, "\\" + mark)
    return line


def brought_up_to_date(page: str) -> str:
    """The document with its part made anew. Pure but for the sources; ValueError without marks."""
    before, begin, rest = page.partition(BEGIN)
    _old, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name} has no marks: {BEGIN} and {END}")
    return before + as_markdown() + after


if __name__ == "__main__":
    PAGE.write_text(brought_up_to_date(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stderr.write(f"{PAGE.name}: {len(everything_said())} messages\n")
