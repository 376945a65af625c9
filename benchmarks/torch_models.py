"""The study's architectures in PyTorch, for the benchmark, from the reference file."""

from typing import Any

import torch
from torch import nn

from flowers_jax import reference
from flowers_jax.keras_models import ARCHITECTURES


class Network(nn.Module):
    """Logits of the main head and, in training, of the auxiliary heads.

    Images are float `[batch, 3, height, width]`. Parameters take their shapes from the first batch.
    """

    def __init__(self, name: str, num_classes: int) -> None:
        super().__init__()
        self.layers, self.heads = nn.ModuleList(), nn.ModuleDict()
        for layer in reference.study()["architectures"][ARCHITECTURES[name]]:
            if "auxiliary_head" in layer:
                inner = [_layer(entry, num_classes) for entry in layer["layers"]]
                self.heads[str(len(self.layers))] = nn.Sequential(*inner)
            else:
                self.layers.append(_layer(layer, num_classes))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """A list of `[batch, num_classes]`, the main head's first."""
        auxiliary = []
        for i, layer in enumerate(self.layers):
            if self.training and str(i) in self.heads:
                auxiliary.append(self.heads[str(i)](x))
            x = layer(x)
        return [x, *auxiliary]


class Inception(nn.Module):
    """Four parallel branches, concatenated along the channels."""

    def __init__(self, features: dict[str, Any]) -> None:
        super().__init__()

        def conv(name: str, kernel: int) -> nn.Module:
            return _conv(features[name], kernel, 1, "same")

        self.branches = nn.ModuleList(
            [
                conv("1x1", 1),
                nn.Sequential(conv("3x3_reduce", 1), conv("3x3", 3)),
                nn.Sequential(conv("5x5_reduce", 1), conv("5x5", 5)),
                nn.Sequential(nn.MaxPool2d(3, 1, padding=1), conv("pool_proj", 1)),
            ]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[batch, channels, height, width]`."""
        return torch.cat([branch(x) for branch in self.branches], dim=1)


def _conv(features: int, kernel: int, stride: int, padding: str) -> nn.Module:
    pad = kernel // 2 if padding == "same" else 0
    return nn.Sequential(nn.LazyConv2d(features, kernel, stride, pad), nn.ReLU())


def _layer(layer: dict[str, Any], num_classes: int) -> nn.Module:
    """The layer of one entry of the reference file."""
    match layer:
        case {"conv": features, "kernel": kernel, "stride": stride, "padding": padding}:
            return _conv(features, kernel, stride, padding)
        case {"max_pool": size, "stride": stride}:
            return nn.MaxPool2d(size, stride)
        case {"average_pool": size, "stride": stride}:
            return nn.AvgPool2d(size, stride)
        case {"dropout": rate}:
            return nn.Dropout(rate)
        case {"dense": _, "activation": "softmax"}:
            return nn.LazyLinear(num_classes)
        case {"dense": units}:
            return nn.Sequential(nn.LazyLinear(units), nn.ReLU())
        case {"flatten": True}:
            return nn.Flatten()
        case {"batch_norm": True}:
            return nn.LazyBatchNorm2d(eps=1e-3, momentum=0.01)
        case {"global_average_pool": True}:
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        case {"inception": _}:
            return Inception(layer)
    raise ValueError(f"the reference file has a layer of an unknown kind: {layer}")
