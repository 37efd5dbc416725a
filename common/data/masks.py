"""Which voxels of a mask are marked, whatever numbers its file holds."""

from __future__ import annotations

__all__ = ["marked_from"]


def marked_from(highest: float) -> float:
    """The value from which on a voxel is marked, given the highest one of the mask.

    Half of 1 or of 255, for masks that were resampled or saved as pictures; of a label map (1, 2, 4, say) every class.
    """
    return 127.5 if highest >= 127.5 else 0.5
