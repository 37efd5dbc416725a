from __future__ import annotations

from pathlib import Path

import pytest

from common.bundles import find_bundle, find_bundles
from common.errors import InputError


def bundle(folder: Path) -> Path:
    (folder / "configs").mkdir(parents=True)
    for name in ("metadata.json", "inference.json"):
        (folder / "configs" / name).write_text("{}")
    return folder


def test_a_name_means_the_zoo_and_a_path_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, mine, only_mine = (bundle(tmp_path / name) for name in ("zoo/dae", "work/dae", "work/mine"))
    monkeypatch.chdir(tmp_path / "work")
    assert find_bundle(tmp_path / "zoo", "dae") == ours
    for path in ("./dae", "../work/dae", "dae/", str(mine)):
        assert find_bundle(tmp_path / "zoo", path) == mine
    assert find_bundles(tmp_path / "zoo", "dae,./mine") == [ours, only_mine]
    monkeypatch.chdir(mine)
    assert find_bundle(tmp_path / "nowhere", ".") == mine
    assert find_bundle(tmp_path / "nowhere", "../mine") == only_mine


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("mine", "or give a path, as ./mine"),
        ("./zoo", "give the folder of a bundle"),
        ("..", "give the folder"),
        ("", ""),
    ],
)
def test_what_is_no_bundle(name: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle(tmp_path / "work" / "mine")
    bundle(tmp_path / "zoo" / "dae")
    monkeypatch.chdir(tmp_path / "work")
    with pytest.raises(InputError, match=f"bundle '{name}': is not there → .*{remedy}"):
        find_bundle(tmp_path / "zoo", name)


def test_a_bundle_needs_both_configs(tmp_path: Path) -> None:
    (bundle(tmp_path / "half") / "configs" / "inference.json").unlink()
    with pytest.raises(InputError, match="is not there"):
        find_bundle(tmp_path, "half")
