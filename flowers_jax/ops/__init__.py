"""Kernels that the models are built on, and settings of the backends that run them."""

import dataclasses
from collections.abc import Callable
from functools import partial

from flax import linen as nn
from jax import lax

from flowers_jax.ops import convolution, pooling


@dataclasses.dataclass(frozen=True)
class Ops:
    """The kernels a model computes with.

    Attributes:
      conv_general_dilated: as `nn.Conv` takes it.
      max_pool: has the signature of `nn.max_pool`.
    """

    conv_general_dilated: Callable
    max_pool: Callable


PLAIN = Ops(lax.conv_general_dilated, nn.max_pool)
# Faster on CPU; on GPU and TPU they lower to the same operations as the plain ones.
FAST = Ops(convolution.conv_general_dilated, pooling.max_pool)
# The same, with a gradient of pools that a GPU can repeat.
DETERMINISTIC = Ops(FAST.conv_general_dilated, partial(FAST.max_pool, deterministic=True))
