"""The command line: from ``anomaly-zoo check`` for data to ``compare`` for bundles and ``package`` for releases."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import fire

from common.cli.bundles import BundleCommands
from common.cli.data import DataCommands
from common.cli.evaluation import EvaluationCommands
from common.cli.words import checked_words
from common.errors import input_error

__all__ = ["Zoo", "main"]


class Zoo(DataCommands, EvaluationCommands, BundleCommands):
    """Find and outline anomalies in medical images with diffusion models."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; input that cannot be used, or a full disk, ends in one line on stderr and exit code 2.

    Args:
        argv: the words behind the program's name; None takes those of the process.
    """
    try:
        words = checked_words(sys.argv[1:] if argv is None else argv, Zoo)
        fire.Fire(Zoo(), command=words, name="anomaly-zoo")
    except Exception as error:
        cause = input_error(error)
        if cause is None:
            raise
        print(f"error: {cause}", file=sys.stderr)
        raise SystemExit(2) from None
