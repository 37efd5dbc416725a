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


def while_handling(*, suppressed: bool) -> None:
    try:
        raise KeyError("network")
    except KeyError:
        if suppressed:
            raise RuntimeError("there is no network") from None
        raise RuntimeError("cleaning up")  # noqa: B904


@pytest.mark.parametrize(
    ("suppressed", "text"), [(False, "KeyError: 'network'"), (True, "RuntimeError: there is no network")]
)
def test_an_error_while_another_is_handled_unless_it_hides_it(suppressed: bool, text: str) -> None:
    with pytest.raises(RuntimeError) as caught:
        while_handling(suppressed=suppressed)
    assert told(caught.value) == text


@pytest.mark.parametrize("place", range(3))
def test_an_input_error_wins_wherever_it_stands(place: int) -> None:
    chain: list[Exception] = [OSError("no file"), RuntimeError("wrapper")]
    chain.insert(place, InputError("a.pt", "cannot be read", "give another"))
    assert told(raised(*chain)) == "a.pt: cannot be read → give another"
