"""One MONAI inferer a method: sampler and map, for slices, volumes and batches."""

from common.inferers.andi import ANDiInferer
from common.inferers.autoddpm import AutoDDPMInferer
from common.inferers.base import AnomalyInferer, Restored
from common.inferers.batch import InferenceBatch
from common.inferers.classifier_free import ClassifierFreeInferer
from common.inferers.conditioned import ConditionedInferer
from common.inferers.denoising import DenoisingAutoencoderInferer
from common.inferers.ensemble import EnsembleInferer
from common.inferers.evaluator import CaseEvaluator, inference_cases
from common.inferers.fusion import FusionInferer
from common.inferers.guided import TASKS, ClassifierGuidedInferer
from common.inferers.journal import Journal
from common.inferers.mahalanobis import MahalanobisInferer
from common.inferers.partial_diffusion import PartialDiffusionInferer
from common.inferers.patched import PatchedInferer
from common.inferers.restoration import RestorationInferer
from common.inferers.results import ResultWriter, postprocessing, write_nifti
from common.inferers.segmentation import SegmentationEnsembleInferer
from common.inferers.synomaly import SynomalyInferer, blurred_difference, suspicious_regions
from common.inferers.thor import ThorInferer, region_mask

__all__ = [
    "TASKS",
    "ANDiInferer",
    "AnomalyInferer",
    "AutoDDPMInferer",
    "CaseEvaluator",
    "ClassifierFreeInferer",
    "ClassifierGuidedInferer",
    "ConditionedInferer",
    "DenoisingAutoencoderInferer",
    "EnsembleInferer",
    "FusionInferer",
    "InferenceBatch",
    "Journal",
    "MahalanobisInferer",
    "PartialDiffusionInferer",
    "PatchedInferer",
    "RestorationInferer",
    "Restored",
    "ResultWriter",
    "SegmentationEnsembleInferer",
    "SynomalyInferer",
    "ThorInferer",
    "blurred_difference",
    "inference_cases",
    "postprocessing",
    "region_mask",
    "suspicious_regions",
    "write_nifti",
]
