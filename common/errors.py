"""The one error that a user's input can cause."""

from __future__ import annotations

__all__ = ["InputError"]


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
