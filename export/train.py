"""Train one backbone on a cohort: the cause of each study, and where the disease is.

    python -m export.train --train runs/train --validation runs/validation --out runs/one \
        --member resnet --epochs-windows 12 --epochs-full 2

Each of the four is trained alone; `python -m export.refit` then fits what belongs to all of
them. Most epochs see one window of each film, at full resolution and a quarter of the cost, and
learn where disease is and which; the last ones see whole films and learn to decide. (Or most see
half the resolution: `--epochs-half`.) A stopped run continues from its last finished epoch and ends
the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from export import evaluate
from export.augmentation import augment, cut_windows
from export.cohort import Cohort
from export.network import FEATURE_STRIDE, MAP_STRIDE, MEMBERS, Member, channels_last
from hipnet_edge.vocabulary import CAUSES

EVIDENCE_WEIGHT = 0.3
"""Of the map loss beside the cross-entropy of the cause."""
CELL_WEIGHT = 0.5
"""Of the cross-entropy of the cause in diseased cells."""
FULL_CELL = 0.125
"""A cell counts as diseased once an eighth of its area is: a 1 mm line across a 4 mm cell half."""
LABEL_SMOOTHING = 0.05


@dataclass(frozen=True)
class Settings:
    """What decides a training's result, beside its data."""

    member: str
    epochs_half: int = 0
    epochs_windows: int = 12
    epochs_full: int = 2
    batch: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    warm_up_steps: int = 60
    seed: int = 0

    @property
    def epochs(self) -> int:
        """Of all stages together."""
        return self.epochs_half + self.epochs_windows + self.epochs_full

    def stage(self, epoch: int) -> str:
        """What an epoch (from 0) sees of each film: "half" resolution, "windows" or "full"."""
        if epoch < self.epochs_half:
            return "half"
        return "windows" if epoch < self.epochs_half + self.epochs_windows else "full"


@dataclass(frozen=True)
class Batch:
    """B studies: radiographs [B, 2, H, W], occupancy [B, 2, H/8, W/8] float32, causes [B].

    A cause of -1 is a sound prosthesis; an occupancy of NaN is unknown (nobody drew a mask).
    """

    radiographs: Tensor
    occupancy: Tensor
    causes: Tensor


def read_batches(
    cohort: Cohort, order: np.ndarray[Any, Any], size: int, half: bool
) -> Iterator[Batch]:
    """Read studies in an order, the next batch while the last one is used."""

    def read(indices: np.ndarray[Any, Any]) -> Batch:
        radiographs = torch.from_numpy(cohort.radiographs[indices].astype(np.float32))
        occupancy = torch.from_numpy(cohort.occupancy[indices].astype(np.float32))
        if half:
            radiographs = functional.avg_pool2d(radiographs, 2)
            occupancy = functional.avg_pool2d(occupancy, 2)
        return Batch(radiographs, occupancy, torch.from_numpy(cohort.causes[indices]))

    parts = [order[start : start + size] for start in range(0, len(order), size)]
    with ThreadPoolExecutor(1) as reader:
        waiting = reader.submit(read, parts[0])
        for part in parts[1:]:
            ready, waiting = waiting, reader.submit(read, part)
            yield ready.result()
        yield waiting.result()


