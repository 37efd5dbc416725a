from __future__ import annotations

import functools
import hashlib
import multiprocessing
import stat
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from common import InputError
from common.cli import main
from common.files import write_atomic
from common.release import download, package, verify_bundle
from common.release.archive import Limits, unpack
from common.release.sources import open_source
from tests.release.conftest import Quiet
from tests.release.tiny import write_bundle


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three versions of a bundle."""
    folder = tmp_path_factory.mktemp("source")
    for version in ("0.9.0", "0.1.0", "1.0.0"):
        package([write_bundle(folder / version, version=version)], folder / "dist")
    return folder / "dist"


class Frail(Quiet):
    """A server of bytes from where it is asked for, which breaks as it is told."""

    faults: ClassVar[list[str]]
    asked: ClassVar[list[tuple[str, str | None]]]

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers.get("Range")))
        data = (Path(self.directory) / self.path.lstrip("/")).read_bytes()
        fault = self.faults.pop(0) if self.faults and self.path.endswith(".zip") else ""
        if fault.isdigit():
            self.send_error(int(fault))
            return
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if start and start >= len(data):
            self.send_error(416)
            return
        start = 0 if fault == "no ranges" else start
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        rest = data[start:]
        self.wfile.write(rest[: len(rest) // 2] if fault == "half" else rest)


@contextmanager
def served(folder: Path, *faults: str) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    class Handler(Frail):
        pass

    Handler.faults, Handler.asked = [*faults], []
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", Handler.asked
        server.shutdown()


def patient(url: str) -> Any:
    """A source that does not wait between attempts."""
    return open_source(url, attempts=3, wait=0.0, timeout=10)


def left(folder: Path) -> set[str]:
    """What lies in a folder, without the lock."""
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"} if folder.is_dir() else set()


def test_latest_version_from_a_folder(source: Path, tmp_path: Path) -> None:
    bundle = download("tiny", str(source), bundle_dir=tmp_path)
    assert bundle == tmp_path / "tiny"
    assert verify_bundle(bundle) == []
    assert '"version": "1.0.0"' in (bundle / "MANIFEST.json").read_text()
    assert left(tmp_path) == {"tiny"}


def test_a_named_version_from_the_web(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with served(source) as (url, _):
        main(["download", "tiny", "--source", url, "--version", "0.9.0", "--bundle_dir", str(tmp_path)])
    assert capsys.readouterr().out.strip() == str(tmp_path / "tiny")
    assert '"version": "0.9.0"' in (tmp_path / "tiny" / "MANIFEST.json").read_text()


@pytest.mark.parametrize(("name", "version", "problem"), [("no", None, "no bundle"), ("tiny", "0.2.0", "no version")])
def test_what_is_not_there(name: str, version: str | None, problem: str, source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        download(name, str(source), version, tmp_path)
    assert "1.0.0" in caught.value.remedy


@pytest.mark.parametrize("place", ["ftp://example.org/x", "file:///x", "nowhere"])
def test_places_that_cannot_be(place: str, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        download("tiny", place, bundle_dir=tmp_path)
    assert left(tmp_path) == set()


@pytest.mark.parametrize("fault", ["half", "500", "503", "429"])
def test_a_broken_transfer_goes_on(fault: str, source: Path, tmp_path: Path) -> None:
    with served(source, fault) as (url, asked):
        download("tiny", patient(url), bundle_dir=tmp_path)
    size = (source / "tiny_v1.0.0.zip").stat().st_size
    assert asked[-1] == ("/tiny_v1.0.0.zip", f"bytes={size // 2}-" if fault == "half" else None)
    assert verify_bundle(tmp_path / "tiny") == []
    assert left(tmp_path) == {"tiny"}


def test_the_next_call_goes_on_where_the_last_one_gave_up(source: Path, tmp_path: Path) -> None:
    with served(source, "half", "half", "half") as (url, asked):
        with pytest.raises(InputError, match="cannot be downloaded after 3 attempts"):
            download("tiny", patient(url), bundle_dir=tmp_path)
        assert left(tmp_path) == {".tiny_v1.0.0.zip.part"}
        size = (tmp_path / ".tiny_v1.0.0.zip.part").stat().st_size
        download("tiny", patient(url), bundle_dir=tmp_path)
    assert asked[-1] == ("/tiny_v1.0.0.zip", f"bytes={size}-")
    assert left(tmp_path) == {"tiny"}


@pytest.mark.parametrize("faults", [[], ["no ranges"], ["500", "500"]], ids=["ranges", "no ranges", "the last attempt"])
@pytest.mark.parametrize("length", [100, 10_000_000])
def test_a_beginning_of_something_else(faults: list[str], length: int, source: Path, tmp_path: Path) -> None:
    (tmp_path / ".tiny_v1.0.0.zip.part").write_bytes(b"x" * length)
    with served(source, *faults) as (url, _):
        download("tiny", patient(url), bundle_dir=tmp_path)
    assert left(tmp_path) == {"tiny"}


def test_missing_files_are_not_asked_for_again(source: Path, tmp_path: Path) -> None:
    with served(source, "404") as (url, asked), pytest.raises(InputError, match="404") as caught:
        download("tiny", patient(url), bundle_dir=tmp_path)
    assert caught.value.remedy == "check the address"
    assert len(asked) == 2
    assert left(tmp_path) == set()


def test_another_hash(source: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for path in source.iterdir():
        write_atomic(copy / path.name, path.read_bytes())
    data = bytearray((copy / "tiny_v1.0.0.zip").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "tiny_v1.0.0.zip").write_bytes(data)
    with pytest.raises(InputError, match="another SHA-256"):
        download("tiny", str(copy), bundle_dir=tmp_path / "there")
    assert left(tmp_path / "there") == set()


def test_a_bundle_in_the_way(source: Path, tmp_path: Path) -> None:
    download("tiny", str(source), "0.9.0", tmp_path)
    assert download("tiny", str(source), "0.9.0", tmp_path) == tmp_path / "tiny"
    with pytest.raises(InputError, match=r"is there already, as version 0\.9\.0"):
        download("tiny", str(source), bundle_dir=tmp_path)
    (tmp_path / "tiny" / "LICENSE").write_text("mine")
    with pytest.raises(InputError, match="changed since its release"):
        download("tiny", str(source), "0.9.0", tmp_path)
    assert (tmp_path / "tiny" / "LICENSE").read_text() == "mine"


def test_a_folder_that_cannot_be_written(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with served(source) as (url, asked):
        with pytest.raises(InputError, match="cannot be written → give another folder"):
            download("tiny", url, bundle_dir=tmp_path / "file")
        assert not [path for path, _ in asked if path.endswith(".zip")]


def _get(source: str, folder: str) -> None:
    download("tiny", source, bundle_dir=folder)


def test_several_at_once(source: Path, tmp_path: Path) -> None:
    with served(source) as (url, asked):
        started = [
            multiprocessing.get_context("fork").Process(target=_get, args=(url, str(tmp_path))) for _ in range(3)
        ]
        for process in started:
            process.start()
        for process in started:
            process.join(60)
        assert [process.exitcode for process in started] == [0, 0, 0]
        assert sum(path.endswith(".zip") for path, _ in asked) == 1
    assert verify_bundle(tmp_path / "tiny") == []


Entry = tuple[str, bytes, int]


def evil(folder: Path, *entries: Entry, compression: int = zipfile.ZIP_STORED) -> Path:
    """A release whose hashes are right and whose archive is not."""
    folder.mkdir()
    path = folder / "tiny_v1.0.0.zip"
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data, mode in entries:
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr, info.compress_type = 3, mode << 16, compression
            file.writestr(info, data)
    (folder / "SHA256SUMS").write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n")
    return folder


FILE, LINK, FIFO = stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777, stat.S_IFIFO | 0o644


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ([("../evil", b"x", FILE)], "leads out"),
        ([("tiny/../../evil", b"x", FILE)], "leads out"),
        ([("/evil", b"x", FILE)], "leads out"),
        ([("C:/evil", b"x", FILE)], "leads out"),
        ([("tiny\\..\\evil", b"x", FILE)], "leads out"),
        ([("other/evil", b"x", FILE)], "not in the folder 'tiny'"),
        ([("tiny/evil", b"/etc/passwd", LINK)], "link or a special file"),
        ([("tiny/evil", b"x", FIFO)], "link or a special file"),
        ([("tiny/a", b"x", FILE), ("tiny/A", b"y", FILE)], "another entry stands"),
        ([("tiny", b"x", FILE)], "another entry stands"),
        ([("tiny/a", b"x", FILE)], "MANIFEST.json"),
    ],
)
def test_archives_that_are_refused(entries: list[Entry], problem: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=problem):
        download("tiny", str(evil(tmp_path / "evil", *entries)), bundle_dir=tmp_path / "there")
    assert left(tmp_path / "there") == set()
    assert {path.name for path in tmp_path.iterdir()} == {"evil", "there"}


def test_bombs(tmp_path: Path) -> None:
    high = evil(tmp_path / "high", ("tiny/a", bytes(10**6), FILE), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match="more than 100 times its size"):
        download("tiny", str(high), bundle_dir=tmp_path / "there")
    wide = evil(tmp_path / "wide", *((f"tiny/{index}", b"x" * 100, FILE) for index in range(30)))
    for limits, problem in ((Limits(files=29), "more than 29 files"), (Limits(size=2999), "more than 0 MiB")):
        with pytest.raises(InputError, match=problem):
            unpack(wide / "tiny_v1.0.0.zip", tmp_path / "there", "tiny", limits)
    assert left(tmp_path / "there") == set()


def _claim_less(data: bytearray) -> None:
    """Both headers of the only entry say that it has 10 bytes."""
    for mark, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.find(mark)
        data[at + offset : at + offset + 4] = (10).to_bytes(4, "little")


def _cut(data: bytearray) -> None:
    del data[len(data) // 2 :]


def _flip(data: bytearray) -> None:
    data[60] ^= 1


@pytest.mark.parametrize("spoil", [_claim_less, _cut, _flip])
def test_archives_that_are_damaged(spoil: Callable[[bytearray], None], tmp_path: Path) -> None:
    """Or lie about their sizes."""
    path = evil(tmp_path / "evil", ("tiny/a", b"abc" * 1000, FILE), compression=zipfile.ZIP_DEFLATED)
    data = bytearray((path / "tiny_v1.0.0.zip").read_bytes())
    spoil(data)
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(InputError):
        unpack(tmp_path / "a.zip", tmp_path / "there", "tiny")


def test_an_endless_answer(source: Path, tmp_path: Path) -> None:
    with served(source) as (url, _), pytest.raises(InputError, match="is larger than"):
        patient(url).fetch("tiny_v1.0.0.zip", tmp_path / "a", 1000)
    with pytest.raises(InputError, match="is larger than"):
        open_source(str(source)).fetch("tiny_v1.0.0.zip", tmp_path / "a", 1000)
