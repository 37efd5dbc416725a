from __future__ import annotations

import pytest

from common.errors import InputError, told


def raised(*chain: Exception) -> Exception:
    """The last of the errors, each raised because of the one before it."""
    before: Exception | None = None
    for error in chain:
        try:
            raise error from before
        except Exception as caught:
            before = caught
    assert before is not None
    return before


def test_the_first_cause_is_told_and_not_its_wrappers() -> None:
    error = raised(TypeError("'int' object is not subscriptable"), RuntimeError("Failed to instantiate"))
    assert told(error) == "TypeError: 'int' object is not subscriptable"
    assert told(ValueError("first line\nsecond")) == "ValueError: first line"


def test_an_error_while_another_is_handled_is_told_by_that_one() -> None:
    with pytest.raises(RuntimeError) as caught:
        try:
            raise KeyError("network")
        except KeyError:
            raise RuntimeError("cleaning up")  # noqa: B904
    assert told(caught.value) == "KeyError: 'network'"


def test_what_was_raised_from_none_has_no_cause() -> None:
    with pytest.raises(RuntimeError) as caught:
        try:
            raise KeyError("looked up")
        except KeyError:
            raise RuntimeError("there is no such network") from None
    assert told(caught.value) == "RuntimeError: there is no such network"


@pytest.mark.parametrize("place", range(3))
def test_an_input_error_wins_wherever_it_stands(place: int) -> None:
    chain: list[Exception] = [OSError("no file"), RuntimeError("wrapper")]
    chain.insert(place, InputError("a.pt", "cannot be read", "give another"))
    assert told(raised(*chain)) == "a.pt: cannot be read → give another"
