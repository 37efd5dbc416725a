"""One MONAI inferer a method: sampler and map, for slices, volumes and batches."""

from common.inferers.autoddpm import AutoDDPMInferer
from common.inferers.base import AnomalyInferer, Restored
from common.inferers.batch import InferenceBatch
from common.inferers.partial_diffusion import PartialDiffusionInferer
from common.inferers.patched import PatchedInferer
from common.inferers.restoration import RestorationInferer
from common.inferers.results import ResultWriter, postprocessing, write_nifti
from common.inferers.thor import ThorInferer, region_mask

__all__ = [
    "AnomalyInferer",
    "AutoDDPMInferer",
    "InferenceBatch",
    "PartialDiffusionInferer",
    "PatchedInferer",
    "RestorationInferer",
    "Restored",
    "ResultWriter",
    "ThorInferer",
    "postprocessing",
    "region_mask",
    "write_nifti",
]