def training_batches(cohort: Cohort, settings: Settings, epoch: int) -> Iterator[Batch]:
    """One epoch, shuffled and augmented; epoch and seed alone decide every random number."""
    generator = torch.Generator().manual_seed(settings.seed * 1000 + epoch)
    order = torch.randperm(len(cohort), generator=generator).numpy()
    spec, stage = cohort.index["input"], settings.stage(epoch)
    # A last batch of one or two would upset batch normalisation: whole batches only.
    order = order[: max(len(order) // settings.batch, 1) * settings.batch]
    for batch in read_batches(cohort, order, settings.batch, stage == "half"):
        seen = batch.radiographs, batch.occupancy
        if stage == "windows":
            seen = cut_windows(*seen, FEATURE_STRIDE, generator)
        yield Batch(*augment(*seen, spec["mean"], spec["std"], generator), batch.causes)


def map_target(occupancy: Tensor, causes: Tensor, stride: int) -> Tensor:
    """Truth for map logits [B, 2, 5, h, w]: the true cause's channel holds the diseased cells.

    A sound prosthesis has no diseased cell in any channel. Of a film without a mask only the other
    causes' channels are known (empty); the true cause's is NaN, and `map_loss` passes over it.
    """
    cells = (occupancy / FULL_CELL).clamp(0.0, 1.0)
    if stride != MAP_STRIDE:
        cells = functional.max_pool2d(cells, stride // MAP_STRIDE)
    channels = causes[:, None] == torch.arange(len(CAUSES), device=causes.device)
    channels = channels[:, None, :, None, None]
    return torch.where(channels, cells[:, :, None], torch.zeros_like(cells[:, :, None]))


def map_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy per diseased cell, and Dice over the whole batch.

    Cross-entropy over all cells keeps the maps probabilities; dividing by the number of diseased
    cells keeps the loss of a hairline as heavy as that of a large osteolysis is light.
    """
    known = ~torch.isnan(target)
    target = torch.where(known, target, torch.zeros_like(target))
    entropy = functional.binary_cross_entropy_with_logits(logits, target, known, reduction="sum")
    maps = torch.sigmoid(logits) * known
    overlap = (maps * target).sum((1, 3, 4))
    size = maps.sum((1, 3, 4)) + target.sum((1, 3, 4))
    present = target.sum((1, 3, 4)) > 0
    dice = 1.0 - (2.0 * overlap + 1.0) / (size + 1.0)
    return entropy / (target.sum() + 1.0) + (dice * present).sum() / present.sum().clamp(min=1)


def cell_cause_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of the cause in diseased cells; every view that shows disease weighs the same.

    The map loss asks where; this asks which, of the same logits [B, 2, 5, h, w].
    """
    share = torch.nan_to_num(target)
    size = share.sum((2, 3, 4), keepdim=True)
    entropy = -(torch.log_softmax(logits, dim=2) * share / size.clamp(min=1e-6)).sum()
    return entropy / (size > 0).sum().clamp(min=1)


def cause_loss(logits: Tensor, causes: Tensor) -> Tensor:
    """Cross-entropy of the cause over the diseased studies; sound ones (-1) have none."""
    total = functional.cross_entropy(
        logits, causes, ignore_index=-1, label_smoothing=LABEL_SMOOTHING, reduction="sum"
    )
    return total / (causes >= 0).sum().clamp(min=1)


class Trainer:
    """A member in training, with what a checkpoint must keep."""

    def __init__(self, settings: Settings, steps_per_epoch: int, compiled: bool) -> None:
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = Member(settings.member).to(self.device)
        channels_last(self.model)
        # One graph for each resolution: with symbolic shapes the compiler of torch 2.13 fails.
        self.run: nn.Module = (
            torch.compile(self.model, dynamic=False) if compiled else self.model  # type: ignore[assignment]
        )
        self.optimizer = _optimizer(self.model, settings)
        cheap_steps = (settings.epochs_half + settings.epochs_windows) * steps_per_epoch
        # Progress counts pixels: a step with whole films is worth four of the others. Counted in
        # steps, whole films would get only the tail of the schedule and stay unlearned.
        total = max(cheap_steps + 4 * settings.epochs_full * steps_per_epoch, 1)
        warm_up = min(settings.warm_up_steps, total // 5 + 1)

        def factor(step: int) -> float:
            if step < warm_up:
                return (step + 1) / warm_up
            seen = step if step < cheap_steps else cheap_steps + 4 * (step - cheap_steps)
            return 0.5 * (1.0 + math.cos(math.pi * min(seen / total, 1.0))) + 1e-3

        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, factor)

    def step(self, batch: Batch, decide: bool = True) -> float:
        """One step of the optimizer; gives the loss.

        Args:
            batch: studies, or windows of them.
            decide: learn the decision too. Not from windows: what a window leaves out says more
                of the cause than a whole film does, and misleads the decision about those.
        """
        causes = batch.causes.to(self.device)
        target = map_target(batch.occupancy.to(self.device), causes, FEATURE_STRIDE)
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            outputs = self.run(batch.radiographs.to(self.device))
        evidence = outputs.evidence.float()
        loss = EVIDENCE_WEIGHT * map_loss(evidence, target)
        loss = loss + CELL_WEIGHT * cell_cause_loss(evidence, target)
        if decide:
            loss = loss + cause_loss(outputs.logits.float(), causes)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        self.schedule.step()
        return float(loss.detach())

    @torch.no_grad()
    def measure(self, cohort: Cohort, half: bool) -> dict[str, float]:
        """Figures over a cohort at the resolution of the epoch."""
        self.model.eval()
        probabilities, evidence, truth = [], [], []
        for batch in read_batches(cohort, np.arange(len(cohort)), 16, half):
            with torch.autocast(self.device.type, dtype=torch.bfloat16):
                outputs = self.model(batch.radiographs.to(self.device))
            probabilities.append(outputs.logits.float().softmax(1).cpu())
            evidence.append(outputs.evidence.float().sigmoid().cpu())
            pooled = FEATURE_STRIDE // MAP_STRIDE
            truth.append(functional.max_pool2d(batch.occupancy, pooled))
        self.model.train()
        p, found = torch.cat(probabilities).numpy(), torch.cat(evidence).numpy()
        maps = evaluate.map_metrics(found, torch.cat(truth).numpy(), cohort.causes)
        return {
            "macro_auc": evaluate.macro_auc(p, cohort.causes),
            "accuracy": evaluate.accuracy(p, cohort.causes),
            "nll": evaluate.negative_log_likelihood(p, cohort.causes),
            "pointing": maps["pointing"],
            "average_precision": maps["average_precision"],
            # What the maps alone would call: all there is to see while only windows are learned.
            "peak_accuracy": evaluate.accuracy(found.max(axis=(1, 3, 4)), cohort.causes),
            "sign_auc": evaluate.sign_auc(found, cohort.causes),
        }

    def save(self, path: Path, epoch: int) -> None:
        """Keep everything that the next epoch needs; the old file stays whole until the end."""
        state = {
            "settings": asdict(self.settings),
            "epoch": epoch,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        unfinished = path.with_suffix(".part")
        torch.save(state, unfinished)
        unfinished.replace(path)

    def resume(self, path: Path) -> int:
        """Continue a run; gives the number of finished epochs.

        Raises:
            ValueError: the checkpoint is of other settings.
        """
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["settings"] != asdict(self.settings):
            raise ValueError(f"{path} is of other settings: {state['settings']}; use another --out")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        return int(state["epoch"])


def _optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """AdamW; biases and normalisation do not decay."""
    decaying = [p for p in model.parameters() if p.ndim > 1]
    free = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": decaying, "weight_decay": settings.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate)


def train_member(
    train: Cohort, validation: Cohort, out: Path, settings: Settings, compiled: bool = False
) -> dict[str, float]:
    """Train, or finish training, one member; gives its last figures.

    Writes `out/<member>/checkpoint.pt` and a line of `out/<member>/metrics.jsonl` each epoch;
    of the epochs with windows only the last is measured on whole films.
    """
    directory = out / settings.member
    directory.mkdir(parents=True, exist_ok=True)
    checkpoint, metrics_file = directory / "checkpoint.pt", directory / "metrics.jsonl"
    steps = max(len(train) // settings.batch, 1)
    trainer = Trainer(settings, steps, compiled)
    first = trainer.resume(checkpoint) if checkpoint.exists() else 0
    figures: dict[str, float] = {}
    for epoch in range(first, settings.epochs):
        stage = settings.stage(epoch)
        # Dropout draws from the global generator: a resumed epoch must start where it did.
        torch.manual_seed(settings.seed * 1000 + epoch)
        losses = []
        label = f"{settings.member} {epoch + 1} {stage}"
        batches = training_batches(train, settings, epoch)
        bar = tqdm(batches, desc=label, total=steps, mininterval=5)
        for batch in bar:
            losses.append(trainer.step(batch, decide=stage != "windows"))
            bar.set_postfix(loss=f"{np.mean(losses[-50:]):.3f}", refresh=False)
        figures = {"loss": float(np.mean(losses))}
        # While windows are learned nothing decides yet, and whole films take long to measure.
        if stage != "windows" or settings.stage(epoch + 1) != stage:
            figures.update(trainer.measure(validation, stage == "half"))
        trainer.save(checkpoint, epoch + 1)
        line: dict[str, object] = {"epoch": epoch + 1, "stage": stage}
        line.update({key: round(value, 4) for key, value in figures.items()})
        with metrics_file.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)
    return figures


def load_member(out: Path, name: str) -> Member:
    """A trained member, ready to use."""
    state = torch.load(out / name / "checkpoint.pt", map_location="cpu", weights_only=True)
    member = Member(name)
    member.load_state_dict(state["model"])
    return member.eval()


@click.command(help=__doc__)
@click.option("--train", "train_directory", type=click.Path(path_type=Path), required=True)
@click.option("--validation", type=click.Path(path_type=Path), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Outside git.")
@click.option("--member", type=click.Choice(MEMBERS), multiple=True, help="Default: all four.")
@click.option("--whole", is_flag=True, help="Whole films, of cohorts made with --whole.")
@click.option("--epochs-half", default=0, show_default=True)
@click.option("--epochs-windows", default=12, show_default=True)
@click.option("--epochs-full", default=2, show_default=True)
@click.option("--batch", default=16, show_default=True, help="Studies a step.")
@click.option("--learning-rate", default=2e-3, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--threads", type=click.IntRange(1), help="Default: all cores.")
@click.option("--compile/--no-compile", "compiled", default=False, help="Needs a C++ compiler.")
def main(
    train_directory: Path,
    validation: Path,
    out: Path,
    member: tuple[str, ...],
    whole: bool,
    threads: int | None,
    compiled: bool,
    **settings: Any,
) -> None:
    """Train members one after the other."""
    if threads:
        torch.set_num_threads(threads)
    try:
        data, held_out = (Cohort.load(path, whole) for path in (train_directory, validation))
        for name in member or MEMBERS:
            train_member(data, held_out, out, Settings(member=name, **settings), compiled)
    except (FileNotFoundError, ValueError) as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
