"""Names of results that do not tell whose they are."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping

from common.data.kinds import dicom_tags, is_dicom

__all__ = ["names_patient", "private_name"]

# Name, other names, birth name, mother's name; identifier, others, accession number, admission, date of birth.
_NAMES = ("0010|0010", "0010|1001", "0010|1005", "0010|1060")
_NUMBERS = ("0010|0020", "0010|1000", "0008|0050", "0038|0010", "0010|0030")


def private_name(name: str, file: str) -> str:
    """The name of a case, unless it tells whose images these are: then one made of the series' identifier.

    Args:
        name: as the folders of a DICOM file say it.
        file: an image of the series; any other file keeps its name.

    Returns:
        ``name``, or ``series_`` and twelve digits that are the same wherever the series lies.
    """
    if not is_dicom(file):
        return name
    try:
        tags = dicom_tags(file)
    except RuntimeError:
        return f"series_{_digest(name)}"  # whose it is cannot be read: the folder may say it
    return f"series_{_digest(tags.get('0020|000e', name))}" if names_patient(name, tags) else name


def names_patient(text: str, tags: Mapping[str, str]) -> bool:
    """Whether a text holds a part of the patient's name, or a number by which the patient is known.

    Args:
        text: what would be shown.
        tags: of a DICOM header, as ``dicom_tags`` gives them.
    """
    words, whole = set(_words(text)), "".join(_words(text))
    for tag in _NAMES:
        for part in _words(tags.get(tag, "")):
            if len(part) > 1 and (part in words or (len(part) > 3 and part in whole)):
                return True
    for tag in _NUMBERS:
        for number in tags.get(tag, "").split("\\"):
            known = "".join(_words(number))
            if known and (known in words or (len(known) > 2 and known in whole)):
                return True
    return False


def _words(text: str) -> list[str]:
    """Runs of letters and digits, without accents and case."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    return re.findall(r"[^\W_]+", "".join(sign for sign in plain if not unicodedata.combining(sign)))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
