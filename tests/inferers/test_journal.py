"""A run over many cases, seen from its journal: no network, no images."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from common.errors import InputError
from common.inferers import Journal
from common.inferers.evaluator import concerns_all
from common.networks import save_weights


@pytest.fixture
def weights(tmp_path: Path) -> str:
    import torch

    save_weights(torch.nn.Linear(2, 1), tmp_path / "models" / "model.pt")
    return str(tmp_path / "models" / "model.pt")


@pytest.fixture
def cases(tmp_path: Path) -> list[dict[str, Any]]:
    found = []
    for name in "abcde":
        (tmp_path / f"{name}.nii.gz").write_text(name)
        found.append({"case": name, "image": str(tmp_path / f"{name}.nii.gz")})
    return found


def journal(output: Path, weights: str, **options: Any) -> Journal:
    return Journal(output, options.pop("settings", {"level": 1}), weights, **options)


def do(made: Journal, case: str) -> None:
    made.output_dir.mkdir(exist_ok=True)
    (made.output_dir / f"{case}.out").touch()
    made.done(case, [f"{case}.out"], slices=2, evaluations=6)


def names(cases: list[dict[str, Any]]) -> list[str]:
    return [case["case"] for case in cases]


def test_finished_cases_are_left_out(tmp_path: Path, weights: str, cases: list[dict[str, Any]]) -> None:
    output = tmp_path / "output"
    first = journal(output, weights)
    assert names(first.pending(cases)) == list("abcde")
    for case in "abc":
        do(first, case)
    first.failed("d", "is damaged → copy it again")
    assert names(journal(output, weights).pending(cases)) == list("abcde")
    assert names(journal(output, weights, resume=True).pending(cases)) == list("de")

    (output / "b.out").unlink()  # a result that is gone
    Path(cases[2]["image"]).write_text("another image")
    assert names(journal(output, weights, resume=True).pending(cases)) == list("bcde")


def test_other_settings_or_weights_begin_anew(tmp_path: Path, weights: str, cases: list[dict[str, Any]]) -> None:
    import torch

    first = journal(tmp_path / "output", weights)
    first.pending(cases)
    do(first, "a")
    other = journal(tmp_path / "output", weights, settings={"level": 2}, resume=True)
    assert names(other.pending(cases)) == list("abcde")
    with torch.no_grad():
        save_weights(torch.nn.Linear(2, 1), weights)
    assert names(journal(tmp_path / "output", weights, resume=True).pending(cases)) == list("abcde")


def test_a_line_that_was_cut_off_counts_for_nothing(tmp_path: Path, weights: str, cases: list[dict[str, Any]]) -> None:
    first = journal(tmp_path / "output", weights)
    first.pending(cases)
    do(first, "a")
    do(first, "b")
    file = tmp_path / "output" / "journal.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    again = journal(tmp_path / "output", weights, resume=True)
    assert names(again.pending(cases)) == list("bcde")
    do(again, "c")  # not onto the line that was cut off
    assert names(journal(tmp_path / "output", weights, resume=True).pending(cases)) == list("bde")


def test_processes_share_the_cases(
    tmp_path: Path, weights: str, cases: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    output, shares = tmp_path / "output", []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        made = journal(output, weights)
        shares.append(names(made.pending(cases)))
        for case in shares[-1]:
            do(made, case)
    assert sorted(shares[0] + shares[1]) == list("abcde")
    assert {file.name for file in output.glob("*.jsonl")} == {"journal.jsonl", "journal-1.jsonl"}
    made.write_summary()
    summary = json.loads((output / "run.json").read_text())
    assert summary["cases"] == list("abcde")
    assert summary["network_evaluations"] == 30
    assert summary["network_evaluations_per_slice"] == 3

    monkeypatch.delenv("RANK")  # the same, by one process
    monkeypatch.delenv("WORLD_SIZE")
    assert journal(output, weights, resume=True).pending(cases) == []
    anew = journal(output, weights)
    anew.pending(cases)
    do(anew, "a")
    assert anew.summary()["cases"] == ["a"]


def test_a_run_keeps_the_lines_of_other_cases(tmp_path: Path, weights: str, cases: list[dict[str, Any]]) -> None:
    """Two cases, then a third into the same folder, then all of them: only what is missing is left."""
    output = tmp_path / "output"
    for some in (cases[:2], cases[2:3]):
        made = journal(output, weights)
        for case in names(made.pending(some)):
            do(made, case)
        assert made.summary()["cases"] == names(some)  # of its own run
    assert names(journal(output, weights, resume=True).pending(cases)) == list("de")

    anew = journal(output, weights)  # computes its cases again, and is cut before the second
    anew.pending(cases[:2])
    do(anew, "a")
    again = journal(output, weights, resume=True)
    assert names(again.pending(cases)) == list("bde")
    for case in "bde":
        do(again, case)
    assert again.summary()["cases"] == list("abcde")
    assert again.summary()["failed"] == {}


def test_the_last_line_of_a_case_counts_in_whichever_file(
    tmp_path: Path, weights: str, cases: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "output"

    def run(some: list[dict[str, Any]], rank: int, level: int) -> None:
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        made = journal(output, weights, settings={"level": level})
        for case in names(made.pending(some)):
            do(made, case)

    clock = iter(range(1000))
    monkeypatch.setattr("common.inferers.journal.time.time", lambda: float(next(clock)))
    run(cases[:2], 1, level=1)  # b, by the second process
    run(cases[1:2], 0, level=2)  # b again, otherwise
    run(cases[2:4], 1, level=1)  # d: the journal with the older line of b is written last
    monkeypatch.delenv("RANK")
    monkeypatch.delenv("WORLD_SIZE")
    for level, left in ((1, "b"), (2, "")):
        pending = journal(output, weights, settings={"level": level}, resume=True).pending(cases[1:2])
        assert names(pending) == list(left)


@pytest.mark.parametrize("resume", [False, True])
def test_results_of_other_images_are_not_overwritten(
    tmp_path: Path, weights: str, cases: list[dict[str, Any]], resume: bool
) -> None:
    output = tmp_path / "output"
    first = journal(output, weights)
    first.pending(cases)
    do(first, "a")
    (tmp_path / "tomorrow").mkdir()
    (tmp_path / "tomorrow" / "a.nii.gz").write_text("another patient")
    others = [{"case": "a", "image": str(tmp_path / "tomorrow" / "a.nii.gz")}]
    with pytest.raises(InputError, match=r"output: has results of a from other images .* give another --output_dir"):
        journal(output, weights, resume=resume).pending(others)
    (output / "a.out").unlink()  # nothing to lose
    assert names(journal(output, weights, resume=resume).pending(others)) == ["a"]


def test_failures_are_told_at_the_end(tmp_path: Path, weights: str, cases: list[dict[str, Any]]) -> None:
    made = journal(tmp_path / "output", weights, keep_going=True)
    made.report()  # nothing was asked of it
    assert not (tmp_path / "output").exists()
    made.pending(cases)
    do(made, "a")
    made.failed("b", "is damaged → copy it again")
    with pytest.raises(InputError) as caught:
        made.report()
    assert caught.value.source == "1 of 5 cases"
    assert "b: is damaged → copy it again" in caught.value.problem
    assert "--resume True" in caught.value.remedy
    assert json.loads((tmp_path / "output" / "run.json").read_text())["failed"] == {"b": "is damaged → copy it again"}


def test_no_path_is_written(tmp_path: Path, weights: str, cases: list[dict[str, Any]]) -> None:
    made = journal(tmp_path / "output", weights)
    made.pending(cases)
    do(made, "a")
    made.write_summary()
    for file in (tmp_path / "output").glob("*.json*"):
        assert os.fspath(tmp_path) not in file.read_text()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "no space left"), True),
        (PermissionError(errno.EACCES, "not allowed"), True),
        (FileNotFoundError(errno.ENOENT, "not there"), False),
        (RuntimeError("CUDA error: an illegal memory access"), True),
        (RuntimeError("shapes differ"), False),
        (InputError("a.nii", "tells of a CUDA error", "look at it"), False),
    ],
)
def test_what_concerns_every_further_case_ends_a_run(error: Exception, expected: bool) -> None:
    assert concerns_all(error) is expected
