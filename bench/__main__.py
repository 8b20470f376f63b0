"""`python -m bench [NAME…]`: run the benchmarks named, or all; JSON lines, then a table.

NAME is a module (`leg1`) or a figure (`leg1_oltp_vs_native`: its module is run). The JSON lines
alone go to standard output, each when it comes, so that a program can read them; the table goes
to standard error at the end. A benchmark that breaks is reported and does not keep the others
from running.

Exit code: 0 when every figure was measured, met or not; 1 when one is missing.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from importlib import import_module

from bench.goals import GOALS, MODULES
from bench.measure import ROUNDS_VARIABLE, Result
from bench.report import show, told


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print."""
    parser = _parser()
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in MODULES and name not in GOALS]
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)}; --list shows all")
    modules = chosen(options.names)
    if options.list:
        print(listing(modules))
        return 0
    if options.runs is not None:
        os.environ[ROUNDS_VARIABLE] = str(options.runs)
    results, broken = measured(modules)
    show(results)
    if broken:
        print(f"not measured: {', '.join(broken)}", file=sys.stderr)
    return 1 if broken else 0


def _parser() -> argparse.ArgumentParser:
    described = (__doc__ or "").partition("\n\n")[2]
    parser = argparse.ArgumentParser(prog="python -m bench", description=described)
    parser.add_argument("names", nargs="*", metavar="NAME", help="modules or figures; all of them")
    parser.add_argument("--list", action="store_true", help="only say what there is")
    parser.add_argument("--runs", type=_positive, help="runs behind each median (3)")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def chosen(names: Sequence[str]) -> list[str]:
    """The modules behind `names`, in their usual order; all when none is named."""
    return [m for m in MODULES if not names or m in names or MODULES[m].goals.keys() & set(names)]


def listing(modules: Sequence[str]) -> str:
    """Modules, their figures, and the goals."""
    lines = []
    for module in modules:
        lines.append(f"{module:<10} {MODULES[module].what}")
        lines += [f"    {bench:<36} {goal}" for bench, goal in MODULES[module].goals.items()]
    return "\n".join(lines)


def measured(modules: Sequence[str]) -> tuple[list[Result], list[str]]:
    """All results, and the figures that were owed and did not come."""
    results: list[Result] = []
    for module in modules:
        began = time.monotonic()
        try:
            for result in told(_results_of(module)):
                results.append(result)  # noqa: PERF402 - what came before a failure is kept
        except (Exception, SystemExit):
            traceback.print_exc()
        print(f"{module}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    came = {result.bench for result in results}
    return results, [b for module in modules for b in MODULES[module].goals if b not in came]


def _results_of(module: str) -> Iterator[Result]:
    run = import_module(f"bench.{module}").run  # only now: another may be broken
    yield from run()


if __name__ == "__main__":
    raise SystemExit(main())
