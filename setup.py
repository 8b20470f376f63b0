"""Build the optional Cython kernel; everything else stands in pyproject.toml.

The package works without it, decoding with mysql-replication instead. So a
missing kernel source, a missing Cython and a missing compiler each end in an
install without the extension, never in a failed install.
"""

from __future__ import annotations

from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

KERNEL = "loader/kernel.pyx"


def kernel() -> list[Extension]:
    if not Path(__file__).with_name("loader").joinpath("kernel.pyx").exists():
        return []
    try:
        from Cython.Build import cythonize  # noqa: PLC0415 - absent where no kernel is wanted
    except ImportError:
        return []
    extension = Extension("loader.kernel", [KERNEL], optional=True, extra_compile_args=["-O3"])
    return list(cythonize([extension], language_level=3))


class BuildIfPossible(build_ext):
    """Setuptools' own `optional` does not cover a compiler that is not there at all."""

    def build_extension(self, ext: Extension) -> None:
        try:
            super().build_extension(ext)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the fallback works
            self.warn(f"{ext.name} is not built, decoding will be slower: {exc}")


setup(ext_modules=kernel(), cmdclass={"build_ext": BuildIfPossible})
