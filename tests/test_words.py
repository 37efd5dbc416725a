"""Every word of a command line is looked at before the command runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from common.cli import main
from common.cli.words import checked_words, value_of
from common.errors import InputError


class Commands:
    def measure(
        self,
        bundle: str,
        data: str,
        out: str = "out",
        max_cases: int | None = None,
        device: str | None = None,
        fpr: float = 0.01,
        replace: bool = False,
        split: str | None = "validation",
    ) -> None:
        """Stand in for a command that writes."""

    def pack(self, *names: str, out: str = "dist") -> None:
        """Stand in for a command that takes any number of names."""


@pytest.mark.parametrize(
    ("words", "rewritten"),
    [
        ("a b", "a b"),
        ("a b c", "a b c"),
        ("--bundle a --data=b", "--bundle=a --data=b"),
        ("-bundle a -o c b", "b --bundle=a --out=c"),
        ("a b --max-cases 3", "a b --max_cases=3"),
        ("a b --fpr -3", "a b --fpr=-3"),
        ("a b -m=3", "a b --max_cases=3"),
        ("a b --replace", "a b --replace=True"),
        ("--replace --bundle a b", "b --replace=True --bundle=a"),
        ("a b --noreplace", "a b --replace=False"),
        ("a b --no-replace c", "a b c --replace=False"),
        ("a b --replace False", "a b --replace=False"),
        ("a b --split=", "a b --split="),
        ("a b -- --trace", "a b -- --trace"),
        ("a --data b --help", "--help"),
        ("-h", "--help"),
    ],
)
def test_words_as_fire_reads_them(words: str, rewritten: str) -> None:
    assert checked_words(["measure", *words.split()], Commands) == ["measure", *rewritten.split()]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("a b --outt c", "'--outt': is no option of 'measure' → write --out"),
        ("a b --maxcases=3", "'--maxcases=3': is no option of 'measure' → write --max_cases"),
        ("a b --zzz", "'--zzz': is no option of 'measure' → see anomaly-zoo measure --help"),
        ("a b -z", "'-z': is no option of 'measure' → see anomaly-zoo measure --help"),
        ("a b -", "'-': is no option of 'measure' → see anomaly-zoo measure --help"),
        ("a -d b", "'-d': could be --data, --device → write it in full"),
        ("a b --noout", "'--noout': is no option of 'measure' → write --out"),
        ("a b --noreplace=True", "'--noreplace=True': is no option of 'measure' → write --replace"),
        ("a b --out", "'--out': has no value → write --out VALUE"),
        ("a b --out --replace", "'--out': has no value → write --out VALUE"),
        ("--bundle a b c d e f True test more", "'more': is a word too many for 'measure' → see"),
    ],
)
def test_words_that_are_refused(words: str, told: str) -> None:
    with pytest.raises(InputError, match=re.escape(told)):
        checked_words(["measure", *words.split()], Commands)


def test_any_number_of_names() -> None:
    assert checked_words(["pack", *"abcdefg", "--out", "x"], Commands) == ["pack", *"abcdefg", "--out=x"]
    with pytest.raises(InputError, match="'--names': is no option"):
        checked_words(["pack", "--names", "a"], Commands)


def test_commands_that_are_none() -> None:
    with pytest.raises(InputError, match="'measur': is no command → write measure"):
        checked_words(["measur", "a"], Commands)
    with pytest.raises(InputError, match="'__init__': is no command → see anomaly-zoo --help"):
        checked_words(["__init__"], Commands)
    for words in ([], ["--help"], ["--", "--completion"]):
        assert checked_words(words, Commands) == words


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("3", int | None, 3),
        ("None", int | None, None),
        ("None", str | None, None),
        ("None", str, "None"),
        ("1e3", str | None, "1e3"),
        ("007", str, "007"),
        ("a,b", str, "a,b"),
        ("1", float, 1.0),
        ("True", bool, True),
        ("False", bool, False),
    ],
)
def test_values_are_of_the_kind_that_is_asked_for(text: str, kind: Any, value: Any) -> None:
    made = value_of(text, "name", kind)
    assert made == value
    assert type(made) is type(value)


@pytest.mark.parametrize(
    ("text", "option", "kind", "told"),
    [
        ("abc", "max_cases", int | None, "--max_cases abc: is no whole number → write e.g. 10"),
        ("1.5", "max_cases", int | None, "--max_cases 1.5: is no whole number"),
        ("0", "max_cases", int | None, "--max_cases 0: is less than 1 → write 1 or more"),
        ("-1", "seed", int, "--seed -1: is less than 0 → write 0 or more"),
        ("None", "draws", int, "--draws None: is no whole number"),
        ("abc", "fpr", float, "--fpr abc: is no number → write e.g. 0.01"),
        ("false", "replace", bool, "--replace false: is neither True nor False → write True or False"),
    ],
)
def test_values_of_another_kind_are_refused(text: str, option: str, kind: Any, told: str) -> None:
    with pytest.raises(InputError, match=re.escape(told)):
        value_of(text, option, kind)
    assert value_of("0", "attack_cases", int) == value_of("0", "seed", int) == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("calibrate --bundle dae --data {0} --outt thr.json", "'--outt': is no option of 'calibrate' → write --out"),
        ("compare --data {0} --out {0}/o --max_cases abc", "--max_cases abc: is no whole number"),
        ("compare --data {0} --out {0}/o --score_only false", "--score_only false: is neither True nor False"),
        ("calibrate dae {0} abc", "--fpr abc: is no number"),
        ("package dae --out {0}/o --replace false", "--replace false: is neither True nor False"),
    ],
)
def test_nothing_runs_before_all_words_are_right(
    words: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*args: Any, **options: Any) -> None:
        raise AssertionError("it runs")

    for place in ("release.package", "evaluation.calibrate.calibrate", "evaluation.comparison.compare"):
        monkeypatch.setattr(f"common.{place}", run)
    with pytest.raises(SystemExit) as stop:
        main(words.format(tmp_path).split())
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {told}")


def test_commands_get_their_values(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr("common.evaluation.calibrate.calibrate", lambda *args, **options: given.update(options) or {})
    main(["calibrate", "thor,dae", "scans", "--split", "01", "--fpr", "1", "--device", "0"])
    assert {key: given[key] for key in ("split", "fpr", "device")} == {"split": "01", "fpr": 1.0, "device": "0"}


def test_help_of_a_command_does_not_run_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("common.evaluation.calibrate.calibrate", None)
    with pytest.raises(SystemExit) as stop:
        main(["calibrate", "--bundle", "dae", "--data", str(tmp_path), "--help"])
    assert stop.value.code == 0
    assert "--calibrated_on" in "".join(capsys.readouterr())
