"""`python -m bench [NAME…]`: run the benchmarks named, or all; a table, then JSON lines."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.table import Table

from bench import decode
from bench.measure import Result

BENCHMARKS: dict[str, Callable[[], Iterator[Result]]] = {"decode": decode.run}


def main() -> int:
    """Run and print; progress goes to standard error."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    names = parser.parse_args().names or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)} (there are {', '.join(BENCHMARKS)})")
    results = []
    for name in names:
        for result in BENCHMARKS[name]():
            print(f"{result.bench}: {result.value}", file=sys.stderr, flush=True)
            results.append(result)
    show(results)
    return 0


def show(results: list[Result]) -> None:
    """The table, with a line for each candidate below each figure, and the JSON lines."""
    table = Table("bench", "value", "goal", "rate/s", "CPU s", "wall s", "peak MiB")
    for result in results:
        table.add_row(result.bench, f"{result.value:g}", result.goal)
        for name, run in result.details.get("runs", {}).items():
            cells = (run["cpu_seconds"], run["seconds"], run["peak_mib"])
            table.add_row(f"  {name}", "", "", f"{run['rate']:,}", *(f"{c:.2f}" for c in cells))
    Console(width=110).print(table)
    for result in results:
        print(result.line())


if __name__ == "__main__":
    raise SystemExit(main())
