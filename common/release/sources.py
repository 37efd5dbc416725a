"""Where releases lie: a folder, or a place on the web."""

from __future__ import annotations

import http.client
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlsplit

from tqdm import tqdm

from common.errors import InputError

__all__ = ["FolderSource", "Source", "WebSource", "open_source"]

_CHUNK = 2**20


class Source(Protocol):
    """Files by name."""

    def text(self, name: str) -> str:
        """A small text file."""

    def fetch(self, name: str, path: Path, largest: int) -> None:
        """Bring a file to ``path``; what lies there is the beginning of it."""


def open_source(source: str, *, timeout: float = 30.0, attempts: int = 4, wait: float = 1.0) -> Source:
    """The source of a folder or an ``http(s)`` address.

    Args:
        source: folder or address that holds ``SHA256SUMS`` and the zips.
        timeout: seconds without a byte before an attempt ends.
        attempts: how often each file is tried.
        wait: seconds before the second attempt; doubled after each.

    Raises:
        InputError: no such folder, or another kind of address.
    """
    scheme = urlsplit(source).scheme
    if scheme in ("http", "https"):
        return WebSource(source, timeout, attempts, wait)
    if "://" in source:
        raise InputError(source, f"is an address of kind '{scheme}'", "give a folder, or http:// or https://")
    if not Path(source).is_dir():
        raise InputError(source, "is no folder", "give the folder or the address that holds the releases")
    return FolderSource(Path(source))


class FolderSource:
    """Releases in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def text(self, name: str) -> str:
        """A small text file."""
        return self._existing(name).read_text(encoding="utf-8")

    def fetch(self, name: str, path: Path, largest: int) -> None:
        """Copy a file."""
        file = self._existing(name)
        if file.stat().st_size > largest:
            raise _too_large(file, largest)
        shutil.copyfile(file, path)

    def _existing(self, name: str) -> Path:
        if not (self.folder / name).is_file():
            raise InputError(self.folder / name, "does not exist", "give a folder made by 'anomaly-zoo package'")
        return self.folder / name


class WebSource:
    """Releases on the web; a transfer that breaks is tried again, from where it broke if the server can."""

    def __init__(self, base: str, timeout: float, attempts: int, wait: float) -> None:
        self.base, self.timeout, self.attempts, self.wait = base.rstrip("/"), timeout, attempts, wait

    def text(self, name: str) -> str:
        """A small text file."""
        for attempt in range(self.attempts):
            try:
                with self._open(name) as response:
                    return response.read(_CHUNK).decode("utf-8", errors="replace")
            except (OSError, http.client.HTTPException) as error:
                self._again(name, error, attempt)
        raise AssertionError("the last attempt returns or raises")

    def fetch(self, name: str, path: Path, largest: int) -> None:
        """Download a file, going on after the bytes that ``path`` has."""
        for attempt in range(self.attempts):
            try:
                return self._fetch(name, path, largest)
            except urllib.error.HTTPError as error:
                if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and path.is_file():
                    path.unlink()  # what is there is no beginning of the file
                else:
                    self._again(name, error, attempt)
            except (OSError, http.client.HTTPException) as error:
                self._again(name, error, attempt)

    def _fetch(self, name: str, path: Path, largest: int) -> None:
        have = path.stat().st_size if path.is_file() else 0
        with self._open(name, have) as response:
            have = have if response.status == http.client.PARTIAL_CONTENT else 0
            length = response.headers.get("Content-Length")
            total = have + int(length) if length else None
            if total is not None and total > largest:
                raise _too_large(self._url(name), largest)
            with (
                open(path, "ab" if have else "wb") as file,
                tqdm(total=total, initial=have, desc=name, unit="B", unit_scale=True, disable=None) as bar,
            ):
                while chunk := response.read(_CHUNK):
                    have += len(chunk)
                    if have > largest:
                        raise _too_large(self._url(name), largest)
                    file.write(chunk)
                    bar.update(len(chunk))
        if total is not None and have < total:
            raise http.client.IncompleteRead(b"", total - have)

    def _open(self, name: str, start: int = 0) -> http.client.HTTPResponse:
        headers = {"Range": f"bytes={start}-"} if start else {}
        request = urllib.request.Request(self._url(name), headers=headers)
        return urllib.request.urlopen(request, timeout=self.timeout)

    def _url(self, name: str) -> str:
        return f"{self.base}/{quote(name)}"

    def _again(self, name: str, error: Exception, attempt: int) -> None:
        """Wait for the next attempt, or say why there is none."""
        status = error.code if isinstance(error, urllib.error.HTTPError) else None
        final = status is not None and 400 <= status < 500 and status not in (408, 429)
        if final or attempt + 1 == self.attempts:
            tried = "" if final else f" after {self.attempts} attempts"
            remedy = "check the address" if final else "run the same command again later; it goes on where it stopped"
            raise InputError(self._url(name), f"cannot be downloaded{tried} ({error})", remedy) from error
        time.sleep(self.wait * 2**attempt)


def _too_large(name: object, largest: int) -> InputError:
    return InputError(name, f"is larger than {largest >> 20} MiB", "do not use this archive")
