"""Values of options that a command line or a config got wrong, refused where they come in."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from common.errors import InputError

__all__ = ["choice", "flag", "number", "odd_number", "whole_number"]


def choice(name: str, value: Any, known: Iterable[str]) -> str:
    """``value`` if it is one of the words that are known.

    Raises:
        InputError: it is not.
    """
    words = list(known)
    if not isinstance(value, str) or value not in words:
        raise InputError(f"{name} {value!r}", "is not known", f"choose one of {words}")
    return value


def flag(name: str, value: Any) -> bool:
    """``value`` if it is True or False; a command line makes the word ``false`` a text, which would count as true.

    Raises:
        InputError: it is something else.
    """
    if not isinstance(value, bool):
        raise InputError(f"{name} {value!r}", "is neither True nor False", "write True or False, as in Python")
    return value


def number(name: str, value: Any, least: float = -math.inf) -> float:
    """``value`` if it is a finite number of at least ``least``.

    Raises:
        InputError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{name} {value!r}", "is no number", "give one")
    if value < least:
        raise InputError(f"{name} {value!r}", "cannot be used", f"give a number of {least:g} or more")
    return value


def whole_number(name: str, value: Any, least: int) -> int:
    """``value`` if it is a whole number of at least ``least``.

    Raises:
        InputError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} {value!r}", "cannot be used", f"give a whole number, {least} or more")
    return value


def odd_number(name: str, value: Any) -> int:
    """``value`` if it is an odd number, as the side of a window around a pixel.

    Raises:
        InputError: it is not.
    """
    if whole_number(name, value, 1) % 2 == 0:
        raise InputError(f"{name} {value}", "is no odd number of pixels", "use 1, 3, 5, …")
    return int(value)
