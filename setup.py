"""Build the optional Cython kernel; everything else stands in pyproject.toml.

The package works without it, decoding with mysql-replication instead. So a
missing kernel source, a missing Cython and a missing compiler each end in an
install without the extension, never in a failed install.
"""

from __future__ import annotations

from pathlib import Path

from setuptools import Extension, setup

KERNEL = "loader/kernel.pyx"


def kernel() -> list[Extension]:
    if not Path(__file__).with_name("loader").joinpath("kernel.pyx").exists():
        return []
    try:
        from Cython.Build import cythonize  # noqa: PLC0415 - absent where no kernel is wanted
    except ImportError:
        return []
    extension = Extension("loader.kernel", [KERNEL], extra_compile_args=["-O3"])
    built: list[Extension] = cythonize([extension], language_level=3)
    for extension in built:
        extension.optional = True  # set only here: cythonize makes new objects and forgets it
    return built


setup(ext_modules=kernel())
