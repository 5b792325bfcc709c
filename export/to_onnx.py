"""Export a trained run as one merged FP32 ONNX file, and write the bundle around it.

    python -m export.to_onnx --run runs/one --out engines/reference

Branches are re-parameterised and batch normalisation is folded first. The file is compared with
PyTorch, its nodes are named after the network's parts, and nothing of this machine stays in it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import torch
from torch import nn

from export.bundle import write_bundle
from export.cost import multiply_accumulates, parameter_count
from export.fit_head import METRICS_FILE, load_network
from export.model_card import model_card
from export.network import (
    FAMILIES,
    MAP_STRIDE,
    Network,
    NetworkOutputs,
    deploy,
)
from hipnet_edge.preprocessing import InputSpec

OPSET = 20
"""The newest that TensorRT 10.3 reads; ONNX Runtime reads it since 1.17."""
IR_VERSION = 10
"""ONNX Runtime 1.23, the last for Python 3.10, and TensorRT 10 read no newer container."""
TOLERANCE = 1e-4


def export_network(
    network: nn.Module, spec: InputSpec, dynamic_batch: bool = False
) -> onnx.ModelProto:
    """The merged ONNX model of a deployed network.

    Args:
        network: from `deploy`: `radiographs` in, `NetworkOutputs` out.
        spec: rows and columns of the input.
        dynamic_batch: take any number of studies instead of exactly one.
    """
    example = torch.zeros(2 if dynamic_batch else 1, 2, spec.rows, spec.columns)
    shapes = ({0: torch.export.Dim("batch", min=1, max=64)},) if dynamic_batch else None
    program = torch.onnx.export(
        network,
        (example,),
        dynamo=True,
        opset_version=OPSET,
        input_names=["radiographs"],
        output_names=list(NetworkOutputs._fields),
        dynamic_shapes=shapes,
        external_data=False,
        verbose=False,
    )
    assert program is not None  # only without dynamo
    model: onnx.ModelProto = program.model_proto
    model.ir_version = IR_VERSION
    _name_nodes(model.graph)
    _strip(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Name every node after the module it comes from: `members.resnet.trunk.1.0/Conv`."""
    seen: Counter[str] = Counter()
    for node in graph.node:
        scopes = {entry.key: entry.value for entry in node.metadata_props}
        path = re.findall(r"'([^']*)'", scopes.get("pkg.torch.onnx.name_scopes", ""))
        # The last entry is the operator itself, the one before it its module.
        module = next((name for name in reversed(path[:-1]) if name), "network")
        name = f"{module}/{node.op_type}"
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}_{seen[name]}"


def _strip(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes down: stack traces with this machine's paths."""
    del model.metadata_props[:]
    model.doc_string = ""
    graph = model.graph
    for item in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        item.doc_string = ""
        del item.metadata_props[:]
    for tensor in graph.initializer:
        tensor.doc_string = ""
        del tensor.metadata_props[:]
    for function in model.functions:
        function.doc_string = ""
        del function.metadata_props[:]
    graph.name = "hipnet"
    model.producer_name, model.producer_version = "hipnet_edge export", ""


def largest_difference(
    network: nn.Module, model: onnx.ModelProto, spec: InputSpec, seeds: int = 3
) -> float:
    """The largest difference between PyTorch and ONNX Runtime over outputs and random inputs."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    largest = 0.0
    for seed in range(seeds):
        random = np.random.default_rng(seed)
        # Smooth and rough at once, like a radiograph: noise alone leaves deep features quiet.
        coarse = random.normal(size=(1, 2, spec.rows // 32, spec.columns // 32))
        studies = np.kron(coarse, np.ones((32, 32))) + 0.3 * random.normal(
            size=(1, 2, spec.rows, spec.columns)
        )
        studies = studies.astype(np.float32)
        with torch.no_grad():
            expected: NetworkOutputs = network(torch.from_numpy(studies))
        found = session.run(list(NetworkOutputs._fields), {"radiographs": studies})
        for wanted, given in zip(expected, found, strict=True):
            largest = max(largest, float(np.abs(wanted.numpy() - given).max()))
    return largest


def manifest_fields(
    network: Network, spec: InputSpec, name: str, version: str, training: dict[str, Any]
) -> dict[str, Any]:
    """What the manifest says of a network, but for its variants."""
    temperatures = network.fusion.temperatures.flatten().tolist()
    return {
        "name": name,
        "version": version,
        "created": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "input": spec.to_dict(),
        "map_stride": MAP_STRIDE,
        "backbones": [
            {
                "name": member,
                "family": FAMILIES[member],
                "parameters": parameter_count(deploy(module)),
                "temperature": round(temperature, 4),
            }
            for (member, module), temperature in zip(
                network.members.items(), temperatures, strict=True
            )
        ],
        "fusion": {
            "method": "mean of temperature-scaled softmax",
            "weights": network.fusion.weights.flatten().tolist(),
        },
        "training": training,
        "simulated": True,
    }


def export_bundle(
    network: Network,
    out: Path,
    metrics: dict[str, Any],
    *,
    name: str = "reference",
    version: str = "1",
    dynamic_batch: bool = False,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Export, check and write the bundle; gives a report.

    `notes` are sentences about the training that figures do not say; they go into the model card.

    Raises:
        ValueError: ONNX Runtime and PyTorch differ by more than `TOLERANCE`.
    """
    spec = InputSpec()
    deployed = deploy(network)
    model = export_network(deployed, spec, dynamic_batch)
    difference = largest_difference(deployed, model, spec)
    if not difference < TOLERANCE:
        raise ValueError(f"the ONNX file differs from PyTorch by {difference:.2g}")
    training = {
        "data": "simulated",
        "studies": metrics["train"]["n"],
        "notes": list(notes),
        "metrics": metrics,
    }
    fields = manifest_fields(network, spec, name, version, training)
    fields["variants"] = {"fp32": {"file": "fp32.onnx", "dynamic_batch": dynamic_batch}}
    content = model.SerializeToString()
    files = {"fp32.onnx": content, "MODEL_CARD.md": model_card(fields).encode()}
    bundle = write_bundle(out, files, fields)
    return {
        "bundle": bundle.digest,
        "opset": OPSET,
        "nodes": len(model.graph.node),
        "bytes": len(content),
        "parameters": parameter_count(deployed),
        "gmac_per_study": round(
            multiply_accumulates(deployed, torch.zeros(1, 2, spec.rows, spec.columns)) / 1e9, 2
        ),
        "largest_difference_to_pytorch": difference,
    }


@click.command(help=__doc__)
@click.option("--run", type=click.Path(path_type=Path), required=True, help="With network.pt.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The bundle.")
@click.option("--name", default="reference", show_default=True)
@click.option("--version", default="1", show_default=True)
@click.option("--dynamic-batch", is_flag=True, help="Any number of studies at once.")
@click.option("--note", "notes", multiple=True, help="A sentence for the model card; repeatable.")
def main(
    run: Path, out: Path, name: str, version: str, dynamic_batch: bool, notes: tuple[str, ...]
) -> None:
    """Export a run."""
    try:
        network = load_network(run)
        metrics = json.loads((run / METRICS_FILE).read_text())
        report = export_bundle(
            network,
            out,
            metrics,
            name=name,
            version=version,
            dynamic_batch=dynamic_batch,
            notes=notes,
        )
    except (FileNotFoundError, FileExistsError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
