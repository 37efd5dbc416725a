"""Shared package of the anomaly zoo: diffusion networks, guided samplers, and what surrounds them."""

from __future__ import annotations

from common.errors import InputError, show_plainly
from common.overrides import check_overrides
from common.version import __version__

__all__ = ["InputError", "__version__", "require"]


def require(version: str) -> None:
    """Stop unless this copy of ``common`` can serve a bundle written for ``version``; the first thing a bundle runs.

    A bundle carries its own ``common``; with two bundles in one process, or a checkout on the path, Python may
    import another copy. Minor versions may add, never take away, so a newer minor version serves. From here on bad
    input ends the program with one line instead of a traceback, and so does an override of a key that no config has.

    Args:
        version: ``"major.minor"`` that the bundle was written for.

    Raises:
        InputError: the copy that was imported is older, or of another major version.
    """
    show_plainly()
    check_overrides()
    have = tuple(int(part) for part in __version__.split(".")[:2])
    want = tuple(int(part) for part in version.split(".")[:2])
    if have[0] != want[0] or have < want:
        raise InputError(
            __file__,
            f"this copy of 'common' is version {__version__}, the bundle needs {version}",
            "run the bundle from inside its own folder, in a process of its own, or update the checkout",
        )
