"""The one error that a user's input can cause, and what else a user can mend."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from types import TracebackType

__all__ = ["InputError", "input_error", "no_place", "show_plainly", "told"]

_NO_PLACE = {
    errno.ENOSPC: "make room and run it again",
    errno.EDQUOT: "make room and run it again",
    errno.EROFS: "give another folder",
    errno.EACCES: "give another path, or its rights",
}


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
    """What a user should read of an error: the ``InputError`` behind it, if there is one, else where it began.

    Args:
        error: with its causes. MONAI wraps what goes wrong in a config, so the first of them says most.
    """
    cause = input_error(error)
    if cause is not None:
        return str(cause)
    *_, first = _causes(error)
    return f"{type(first).__name__}: {first}".splitlines()[0]


def input_error(error: BaseException) -> InputError | None:
    """What the user can mend of an error: the ``InputError`` among its causes, else a disk that is full or closed."""
    chain = list(_causes(error))
    own = next((each for each in chain if isinstance(each, InputError)), None)
    return own or next((_as_input_error(each) for each in chain if no_place(each)), None)


def no_place(error: BaseException) -> bool:
    """Whether a file system was full, or may not be written or read."""
    return isinstance(error, OSError) and error.errno in _NO_PLACE


def _as_input_error(error: BaseException) -> InputError:
    assert isinstance(error, OSError)
    assert error.errno is not None
    # A file that fills up while it is written is not named.
    return InputError(error.filename or "output", str(error.strerror), _NO_PLACE[error.errno])


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what caused it, and so on; one that was raised ``from None`` has no cause."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def show_plainly() -> None:
    """From here on what a user can mend ends the program with one line on standard error, without a traceback."""
    previous = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        cause = input_error(error)
        if cause is None:
            previous(kind, error, trace)
        else:
            print(f"error: {cause}", file=sys.stderr)

    if getattr(previous, "__module__", "") != __name__:
        sys.excepthook = hook
