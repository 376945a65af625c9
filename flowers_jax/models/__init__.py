"""The study's architectures by name."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from flowers_jax.errors import UserError
from flowers_jax.models import cnn
from flowers_jax.models.alexnet import AlexNet
from flowers_jax.models.googlenet import GoogLeNet
from flowers_jax.models.vgg16 import VGG16

MODELS: dict[str, Callable[..., nn.Module]] = {
    "pilot_cnn": cnn.PilotCNN,
    "base_cnn": cnn.BaseCNN,
    "base_cnn_v2": cnn.BaseCNNv2,
    "base_cnn_conv5x5": cnn.BaseConv5x5,
    "base_cnn_batchnorm": cnn.BaseBatchNorm,
    "base_cnn_gap": cnn.BaseGlobalPool,
    "base_cnn_conv5x5_gap": cnn.BaseConv5x5GlobalPool,
    "base_cnn_conv5x5_gap_batchnorm": cnn.BaseConv5x5GlobalPoolBatchNorm,
    "improvement_1": cnn.Improvement1,
    "improvement_2": cnn.Improvement2,
    "improvement_3": cnn.Improvement3,
    "improvement_4": cnn.Improvement4,
    "alexnet": AlexNet,
    "vgg16": VGG16,
    "googlenet": GoogLeNet,
}


def create_model(name: str, num_classes: int = 5, dtype: DTypeLike = jnp.float32) -> nn.Module:
    """The architecture `name`, computing in `dtype` (parameters stay float32).

    `model.apply(variables, images, train=False)` takes scaled float images
    `[batch, height, width, 3]` and gives float32 logits `[batch, num_classes]`.

    Raises:
      UserError: there is no such model.
    """
    if name not in MODELS:
        raise UserError(f"there is no model {name!r}; choose one of {', '.join(MODELS)}.")
    return MODELS[name](num_classes=num_classes, dtype=dtype)


def head_names(model: nn.Module) -> tuple[str, ...]:
    """Names of the classifiers of a model with several, the main one first; else empty."""
    return getattr(model, "HEADS", ())


def table(model: nn.Module, image_size: int) -> str:
    """Layers with shapes, parameters and FLOPs of a forward pass, for one image."""
    image = jnp.zeros((1, image_size, image_size, 3))
    tabulate = nn.tabulate(
        model,
        jax.random.key(0),
        compute_flops=True,
        console_kwargs={"width": 160, "force_terminal": False},
    )
    with jax.default_matmul_precision("highest"):  # the operations of direct convolutions
        return tabulate(image)
