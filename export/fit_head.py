"""Fit what belongs to one set of four trained backbones: the map head and the temperatures.

    python -m export.fit_head --train runs/train --validation runs/validation --out runs/one

The backbones are frozen. The map head learns from their `features`; the temperatures make the
fused probabilities calibrated on the validation cohort. Writes `network.pt` and `metrics.json`.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from export import evaluate
from export.cohort import Cohort
from export.network import (
    MAP_STRIDE,
    MEMBERS,
    Fusion,
    MapHead,
    Member,
    Network,
    NetworkOutputs,
    channels_last,
    deploy,
)
from export.train import (
    Batch,
    Settings,
    load_member,
    map_loss,
    map_target,
    read_batches,
    training_batches,
)

NETWORK_FILE = "network.pt"
METRICS_FILE = "metrics.json"


def fit_map_head(
    members: list[Member], train: Cohort, steps: int, seed: int = 0, batch: int = 16
) -> MapHead:
    """Train the map head on the frozen members' features at full resolution."""
    torch.manual_seed(seed)
    head = MapHead([member.channels for member in members])
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    frozen = [deploy(member) for member in members]
    for module in (head, *frozen):
        channels_last(module)
    bar = tqdm(total=steps, desc="map head", mininterval=5)
    # Seeds that no epoch of the backbones used.
    settings, epoch = Settings(member="map head", batch=batch, seed=seed), 900
    while bar.n < steps:
        for studies in training_batches(train, settings, epoch, half=False):
            loss = _head_step(head, frozen, studies, optimizer)
            schedule.step()
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update()
            if bar.n == steps:
                break
        epoch += 1
    bar.close()
    head.eval()
    return head


def _head_step(
    head: MapHead, frozen: list[nn.Module], batch: Batch, optimizer: torch.optim.Optimizer
) -> float:
    target = map_target(batch.occupancy, batch.causes, MAP_STRIDE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with torch.no_grad():
            features = [member(batch.radiographs).features for member in frozen]
        logits = head(features)
    loss = map_loss(logits.float(), target)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return float(loss.detach())


def fit_temperatures(logits: Tensor, causes: Tensor) -> list[float]:
    """One temperature a member, such that the mean of their softmaxes is calibrated.

    Each member's own temperature comes first; their mean is then less sure than it should be
    (members err differently), so one factor common to all is fitted to the fused probabilities.

    Args:
        logits: float32 [4, N, 5] on validation studies.
        causes: int64 [N].
    """

    def fused_nll(factor: Tensor, base: Tensor) -> Tensor:
        members = torch.softmax(logits / (base * factor)[:, None, None], dim=2)
        return functional.nll_loss(torch.log(members.mean(0).clamp_min(1e-12)), causes)

    def minimum(loss: Any) -> float:
        """Golden-section search over log temperature: one number, one valley."""
        low, high, ratio = math.log(0.1), math.log(10.0), (math.sqrt(5.0) - 1.0) / 2.0
        for _ in range(40):
            left, right = high - ratio * (high - low), low + ratio * (high - low)
            if float(loss(math.exp(left))) < float(loss(math.exp(right))):
                high = right
            else:
                low = left
        return math.exp((low + high) / 2.0)

    own = torch.tensor(
        [minimum(lambda t, m=member: functional.cross_entropy(m / t, causes)) for member in logits]
    )
    common = minimum(lambda factor: fused_nll(torch.tensor(factor), own))
    return [float(t) for t in own * common]


@torch.no_grad()
def run_network(network: nn.Module, cohort: Cohort) -> dict[str, NDArray[np.float32]]:
    """The outputs of a network in FP32 over a cohort, as arrays by name."""
    parts: list[NetworkOutputs] = [
        network(batch.radiographs)
        for batch in tqdm(
            read_batches(cohort, np.arange(len(cohort)), 8, half=False),
            desc="evaluating",
            total=math.ceil(len(cohort) / 8),
            mininterval=5,
        )
    ]
    return {
        name: torch.cat([getattr(part, name) for part in parts]).numpy()
        for name in NetworkOutputs._fields
    }


def fit(members: list[Member], train: Cohort, validation: Cohort, steps: int) -> Network:
    """Fit map head and temperatures; gives the whole network."""
    head = fit_map_head(members, train, steps)
    causes = torch.from_numpy(validation.causes)
    plain = Fusion([1.0] * len(members), [1.0 / len(members)] * len(members))
    network = Network(members, head, plain).eval()
    # With temperatures of one the logarithm of a softmax is the logits but for a constant.
    outputs = run_network(deploy(network), validation)
    logits = torch.from_numpy(np.log(np.maximum(outputs["member_probabilities"], 1e-30)))
    network.fusion = Fusion(
        fit_temperatures(logits.transpose(0, 1), causes), [1.0 / len(members)] * len(members)
    )
    return network


def network_metrics(outputs: dict[str, NDArray[np.float32]], cohort: Cohort) -> dict[str, Any]:
    """Figures of the whole network, and of each member alone."""
    p, causes = outputs["probabilities"], cohort.causes
    members = outputs["member_probabilities"]
    return {
        "studies": len(cohort),
        "macro_auc": round(evaluate.macro_auc(p, causes), 4),
        "auc_by_cause": {k: round(v, 4) for k, v in evaluate.auc_by_cause(p, causes).items()},
        "accuracy": round(evaluate.accuracy(p, causes), 4),
        "nll": round(evaluate.negative_log_likelihood(p, causes), 4),
        "calibration_error": round(evaluate.calibration_error(p, causes), 4),
        "maps": {
            k: round(v, 4)
            for k, v in evaluate.map_metrics(outputs["maps"], cohort.occupancy, causes).items()
        },
        "member_macro_auc": {
            name: round(evaluate.macro_auc(members[:, i], causes), 4)
            for i, name in enumerate(MEMBERS)
        },
    }


def save_network(network: Network, out: Path, metrics: dict[str, Any]) -> None:
    """Write `network.pt` and `metrics.json`."""
    torch.save(network.state_dict(), out / NETWORK_FILE)
    (out / METRICS_FILE).write_text(json.dumps(metrics, indent=1) + "\n")


def load_network(out: Path) -> Network:
    """The fitted network of a run, in evaluation mode."""
    members = [Member(name) for name in MEMBERS]
    head = MapHead([member.channels for member in members])
    network = Network(members, head, Fusion([1.0] * len(members), [1.0] * len(members)))
    network.load_state_dict(torch.load(out / NETWORK_FILE, map_location="cpu", weights_only=True))
    return network.eval()


@click.command(help=__doc__)
@click.option("--train", "train_directory", type=click.Path(path_type=Path), required=True)
@click.option("--validation", type=click.Path(path_type=Path), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The run.")
@click.option("--steps", type=click.IntRange(1), default=200, show_default=True)
def main(train_directory: Path, validation: Path, out: Path, steps: int) -> None:
    """Fit map head and temperatures of a run."""
    try:
        train, held_out = Cohort.load(train_directory), Cohort.load(validation)
        members = [load_member(out, name) for name in MEMBERS]
    except (FileNotFoundError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    network = fit(members, train, held_out, steps)
    metrics = {
        "train": {key: train.index[key] for key in ("n", "seed", "pixel_spacing_mm")},
        "validation": network_metrics(run_network(deploy(network), held_out), held_out),
    }
    save_network(network, out, metrics)
    print(json.dumps(metrics, indent=1))


if __name__ == "__main__":
    main()
