"""Choose the row decoder: the compiled kernel where it was built, else Python's.

Both give the same row changes, byte for byte; the kernel is a hundred times as fast.
An install without a C compiler has no kernel and works.
"""

from __future__ import annotations

from typing import Literal

from config.errors import ConfigError
from loader.rows import PythonDecoder, RowDecoder

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


def is_compiled() -> bool:
    """Will rows be decoded by the kernel? Without it the loader is right, but slow."""
    return not isinstance(best_decoder(), PythonDecoder)


BUILD_HINT = "Install a C compiler and Python's headers, then install the package again."
