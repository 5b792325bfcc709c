"""A convolutional network of timm as a backbone that keeps the contract.

    python -m export.timm_backbone --name resnet50 --weights mine.pt --out resnet50.onnx

The trunk is what timm calls the network's features, up to a sixteenth of the input's side. It sees
each view on its own; mean and peak of both views' features are joined for the decision. Train
`TimmBackbone` with your own loop, store its `state_dict()`, and give that as weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import onnx
import torch
from torch import Tensor, nn

from export.backbones import export_module
from export.network import FEATURE_STRIDE
from hipnet_edge.preprocessing import InputSpec
from hipnet_edge.vocabulary import CAUSES, VIEWS

TOLERANCE = 1e-3
"""Relative; deep networks add up in another order in every engine."""


class TimmBackbone(nn.Module):
    """Any network of timm that gives feature maps, with a decision over both views.

    Args:
        name: such as "resnet50".

    Raises:
        ValueError: timm has no such network, or none of its features has a sixteenth of the
            input's side.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        import timm

        try:
            known: Any = timm.create_model(name, features_only=True, in_chans=1).feature_info
        except RuntimeError as error:  # how timm says that it knows no such name
            raise ValueError(f"timm gives no feature maps of {name!r}") from error
        fitting = [i for i, stride in enumerate(known.reduction()) if stride == FEATURE_STRIDE]
        if not fitting:
            raise ValueError(f"{name} has no features with 1/{FEATURE_STRIDE} of the input's side")
        self.trunk = timm.create_model(
            name, features_only=True, in_chans=1, out_indices=fitting[-1:]
        )
        channels = known.channels()[fitting[-1]]
        self.decision = nn.Linear(len(VIEWS) * 2 * channels, len(CAUSES))

    def forward(self, radiographs: Tensor) -> tuple[Tensor, Tensor]:
        """`radiographs` [B, 2, H, W] to `logits` [B, 5] and `features` [B, 2, C, H/16, W/16]."""
        rows, columns = radiographs.shape[2:]
        (features,) = self.trunk(radiographs.reshape(-1, 1, rows, columns))
        pooled = torch.cat([features.mean((2, 3)), features.amax((2, 3))], dim=1)
        logits = self.decision(pooled.reshape(-1, len(VIEWS) * pooled.shape[1]))
        return logits, features.reshape(-1, len(VIEWS), *features.shape[1:])


def export_timm(
    backbone: TimmBackbone, name: str, spec: InputSpec, dynamic_batch: bool = False
) -> tuple[onnx.ModelProto, float]:
    """The backbone as ONNX, and its largest difference from PyTorch relative to the largest value.

    Raises:
        ValueError: that difference is more than `TOLERANCE`.
    """
    model, difference = export_module(backbone.eval(), f"timm {name}", spec, dynamic_batch)
    if not difference < TOLERANCE:
        raise ValueError(f"{name} as ONNX differs from PyTorch by {difference:.2g}")
    return model, difference


@click.command(help=__doc__)
@click.option("--name", required=True, help="As timm knows it.")
@click.option("--weights", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="ONNX file.")
@click.option("--dynamic-batch", is_flag=True, help="Any number of studies at once.")
def main(name: str, weights: Path, out: Path, dynamic_batch: bool) -> None:
    """Export a backbone of timm."""
    try:
        backbone = TimmBackbone(name)
        backbone.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        model, difference = export_timm(backbone, name, InputSpec(), dynamic_batch)
    except (ValueError, RuntimeError) as error:  # RuntimeError: weights of another network
        raise click.ClickException(str(error)) from error
    onnx.save(model, out)
    print(f"{out}: differs from PyTorch by {difference:.1e}")


if __name__ == "__main__":
    main()
