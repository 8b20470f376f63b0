"""Build a compiled module with the compiler's checks of memory, and run a fuzzer on it.

The build reads its input from a copy that ends where the input ends (KERNEL_FENCED), so that
AddressSanitizer sees the first byte that is read behind it. A fuzzer is a program of its own,
since the sanitizers must be loaded before everything else; its last line on standard output
is a dict that counts how its damaged inputs ended.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CHECKS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
MUTATIONS = int(os.environ.get("KERNEL_FUZZ_MUTATIONS", "6000"))
BUILD = """
import sys
from Cython.Build import cythonize
from setuptools import Distribution, Extension
name, directory, *checks = sys.argv[1:]
extension = Extension(
    name, [name.replace(".", "/") + ".pyx"], define_macros=[("KERNEL_FENCED", None)],
    extra_compile_args=["-O0", "-g1", *checks], extra_link_args=checks,
)
built = cythonize([extension], language_level=3, build_dir=directory, force=True, quiet=True)
command = Distribution({"name": "fenced", "ext_modules": built}).get_command_obj("build_ext")
command.build_lib = command.build_temp = directory
command.ensure_finalized()
command.run()
"""


def build_checked(name: str, directory: Path, *, edges: bool = False) -> Path:
    """The module `name`, such as loader.kernel, built with checks under `directory`.

    `edges`: it tells of each edge that it passes, to the library that `edges_library` makes.
    """
    pytest.importorskip("Cython", reason="without Cython no checked build of the kernel")
    if not _runtimes():
        pytest.skip("this machine has no gcc with AddressSanitizer")
    done = subprocess.run(
        [sys.executable, "-c", BUILD, name, str(directory), *CHECKS,
         *(["-fsanitize-coverage=trace-pc"] if edges else [])],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    package, _, module = name.rpartition(".")
    (built,) = directory.joinpath(*package.split(".")).glob(f"{module}.*.so")
    return built


def edges_library(directory: Path) -> Path:
    """What counts the edges that a build with `edges` passes, made under `directory`."""
    library = directory / "edges.so"
    if not library.exists():
        source = Path(__file__).with_name("edges.c")
        subprocess.run(
            ["gcc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library), str(source)],
            check=True,
        )
    return library


def run_fuzzer(
    program: Path,
    built: Path,
    corpus: Path,
    *more: str,
    edges: Path | None = None,
    count: int = MUTATIONS,
) -> dict[str, int]:
    """How `count` damaged inputs ended; fails where the program finds fault with one.

    `edges`: the library that a build with edges needs.
    """
    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join([*_runtimes(), *([str(edges)] if edges else [])]),
        "PYTHONMALLOC": "malloc",  # so that each object has borders that are watched
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:exitcode=99",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    done = subprocess.run(
        [sys.executable, str(program), str(built), str(corpus), "1", str(count), *more],
        env=environment, cwd=ROOT, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    ended: dict[str, int] = ast.literal_eval(done.stdout.splitlines()[-1])
    return ended


def module_at(name: str, path: str) -> Any:
    """Within a fuzzer: the checked build, as the module that it stands for."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _runtimes() -> list[str]:
    """The sanitizers' libraries, to be loaded before everything else; [] where there are none."""
    if shutil.which("gcc") is None:
        return []
    found = [
        subprocess.run(
            ["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    return found if all(os.path.isabs(path) for path in found) else []
