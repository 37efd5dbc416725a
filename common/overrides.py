"""Words of ``python -m monai.bundle run`` that no config knows, which MONAI takes without a word."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import re
import sys
from ast import literal_eval
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.options import number, whole_number

__all__ = ["check_overrides"]

_LEAST = {
    "batch_size": 1, "max_epochs": 1, "max_steps": 1, "val_interval": 1, "save_interval": 1,
    "num_workers": 0, "patience": 0, "warmup_steps": 0,
}  # fmt: skip
_NUMBERS = ("learning_rate", "ema_momentum", "weight_decay")

_TRACKING = {"tracking_uri", "experiment_name", "run_name"}


def check_overrides(words: Sequence[str] | None = None) -> None:
    """Stop if the command line of MONAI's bundle runner overrides a key that none of its config files has.

    Counts of epochs, steps, scans and processes are looked at too, and rates: with a 0 or a word some fail after the
    data was read, others save nothing.

    Args:
        words: of the command line, the program first; by default those of the process. Other programs are left alone.

    Raises:
        InputError: such a key, with the nearest one that there is; a count or rate that is none.
    """
    words = sys.argv if words is None else words
    if not (words and Path(words[0]).parts[-3:-1] == ("monai", "bundle")):
        return
    from monai.bundle import ConfigParser, run, run_workflow  # MONAI's parser is there already where its runner is

    given = _options(words[1:])
    if "args_file" in given:
        given = ConfigParser.load_config_file(given["args_file"]) | given
    own = {name for each in (run, run_workflow) for name in inspect.signature(each).parameters} | {"workflow_type"}
    own |= _TRACKING if "tracking" in given else set()
    files = given.get("config_file", [])
    known = set(ConfigParser.load_config_files(_listed(files)))
    for option in given:
        key = re.split("#|::", option)[0]
        if key not in known | own | {"_meta_"}:
            near = difflib.get_close_matches(key, known, n=1)
            remedy = f"did you mean --{near[0]}?" if near else "leave it away; the keys are in the bundle's README"
            raise InputError(f"--{option}", "is no key of the config", remedy)
        _check_value(option, given[option])
        value = str(given[option])
        if option.endswith("_dir") and re.fullmatch(r"[\d_]+", value):
            raise InputError(f"--{option} {value}", "is taken for a number", f"write ./{value}")


def _check_value(option: str, value: Any) -> None:
    """Refuse what is no count or no number where one is wanted; MONAI's expressions and references are left to it."""
    if isinstance(value, str):
        if value.startswith(("$", "@")):
            return
        with contextlib.suppress(ValueError, SyntaxError):
            value = literal_eval(value)
    if option in _LEAST:
        whole_number(f"--{option}", value, _LEAST[option])
    elif option in _NUMBERS:
        number(f"--{option}", value, 0)


def _options(words: Sequence[str]) -> dict[str, Any]:
    """``--name value`` and ``--name=value``, as Fire reads them; dashes in a name are underscores."""
    options: dict[str, Any] = {}
    for index, word in enumerate(words):
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word[2:].partition("=")
            options[name.replace("-", "_")] = value if equals else (words[index + 1 : index + 2] or [""])[0]
    return options


def _listed(files: Any) -> Any:
    """A list that was written as Python, or the name of one file."""
    if isinstance(files, str) and files.startswith(("[", "(")):
        return literal_eval(files)
    return files
