"""Networks, and the denoiser protocol through which samplers see them."""

from common.networks.autoencoder import DenoisingAutoencoder
from common.networks.class_conditioned import (
    HEALTHY,
    ClassConditionedUNet,
    ClassTokenUNet,
    ImageConcatenatedUNet,
    label_of,
)
from common.networks.classifier import ImageAutoencoder, NoisyClassifier
from common.networks.conditioned import ConditionedUNet
from common.networks.denoiser import Denoiser
from common.networks.devices import autocast, channels_last, for_inference, has_bfloat16, select_device, states_at_once
from common.networks.encoder import ImageEncoder, MaskedAutoencoder
from common.networks.unet import DenoisingUNet
from common.networks.weights import check_weights, load_weights, save_weights, sha256

__all__ = [
    "HEALTHY",
    "ClassConditionedUNet",
    "ClassTokenUNet",
    "ConditionedUNet",
    "Denoiser",
    "DenoisingAutoencoder",
    "DenoisingUNet",
    "ImageAutoencoder",
    "ImageConcatenatedUNet",
    "ImageEncoder",
    "MaskedAutoencoder",
    "NoisyClassifier",
    "autocast",
    "channels_last",
    "check_weights",
    "for_inference",
    "has_bfloat16",
    "label_of",
    "load_weights",
    "save_weights",
    "select_device",
    "sha256",
    "states_at_once",
]
