"""A data set whose bad cases do not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from monai.data import Dataset

from common.data.integrity import verify
from common.errors import InputError

__all__ = ["FAILURE", "CaseDataset", "failure_reason"]

FAILURE = "failure"
"""Key under which a case that cannot be used holds the reason, and nothing besides its name."""


class CaseDataset(Dataset):
    """Cases, each checked when its turn comes if ``keep_going``, and prepared by a transform.

    Args:
        data: cases as ``load_cases`` gives them.
        transform: the preprocessing.
        keep_going: a case that cannot be used becomes ``{"case": name, FAILURE: reason}``; otherwise it ends the run.
        channels: that each image must have; looked at where ``keep_going``, since ``load_cases`` has not.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Callable[[Any], Any],
        keep_going: bool = False,
        channels: int | None = 1,
    ) -> None:
        super().__init__(data, transform)
        self.keep_going, self.channels = keep_going, channels

    def _transform(self, index: int) -> Any:
        if not self.keep_going:
            return super()._transform(index)
        case = self.data[index]
        try:
            verify([case], channels=self.channels)
            return super()._transform(index)
        except Exception as error:
            return {"case": case["case"], FAILURE: failure_reason(error, case)}


def failure_reason(error: BaseException, case: Mapping[str, Any]) -> str:
    """Say in a line why a case failed, with its name in place of its files, whose folders may name a patient.

    Args:
        error: what was raised.
        case: the case, for its name and its files.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, InputError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        lines = str(error).splitlines()
        text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    else:
        text = f"{cause.problem} → {cause.remedy}"
    files = [value for key in ("image", "mask", "brain_mask") for value in _texts(case.get(key))]
    for file in sorted(files, key=len, reverse=True):
        text = text.replace(file, str(case["case"]))
    return " ".join(text.split())


def _texts(value: Any) -> list[str]:
    if isinstance(value, (list, tuple)):
        return [str(each) for each in value]
    name = getattr(value, "meta", {}).get("filename_or_obj", "") if not isinstance(value, str) else value
    return [str(name)] if name else []
