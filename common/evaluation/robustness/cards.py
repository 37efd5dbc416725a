"""Cards of several bundles on the same cases, and the table that has them all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from common.bundles import find_bundles
from common.errors import told
from common.evaluation.bundle import one_set_each, overrides_of, settings_for
from common.evaluation.card_tables import summary_table
from common.evaluation.robustness.card import robustness
from common.files import check_writable, write_atomic

__all__ = ["robustness_of"]


def robustness_of(
    bundles: str | Sequence[str],
    dataset_dir: str,
    output_dir: str | Path,
    *,
    bundles_dir: str | Path | None = None,
    **options: Any,
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Make the card of each bundle in a folder of its name, and ``summary.md``; a card that is there stays.

    Args:
        bundles: names, or ``all``.
        dataset_dir: cases with masks, or the label 0.
        output_dir: of the folders.
        bundles_dir: the folder of the bundles, as of ``bundle_folder``.
        **options: of ``robustness``.

    Returns:
        the cards, and why others failed, by the name of the bundle.

    Raises:
        InputError: a bundle that is not there, unusable settings, one file of weights for several, or a folder that
            cannot be written.
    """
    output, cards, failures = Path(output_dir), {}, {}
    found = find_bundles(bundles_dir, bundles)
    one_set_each(options.get("weights"), found)
    given = settings_for(found, options.get("settings"))
    for bundle in found:  # a slip in the settings of the last is told before the first runs
        overrides_of(bundle, given, options.get("weights"))
    check_writable(output)
    for number, bundle in enumerate(found, 1):
        tqdm.write(f"{bundle.name} ({number}/{len(found)})")
        try:
            cards[bundle.name] = robustness(str(bundle), dataset_dir, output / bundle.name, among=found, **options)
        except Exception as error:  # any bundle may fail in any way, and the others must not
            failures[bundle.name] = told(error)
            tqdm.write(f"failed: {bundle.name}: {failures[bundle.name]}")
    if cards:
        note = "Change of the pixel AP at the middle strength of each kind; of two, the larger loss."
        write_atomic(output / "summary.md", f"# Robustness\n\n{note}\n\n{summary_table(cards)}\n".encode())
    return cards, failures
