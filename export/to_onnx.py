"""Join backbones and fitted tail to one merged FP32 ONNX file, and write the bundle around it.

    python -m export.to_onnx --refit runs/one/refit --out engines/reference
    python -m export.to_onnx --refit runs/one/refit --run runs/one --out my-bundle --parts my-parts

What `export.refit` left is read; the merged file is compared with its parts, its nodes are named
after the network's, equal constants are kept once, and nothing of this machine stays in it. Its
large weights are stored in half precision; how much that changes is measured too.
`--parts` also writes the four backbones and the tail as files of their own, cut from the merged
one, and `parts.json` with the largest difference of each from PyTorch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import torch

from export import onnx_graph
from export.backbones import (
    Backbone,
    DeployedMember,
    like_a_radiograph,
    open_backbones,
    open_session,
    relative_difference,
)
from export.bundle import write_bundle
from export.model_card import model_card
from export.network import FEATURE_STRIDE, MAP_STRIDE, deploy
from export.parts import OUTPUTS, TAIL, cut
from export.provenance import today, write
from export.refit import BACKBONE_FOLDER, REPORT_FILE, TAIL_FILE
from export.tail import NetworkOutputs, Tail
from export.train import load_member
from hipnet_edge.preprocessing import InputSpec
from hipnet_edge.vocabulary import CAUSES, VIEWS

TOLERANCE = 1e-4
HALF_TOLERANCE = 1e-2
"""For weights that are rounded to be stored."""
PARTS_FILE = "parts.json"


def merge(backbones: Sequence[Backbone], tail: Tail, spec: InputSpec) -> onnx.ModelProto:
    """The merged ONNX model; it takes any number of studies if every backbone does."""
    dynamic = all(backbone.dynamic_batch for backbone in backbones)
    batch = 2 if dynamic else 1
    rows, columns = spec.rows // FEATURE_STRIDE, spec.columns // FEATURE_STRIDE
    logits = [torch.zeros(batch, len(CAUSES)) for _ in backbones]
    features = [torch.zeros(batch, len(VIEWS), b.channels, rows, columns) for b in backbones]
    inputs = [f"{backbone.name}.{output}" for output in OUTPUTS for backbone in backbones]
    joint = onnx_graph.from_torch(
        deploy(tail), (logits, features), inputs, NetworkOutputs._fields, dynamic
    )
    parts = {backbone.name: backbone.model for backbone in backbones}
    return onnx_graph.join(parts, joint, "radiographs")


def largest_difference(
    merged: onnx.ModelProto,
    backbones: Sequence[Backbone],
    tail: Tail,
    spec: InputSpec,
    seeds: int = 3,
) -> float:
    """The largest difference of any output between the merged file and its parts run one by one.

    The parts are the backbones in ONNX Runtime and the tail in PyTorch. Novelty, which has no
    upper end, counts in proportion.
    """
    whole = open_session(merged)
    sessions = [open_session(backbone.model) for backbone in backbones]
    deployed, largest = deploy(tail), 0.0
    for seed in range(seeds):
        given = {"radiographs": like_a_radiograph(spec, seed)}
        answers = [session.run(list(OUTPUTS), given) for session in sessions]
        logits, features = ([torch.from_numpy(a[i]) for a in answers] for i in (0, 1))
        with torch.no_grad():
            expected: NetworkOutputs = deployed(logits, features)
        found = whole.run(list(NetworkOutputs._fields), given)
        for wanted, got in zip(expected, found, strict=True):
            scale = max(1.0, float(wanted.abs().max()))
            largest = max(largest, float(np.abs(wanted.numpy() - got).max()) / scale)
    return largest


def write_parts(
    folder: Path,
    model: onnx.ModelProto,
    backbones: Sequence[Backbone],
    tail: Tail,
    spec: InputSpec,
    run: Path | None = None,
) -> dict[str, Any]:
    """The merged network as five files, each compared with what it was made from.

    Args:
        folder: for `<name>.onnx` of each backbone, `tail.onnx` and `parts.json`.
        model: the merged network.
        backbones: the four.
        tail: theirs.
        spec: the input's size.
        run: the training run whose members the backbones are; a backbone is then compared with
            PyTorch, else with the ONNX file that was brought.

    Raises:
        ValueError: a part differs by more than `TOLERANCE`.
    """
    names = [backbone.name for backbone in backbones]
    files = cut(model, names)
    study = like_a_radiograph(spec, seed=0)
    answers: dict[str, Any] = {}
    compared = {}
    for backbone in backbones:
        outputs = [f"{backbone.name}.{output}" for output in OUTPUTS]
        found = open_session(files[backbone.name]).run(outputs, {"radiographs": study})
        answers.update(zip(outputs, found, strict=True))
        expected = _answers_of_origin(backbone, study, run)
        compared[backbone.name] = relative_difference(expected, found)
    logits, features = (
        [torch.from_numpy(answers[f"{name}.{output}"]) for name in names] for output in OUTPUTS
    )
    with torch.no_grad():
        wanted: NetworkOutputs = deploy(tail)(logits, features)
    found = open_session(files[TAIL]).run(list(NetworkOutputs._fields), answers)
    compared[TAIL] = relative_difference([value.numpy() for value in wanted], found)
    folder.mkdir(parents=True, exist_ok=True)
    report = {}
    for name, part in files.items():
        if not compared[name] < TOLERANCE:
            raise ValueError(f"the part {name} differs from its origin by {compared[name]:.2g}")
        content = part.SerializeToString()
        (folder / f"{name}.onnx").write_bytes(content)
        report[name] = {
            "file": f"{name}.onnx",
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
            "compared_with": "PyTorch" if run or name == TAIL else "the ONNX file that was brought",
            "largest_relative_difference": compared[name],
        }
    write(report, folder / PARTS_FILE)
    return report


def _answers_of_origin(backbone: Backbone, study: Any, run: Path | None) -> list[Any]:
    if run is None:
        session = open_session(backbone.model)
        found: list[Any] = session.run(list(OUTPUTS), {"radiographs": study})
        return found
    member = DeployedMember(load_member(run, backbone.name)).eval()
    with torch.no_grad():
        return [value.numpy() for value in member(torch.from_numpy(study))]


def manifest_fields(
    backbones: Sequence[Backbone], tail: Tail, fitted: Mapping[str, Any], notes: Sequence[str]
) -> dict[str, Any]:
    """What the manifest says of a network, but for its name and variants."""
    temperatures = tail.fusion.temperatures.flatten().tolist()
    return {
        "created": today(),
        "input": fitted["input"],
        "map_stride": MAP_STRIDE,
        "backbones": [
            {
                "name": backbone.name,
                "family": backbone.family,
                "parameters": backbone.parameters,
                "temperature": round(temperature, 4),
            }
            for backbone, temperature in zip(backbones, temperatures, strict=True)
        ],
        "fusion": {
            "method": "mean of temperature-scaled softmax",
            "weights": tail.fusion.weights.flatten().tolist(),
        },
        "decision": fitted["decision"],
        "training": {
            "data": "simulated" if fitted["simulated"] else "brought by the user",
            "studies": fitted["metrics"]["train"]["n"],
            "notes": list(notes),
            "metrics": fitted["metrics"],
        },
        "simulated": fitted["simulated"],
    }


def export_bundle(
    refit: Path,
    out: Path,
    *,
    name: str = "reference",
    version: str = "1",
    notes: Sequence[str] = (),
    parts: Path | None = None,
    run: Path | None = None,
) -> dict[str, Any]:
    """Join, check and write the bundle; gives a report.

    Args:
        refit: what `export.refit` wrote.
        out: the bundle.
        name: of the bundle.
        version: of the bundle.
        notes: sentences about the training that figures do not say, for the model card.
        parts: where to write the parts as files of their own; nowhere if None.
        run: the training run that they are compared with.

    Raises:
        ValueError: the merged file and its parts, or a part and PyTorch, differ by more than
            `TOLERANCE`, or the file with rounded weights by more than `HALF_TOLERANCE`.
    """
    fitted = json.loads((refit / REPORT_FILE).read_text())
    spec = InputSpec.from_dict(fitted["input"])
    files = [refit / BACKBONE_FOLDER / f"{backbone}.onnx" for backbone in fitted["backbones"]]
    backbones = open_backbones(files, spec)
    tail = Tail.like(torch.load(refit / TAIL_FILE, map_location="cpu", weights_only=True))
    model = merge(backbones, tail, spec)
    difference = largest_difference(model, backbones, tail, spec)
    if not difference < TOLERANCE:
        raise ValueError(f"the merged file differs from its parts by {difference:.2g}")
    written = write_parts(parts, model, backbones, tail, spec, run) if parts else None
    model = onnx_graph.store_in_half(model)
    rounded = largest_difference(model, backbones, tail, spec)
    if not rounded < HALF_TOLERANCE:
        raise ValueError(f"weights in half precision change the answers by {rounded:.2g}")
    dynamic = all(backbone.dynamic_batch for backbone in backbones)
    content = model.SerializeToString()
    fields = {
        "name": name,
        "version": version,
        **manifest_fields(backbones, tail, fitted, notes),
        "variants": {"fp32": {"file": "fp32.onnx", "dynamic_batch": dynamic}},
    }
    bundle = write_bundle(
        out, {"fp32.onnx": content, "MODEL_CARD.md": model_card(fields).encode()}, fields
    )
    return {
        "bundle": bundle.digest,
        "opset": onnx_graph.OPSET,
        "nodes": len(model.graph.node),
        "bytes": len(content),
        "parameters": onnx_graph.parameter_count(model),
        "gmac_per_study": round(onnx_graph.multiply_accumulates(model) / 1e9, 2),
        "largest_difference_to_parts": difference,
        "largest_difference_with_weights_stored_in_half": rounded,
        **({"parts": written} if written else {}),
    }


@click.command(help=__doc__)
@click.option("--refit", type=click.Path(path_type=Path), required=True, help="From export.refit.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The bundle.")
@click.option("--name", default="reference", show_default=True)
@click.option("--version", default="1", show_default=True)
@click.option("--note", "notes", multiple=True, help="A sentence for the model card; repeatable.")
@click.option("--parts", type=click.Path(path_type=Path), help="Folder for the five parts.")
@click.option("--run", type=click.Path(path_type=Path), help="Of training, to compare parts with.")
def main(
    refit: Path,
    out: Path,
    name: str,
    version: str,
    notes: tuple[str, ...],
    parts: Path | None,
    run: Path | None,
) -> None:
    """Make a bundle of a fitted set of backbones."""
    try:
        report = export_bundle(
            refit, out, name=name, version=version, notes=notes, parts=parts, run=run
        )
    except (FileNotFoundError, FileExistsError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
