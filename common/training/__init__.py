"""What training a denoiser adds to MONAI's trainer."""

from common.training.batch import DenoisingBatch, DenoisingInferer, TrainingPair
from common.training.coarse import CoarseNoiseBatch
from common.training.conditioned import ConditionedBatch
from common.training.corruption import MaskedCorruption
from common.training.degradation import Degradation, DegradationBatch, Degraded
from common.training.finetuning import Calibration, freeze
from common.training.handlers import (
    Checkpoints,
    FiniteLoss,
    MeanLoss,
    ReproducibleEpochs,
    TensorBoardDenoising,
    WeightsSaver,
)
from common.training.labelled import ClassBatch, ClassifierBatch, ReconstructionBatch, SegmentationBatch
from common.training.masking import MaskedBatch
from common.training.patched import PatchedBatch
from common.training.progress import Progress, TrainingReport
from common.training.variational import HybridLoss, variance_target
from common.training.workflow import TrainingRun, ValidationRun, begin, training_loader

__all__ = [
    "Calibration",
    "Checkpoints",
    "ClassBatch",
    "ClassifierBatch",
    "CoarseNoiseBatch",
    "ConditionedBatch",
    "Degradation",
    "DegradationBatch",
    "Degraded",
    "DenoisingBatch",
    "DenoisingInferer",
    "FiniteLoss",
    "HybridLoss",
    "MaskedBatch",
    "MaskedCorruption",
    "MeanLoss",
    "PatchedBatch",
    "Progress",
    "ReconstructionBatch",
    "ReproducibleEpochs",
    "SegmentationBatch",
    "TensorBoardDenoising",
    "TrainingPair",
    "TrainingReport",
    "TrainingRun",
    "ValidationRun",
    "WeightsSaver",
    "begin",
    "freeze",
    "training_loader",
    "variance_target",
]
