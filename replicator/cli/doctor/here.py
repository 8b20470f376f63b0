"""What must hold on this machine: the compiled modules. Pure but for asking what was built."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec

from replicator.cli.doctor.finding import Finding, ok, warn

HERE = "here"
COMPILED = (
    "loader.binary_copy",
    "loader.kernel",
    "loader.kernel_fold",
    "loader.load.copyrows",
    "replicator.binlog.frames",
    "replicator.binlog.packetcut",
    "replicator.binlog.rowkernel",
    "replicator.gathering",
)


def here_findings() -> Iterator[Finding]:
    """Everything about this installation."""
    yield kernel_finding([name for name in COMPILED if find_spec(name) is None])


def kernel_finding(missing: Sequence[str]) -> Finding:
    """Are rows handled in compiled code? `missing` are the modules that were not built."""
    if not missing:
        return ok(HERE, "row kernel", "compiled")
    return warn(
        HERE,
        "row kernel",
        f"not built: {', '.join(missing)}; Python does their work, exactly but slowly",
        "the compiled modules",
        "Install a C compiler and Python's headers (apt-get install gcc python3-dev), then"
        " install this package again.",
    )
