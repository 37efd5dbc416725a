"""The one error that a user's input can cause."""

from __future__ import annotations

import sys
from types import TracebackType

__all__ = ["InputError", "show_plainly", "told"]


class InputError(ValueError):
    """Something the user handed in cannot be used: says where, what is wrong, and what to do.

    Args:
        source: the file, folder or setting at fault.
        problem: what is wrong with it.
        remedy: what the user can do about it.
    """

    def __init__(self, source: object, problem: str, remedy: str) -> None:
        super().__init__(f"{source}: {problem} → {remedy}")
        self.source = str(source)
        self.problem = problem
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str, str]]:
        # Exceptions cross process borders (data loader workers) by pickling their arguments.
        return InputError, (self.source, self.problem, self.remedy)


def told(error: BaseException) -> str:
    """What a user should read of an error: the ``InputError`` behind it, if there is one, else its first line."""
    cause = _input_error(error)
    return str(cause) if cause is not None else f"{type(error).__name__}: {error}".splitlines()[0]


def _input_error(error: BaseException | None) -> InputError | None:
    """The one in a chain of causes."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__ or error.__context__
    return error


def show_plainly() -> None:
    """From here on an ``InputError`` ends the program with its own line on standard error, without a traceback."""
    previous = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        cause = _input_error(error)
        if cause is None:
            previous(kind, error, trace)
        else:
            print(f"error: {cause}", file=sys.stderr)

    if getattr(previous, "__module__", "") != __name__:
        sys.excepthook = hook
