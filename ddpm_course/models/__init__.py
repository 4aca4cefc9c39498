"""Networks. They import nothing of the package but its errors."""

from .classifier import Classifier, NoisyClassifier
from .mlp import MLP
from .text import SceneJudge, TextUNet, TextUNetConfig
from .transformer import Parts, PartsConfig, PartsTransformer, Transformer, TransformerConfig
from .unet import UNet, UNetConfig
from .vae import VAE, ConvVAE, ConvVAEConfig

__all__ = [
    "MLP",
    "VAE",
    "Classifier",
    "ConvVAE",
    "ConvVAEConfig",
    "NoisyClassifier",
    "Parts",
    "PartsConfig",
    "PartsTransformer",
    "SceneJudge",
    "TextUNet",
    "TextUNetConfig",
    "Transformer",
    "TransformerConfig",
    "UNet",
    "UNetConfig",
]
