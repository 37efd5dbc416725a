"""What training a denoiser adds to MONAI's trainer."""

from common.training.batch import DenoisingBatch, DenoisingInferer
from common.training.handlers import Checkpoints, ReproducibleEpochs, TensorBoardDenoising, WeightsSaver

__all__ = [
    "Checkpoints",
    "DenoisingBatch",
    "DenoisingInferer",
    "ReproducibleEpochs",
    "TensorBoardDenoising",
    "WeightsSaver",
]
