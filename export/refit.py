"""Fit what belongs to one set of four backbones, whoever trained them.

    python -m export.refit --run runs/one --train runs/train --validation runs/validation \
        --out runs/one/refit
    python -m export.refit --backbones a.onnx b.onnx c.onnx d.onnx --train … --out …

The backbones are frozen ONNX files that keep the contract of `export.backbones`; the members of a
training run are brought to that form first. The map head and the statistics of novelty learn from
augmented training studies. One half of the validation studies, as they are and augmented, sets the
temperatures, the other half the thresholds and the conformal set; all of them set the limits of
novelty (by statistics without the family of each study's own stem) and of the sign of failure.
Writes the backbones, `tail.pt` and `refit.json`, which `export.to_onnx` reads.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from export import calibration, evaluate
from export.backbones import Backbone, export_member, open_backbones
from export.cohort import Cohort
from export.features import Answers, ask
from export.network import MAP_STRIDE, MEMBERS, deploy
from export.novelty import fit_novelty, novelty_if_unseen, pooled
from export.provenance import write
from export.tail import Fusion, MapHead, NetworkOutputs, Tail
from export.train import load_member, map_loss, map_target
from hipnet_edge.preprocessing import InputSpec
from hipnet_edge.vocabulary import CAUSES

Array = NDArray[Any]

TAIL_FILE = "tail.pt"
REPORT_FILE = "refit.json"
BACKBONE_FOLDER = "backbones"


def fit_map_head(answers: Answers, steps: int, seed: int = 0, batch: int = 16) -> MapHead:
    """Train the map head on the backbones' features."""
    torch.manual_seed(seed)
    head = MapHead([features.shape[2] for features in answers.features])
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    random, order = np.random.default_rng(seed), np.empty(0, np.int64)
    bar = tqdm(range(steps), desc="map head", mininterval=5)
    for _ in bar:
        if len(order) < min(batch, len(answers)):
            order = random.permutation(len(answers))
        # Sorted: neighbours on disk are read together.
        indices, order = np.sort(order[:batch]), order[batch:]
        _, features = answers.read(indices)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = head(features)
        loss = _head_loss(
            logits.float(),
            torch.from_numpy(answers.occupancy[indices]),
            torch.from_numpy(answers.causes[indices]),
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{float(loss.detach()):.3f}", refresh=False)
    return head.eval()


def _head_loss(logits: Tensor, occupancy: Tensor, causes: Tensor) -> Tensor:
    """The loss of maps against masks; where nobody drew one, of their peaks against the cause.

    From causes alone a map learns where something speaks for its cause, not how far it reaches;
    both views are taken to show it.
    """
    drawn = (causes < 0) | ~torch.isnan(occupancy).flatten(1).all(1)
    loss = logits.sum() * 0.0
    if drawn.any():
        target = map_target(occupancy[drawn], causes[drawn], MAP_STRIDE)
        loss = loss + map_loss(logits[drawn], target)
    if not drawn.all():
        peaks = logits[~drawn].amax((3, 4))
        present = functional.one_hot(causes[~drawn], len(CAUSES)).to(peaks.dtype)
        present = present[:, None].expand_as(peaks)
        loss = loss + functional.binary_cross_entropy_with_logits(peaks, present)
    return loss


@torch.no_grad()
def pooled_vectors(answers: Answers) -> list[Array]:
    """What novelty measures, of each backbone: vectors [N, P]."""
    vectors = [[pooled(f).numpy() for f in features] for _, features in answers.batches()]
    return [np.concatenate(one) for one in zip(*vectors, strict=True)]


@torch.no_grad()
def run_tail(tail: Tail, answers: Answers) -> dict[str, Array]:
    """The outputs of the whole network, as arrays by name."""
    deployed = deploy(tail)
    parts: list[NetworkOutputs] = [deployed(*batch) for batch in answers.batches()]
    return {
        name: torch.cat([getattr(part, name) for part in parts]).numpy()
        for name in NetworkOutputs._fields
    }


@dataclass(frozen=True)
class Fitted:
    """A tail with its calibration and figures."""

    tail: Tail
    decision: dict[str, Any]
    """The section `decision` of the manifest."""
    metrics: dict[str, Any]


def fit(
    train: Answers,
    validation: Answers,
    varied: Answers,
    steps: int,
    names: Sequence[str],
    implants: tuple[Array, Array],
) -> Fitted:
    """Fit everything.

    Args:
        train: augmented training studies.
        validation: validation studies as they are.
        varied: the same, augmented: how sure to be, and how far novelty goes, where exposure and
            noise differ.
        steps: of the map head.
        names: of the backbones.
        implants: families of the training studies' implants and of the validation studies'.
    """
    failed = validation.causes >= 0
    first, second = (np.flatnonzero(failed)[part::2] for part in (0, 1))
    temperatures = calibration.fit_temperatures(
        np.concatenate([answers.logits[:, first] for answers in (validation, varied)], axis=1),
        np.tile(validation.causes[first], 2),
    )
    fusion = Fusion(temperatures.tolist(), [1.0 / len(names)] * len(names))
    vectors = pooled_vectors(train)
    tail = Tail(fit_map_head(train, steps), fusion, fit_novelty(vectors)).eval()
    found = run_tail(tail, validation)
    unseen = [
        novelty_if_unseen(vectors, implants[0], pooled_vectors(answers), implants[1])
        for answers in (validation, varied)
    ]
    probabilities, causes = found["probabilities"], validation.causes
    decision = {
        "thresholds": calibration.cause_thresholds(probabilities[second], causes[second]),
        "conformal": {
            "coverage": calibration.COVERAGE,
            "threshold": calibration.conformal_threshold(probabilities[second], causes[second]),
        },
        "novelty": {"threshold": calibration.novelty_threshold(np.concatenate(unseen))},
        "sign_of_failure": calibration.fit_sign_of_failure(found["maps"], causes),
    }
    metrics = {
        **network_metrics(found, validation, names),
        **_decision_metrics(found, validation, decision, first),
    }
    return Fitted(tail, decision, metrics)


def network_metrics(
    outputs: dict[str, Array], answers: Answers, names: Sequence[str]
) -> dict[str, Any]:
    """Figures over the failed studies, of the whole network and of each backbone alone."""
    failed = answers.causes >= 0
    causes = answers.causes[failed]
    found = {name: values[failed] for name, values in outputs.items()}
    p, members = found["probabilities"], found["member_probabilities"]
    maps = evaluate.map_metrics(found["maps"], answers.occupancy[failed], causes)
    # Without masks nothing can be said of the maps, and NaN is no JSON.
    maps = {key: value for key, value in maps.items() if not np.isnan(value)}
    return {
        "studies": int(failed.sum()),
        "macro_auc": round(evaluate.macro_auc(p, causes), 4),
        "auc_by_cause": {k: round(v, 4) for k, v in evaluate.auc_by_cause(p, causes).items()},
        "accuracy": round(evaluate.accuracy(p, causes), 4),
        "nll": round(evaluate.negative_log_likelihood(p, causes), 4),
        "calibration_error": round(evaluate.calibration_error(p, causes), 4),
        "maps": {key: round(value, 4) for key, value in maps.items()},
        "member_macro_auc": {
            name: round(evaluate.macro_auc(members[:, i], causes), 4)
            for i, name in enumerate(names)
        },
    }


def _decision_metrics(
    outputs: dict[str, Array], answers: Answers, decision: dict[str, Any], apart: Array
) -> dict[str, Any]:
    """How the calibration does; the conformal set on the half that did not set it."""
    p, causes = outputs["probabilities"], answers.causes
    least = np.minimum(1.0 - decision["conformal"]["threshold"], p.max(axis=1))
    plausible = (p >= least[:, None])[apart]
    novel = outputs["novelty"] > decision["novelty"]["threshold"]
    metrics: dict[str, Any] = {
        "sound_studies": int((causes < 0).sum()),
        "conformal": {
            "coverage": round(float(plausible[np.arange(len(apart)), causes[apart]].mean()), 4),
            "mean_set_size": round(float(plausible.sum(axis=1).mean()), 4),
        },
        "novelty_false_alarms": round(float(novel.mean()), 4),
    }
    if (causes < 0).any():
        peaks = outputs["maps"].max(axis=(1, 2, 3, 4))
        metrics["sign_of_failure_auc"] = round(float(roc_auc_score(causes >= 0, peaks)), 4)
    return metrics


def refit(
    backbones: Sequence[Backbone],
    train: Cohort,
    validation: Cohort,
    out: Path,
    *,
    steps: int,
    threads: int = 0,
) -> dict[str, Any]:
    """Fit a tail for a set of backbones and write everything that `export.to_onnx` needs.

    Returns:
        What `refit.json` says.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        cache = Path(scratch)
        fitted = fit(
            ask(backbones, train, cache / "train", augmented=True, threads=threads, seed=1),
            ask(backbones, validation, cache / "validation", threads=threads),
            ask(backbones, validation, cache / "varied", augmented=True, threads=threads, seed=2),
            steps,
            [backbone.name for backbone in backbones],
            (_implants(train), _implants(validation)),
        )
    folder = out / BACKBONE_FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for backbone in backbones:
        onnx.save(backbone.model, folder / f"{backbone.name}.onnx")
    torch.save(fitted.tail.state_dict(), out / TAIL_FILE)
    report = {
        "input": validation.index["input"],
        "simulated": _simulated(train),
        "backbones": [backbone.name for backbone in backbones],
        "decision": fitted.decision,
        "metrics": {
            "train": _about(train),
            "validation": fitted.metrics,
        },
    }
    write(report, out / REPORT_FILE)
    return report


def _implants(cohort: Cohort) -> Array:
    """The families of the implants [N], where the table has them; else one family is all."""
    return cohort.table.get("stem", np.full(len(cohort), "")).astype(str)


def _simulated(cohort: Cohort) -> bool:
    """Whether any of the studies is simulated; a table that names a site is of simulated ones."""
    return "site" in cohort.index or bool((cohort.table.get("site", np.empty(0, str)) != "").any())


def _about(cohort: Cohort) -> dict[str, Any]:
    """What the manifest says of the training studies."""
    known = ("site", "seed", "pixel_spacing_mm", "two_causes", "table_sha256", "source_sha256")
    return {
        "n": len(cohort),
        "sound": int((cohort.causes < 0).sum()),
        **{key: cohort.index[key] for key in known if key in cohort.index},
    }


def members_as_onnx(
    run: Path, spec: InputSpec, folder: Path, dynamic_batch: bool
) -> tuple[Path, ...]:
    """Bring a training run's four members to the contract; gives the files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in MEMBERS:
        model, difference = export_member(load_member(run, name), spec, dynamic_batch)
        if not difference < 1e-4:
            raise ValueError(f"{name} as ONNX differs from PyTorch by {difference:.2g}")
        paths.append(folder / f"{name}.onnx")
        onnx.save(model, paths[-1])
    return tuple(paths)


@click.command(help=__doc__)
@click.option("--run", type=click.Path(path_type=Path), help="A training run of export.train.")
@click.option(
    "--backbones",
    "files",
    type=click.Path(path_type=Path, exists=True),
    nargs=4,
    help="Four ONNX files instead.",
)
@click.option("--train", "train_directory", type=click.Path(path_type=Path), required=True)
@click.option("--validation", type=click.Path(path_type=Path), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Outside git.")
@click.option("--steps", type=click.IntRange(1), default=600, show_default=True, help="Map head.")
@click.option("--studies", type=click.IntRange(1), help="At most so many training studies.")
@click.option("--dynamic-batch", is_flag=True, help="With --run: any number of studies at once.")
@click.option("--threads", type=click.IntRange(1), help="Default: all cores.")
def main(
    run: Path | None,
    files: tuple[Path, ...] | None,
    train_directory: Path,
    validation: Path,
    out: Path,
    steps: int,
    studies: int | None,
    dynamic_batch: bool,
    threads: int | None,
) -> None:
    """Fit what belongs to one set of backbones."""
    if (run is not None and files) or (run is None and not files):
        raise click.UsageError("name a training run with --run, or four files with --backbones")
    if threads:
        torch.set_num_threads(threads)
    try:
        train, held_out = Cohort.load(train_directory), Cohort.load(validation)
        if studies and studies < len(train):
            train = train.subset(np.random.default_rng(0).permutation(len(train))[:studies])
        spec = InputSpec.from_dict(train.index["input"])
        with tempfile.TemporaryDirectory() as scratch:
            if run is not None:
                files = members_as_onnx(run, spec, Path(scratch), dynamic_batch)
            backbones = open_backbones(files or (), spec)
        report = refit(backbones, train, held_out, out, steps=steps, threads=threads or 0)
    except (FileNotFoundError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    print(json.dumps({key: report[key] for key in ("decision", "metrics")}, indent=1))


if __name__ == "__main__":
    main()
