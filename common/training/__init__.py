"""What training a denoiser adds to MONAI's trainer."""

from common.training.batch import DenoisingBatch, DenoisingInferer, TrainingPair
from common.training.coarse import CoarseNoiseBatch
from common.training.handlers import Checkpoints, FiniteLoss, ReproducibleEpochs, TensorBoardDenoising, WeightsSaver
from common.training.workflow import TrainingRun, ValidationRun, training_loader

__all__ = [
    "Checkpoints",
    "CoarseNoiseBatch",
    "DenoisingBatch",
    "DenoisingInferer",
    "FiniteLoss",
    "ReproducibleEpochs",
    "TensorBoardDenoising",
    "TrainingPair",
    "TrainingRun",
    "ValidationRun",
    "WeightsSaver",
    "training_loader",
]
