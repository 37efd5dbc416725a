from __future__ import annotations

import errno
import os

import pytest

from common.errors import InputError, no_place, told


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


@pytest.mark.parametrize(
    ("number", "named", "text"),
    [
        (errno.ENOSPC, (), "output: No space left on device → make room and run it again"),
        (errno.EACCES, ("a.nii.gz",), "a.nii.gz: Permission denied → give another path, or its rights"),
        (errno.EROFS, ("out",), "out: Read-only file system → give another folder"),
    ],
)
def test_a_disk_that_is_full_or_closed_is_told_whatever_comes_of_it(
    number: int, named: tuple[str, ...], text: str
) -> None:
    error = OSError(number, os.strerror(number), *named)
    assert no_place(error)
    assert told(raised(error, RuntimeError("unexpected pos 64 vs 0"), RuntimeError("Failed to evaluate"))) == text


def test_other_errors_of_files_are_left_as_they_are() -> None:
    error = OSError(errno.EIO, os.strerror(errno.EIO), "a.pt")
    assert not no_place(error)
    assert told(error).startswith("OSError: [Errno 5]")
