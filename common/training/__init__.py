"""What training a denoiser adds to MONAI's trainer."""

from common.training.batch import DenoisingBatch, DenoisingInferer, TrainingPair
from common.training.handlers import Checkpoints, FiniteLoss, ReproducibleEpochs, TensorBoardDenoising, WeightsSaver

__all__ = [
    "Checkpoints",
    "DenoisingBatch",
    "DenoisingInferer",
    "FiniteLoss",
    "ReproducibleEpochs",
    "TensorBoardDenoising",
    "TrainingPair",
    "WeightsSaver",
]
