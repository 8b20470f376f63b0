"""What must hold on this machine: the compiled modules. Pure but for asking what was built."""

from __future__ import annotations

from collections.abc import Iterator

from loader.decoder import is_compiled
from replicator.cli.doctor.finding import Finding, ok, warn

HERE = "here"


def here_findings() -> Iterator[Finding]:
    """Everything about this installation."""
    yield kernel_finding(compiled=is_compiled())


def kernel_finding(*, compiled: bool) -> Finding:
    """Does the loader decode rows in compiled code?"""
    if compiled:
        return ok(HERE, "row kernel", "compiled")
    return warn(
        HERE,
        "row kernel",
        "not built: rows are decoded in Python, which is exact but slow",
        "the compiled kernel",
        "Install a C compiler and Python's headers (apt-get install gcc python3-dev), then"
        " install this package again.",
    )
