"""Build the optional Cython modules; everything else stands in pyproject.toml.

The package works without them, more slowly. So a missing Cython and a missing
compiler each end in an install without the extensions, never in a failed install.
"""

from __future__ import annotations

from pathlib import Path

from setuptools import Extension, setup

ROOT = Path(__file__).parent
PACKAGES = ("loader", "replicator")


def extensions() -> list[Extension]:
    try:
        from Cython.Build import cythonize  # noqa: PLC0415 - absent where no kernel is wanted
    except ImportError:
        return []
    sources = sorted(
        source.relative_to(ROOT)
        for package in PACKAGES
        for source in (ROOT / package).rglob("*.pyx")
    )
    wanted = [
        Extension(".".join(source.with_suffix("").parts), [str(source)], extra_compile_args=["-O3"])
        for source in sources
    ]
    built: list[Extension] = cythonize(wanted, language_level=3)
    for extension in built:
        extension.optional = True  # set only here: cythonize makes new objects and forgets it
    return built


setup(ext_modules=extensions())
