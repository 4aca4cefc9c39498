"""Networks. They import nothing of the package but its errors."""

from .classifier import Classifier, NoisyClassifier
from .mlp import MLP
from .unet import UNet, UNetConfig
from .vae import VAE

__all__ = ["MLP", "VAE", "Classifier", "NoisyClassifier", "UNet", "UNetConfig"]
