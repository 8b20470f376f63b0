"""Choose the row decoder and the fold: the compiled ones where they were built, else Python's.

Both give the same, byte for byte; the compiled ones are a hundred times as fast.
An install without a C compiler has no kernel and works.
"""

from __future__ import annotations

from typing import Literal

from config.errors import ConfigError
from loader.fold import Fold, KeylessFold, PythonFold
from loader.keeping import keeping_of
from loader.rows import PythonDecoder, RowDecoder, TablePlan
from loader.versions import VersionsFold

Choice = Literal["auto", "kernel", "python"]


def best_decoder(choice: Choice = "auto") -> RowDecoder:
    """The fastest decoder there is, or the one asked for; ConfigError where it was not built."""
    if choice == "python":
        return PythonDecoder()
    try:
        from loader.kernel import KernelDecoder  # noqa: PLC0415 - may not have been built
    except ImportError as error:
        if choice == "kernel":
            raise ConfigError("the row kernel was not built", hint=BUILD_HINT) from error
        return PythonDecoder()
    return KernelDecoder()


def new_fold(plan: TablePlan, choice: Choice = "auto") -> Fold | KeylessFold:
    """An empty fold for a table's changes under `plan`."""
    if not plan.key:
        return KeylessFold(plan, best_decoder(choice))
    keeping = keeping_of(plan.schema)
    if keeping:
        return VersionsFold(plan, best_decoder(choice), keeping)
    if choice == "python":
        return PythonFold(plan, PythonDecoder())
    try:
        from loader.kernel_fold import KernelFold  # noqa: PLC0415 - may not have been built
    except ImportError as error:
        if choice == "kernel":
            raise ConfigError("the row kernel was not built", hint=BUILD_HINT) from error
        return PythonFold(plan, PythonDecoder())
    return KernelFold(plan)


def is_compiled() -> bool:
    """Will rows be decoded by the kernel? Without it the loader is right, but slow."""
    return not isinstance(best_decoder(), PythonDecoder)


BUILD_HINT = "Install a C compiler and Python's headers, then install the package again."
