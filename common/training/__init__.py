"""What training a denoiser adds to MONAI's trainer."""

from common.training.batch import DenoisingBatch, DenoisingInferer, TrainingPair
from common.training.coarse import CoarseNoiseBatch
from common.training.conditioned import ConditionedBatch
from common.training.handlers import Checkpoints, FiniteLoss, ReproducibleEpochs, TensorBoardDenoising, WeightsSaver
from common.training.masking import MaskedBatch
from common.training.workflow import TrainingRun, ValidationRun, training_loader

__all__ = [
    "Checkpoints",
    "CoarseNoiseBatch",
    "ConditionedBatch",
    "DenoisingBatch",
    "DenoisingInferer",
    "FiniteLoss",
    "MaskedBatch",
    "ReproducibleEpochs",
    "TensorBoardDenoising",
    "TrainingPair",
    "TrainingRun",
    "ValidationRun",
    "WeightsSaver",
    "training_loader",
]
