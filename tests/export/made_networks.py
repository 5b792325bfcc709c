"""Networks with random weights and statistics, as training leaves them."""

from __future__ import annotations

import torch
from torch import nn

from export.network import MEMBERS, Fusion, MapHead, Member, Network


def lived_in(module: nn.Module) -> nn.Module:
    """Batch normalisation as training leaves it: statistics and scales of its own."""
    torch.manual_seed(1)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0.0, 0.2)
            layer.running_var.uniform_(0.5, 2.0)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0.0, 0.2)
    return module.eval()


def make_network() -> Network:
    members = [Member(name) for name in MEMBERS]
    head = MapHead([member.channels for member in members])
    network = Network(members, head, Fusion([0.8, 1.0, 1.5, 2.0], [0.25] * 4))
    lived_in(network)
    return network
