"""What a network costs: parameters and multiply-accumulates."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def parameter_count(module: nn.Module) -> int:
    """Numbers that training sets."""
    return sum(p.numel() for p in module.parameters())


def multiply_accumulates(module: nn.Module, *inputs: object) -> int:
    """Multiply-accumulates of convolutions and linear layers in one forward pass."""
    total = 0

    def count(layer: nn.Module, _: object, output: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d):
            total += output.numel() * layer.weight[0].numel()
        elif isinstance(layer, nn.Linear):
            total += output.numel() * layer.in_features

    hooks = [layer.register_forward_hook(count) for layer in module.modules()]
    try:
        with torch.no_grad():
            module(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return total
