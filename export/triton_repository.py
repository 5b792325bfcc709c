"""A model repository for Triton Inference Server, for hospitals that serve models centrally.

    python -m export.triton_repository --bundle engines/reference --out repository/

Triton gets the merged network of one variant as it is in the bundle, and its configuration; reading
and preprocessing of radiographs stay with the client (`preprocess_study`). The README in the
repository says how a client asks. No Triton server was run with it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import click
import numpy as np

from hipnet_edge import __version__
from hipnet_edge.backends.backend import Signature
from hipnet_edge.bundle import Bundle
from hipnet_edge.errors import HipNetError, UsageError
from hipnet_edge.vocabulary import CAUSES

MODEL_NAME = "hipnet_edge"
INPUT = "radiographs"
_VERSION = "1"
_WARM_UP = "radiographs.bin"
_LARGEST_BATCH = 8
_TYPES = {"float32": ("TYPE_FP32", "FP32"), "float16": ("TYPE_FP16", "FP16")}
"""The network's type as the configuration and as a request name it."""

_CONFIG = """# {name} {version}, variant {variant}, bundle {digest}. {intended_use}
name: "{model}"
backend: "onnxruntime"
platform: "onnxruntime_onnx"
max_batch_size: {largest_batch}
input [
  {{ name: "{input}" data_type: {type} dims: [ {dims} ] }}
]
output [
{outputs}
]
{batching}instance_group [
  {{ count: {instances} kind: {kind} }}
]
model_warmup [
  {{
    name: "test pattern"
    batch_size: 1
    count: 2
    inputs {{
      key: "{input}"
      value {{ data_type: {type} dims: [ {dims} ] input_data_file: "{warm_up}" }}
    }}
  }}
]
parameters [
  {{ key: "bundle_digest" value {{ string_value: "{digest}" }} }},
  {{ key: "variant" value {{ string_value: "{variant}" }} }}
]
"""

_README = """# {model}: a model repository for Triton Inference Server

`{model}/1/model.onnx` is the variant `{variant}` of the bundle {name} {version} as it is
(bundle digest `{digest}`, file sha256 `{sha256}`), made with hipnet_edge {package}.

**{intended_use}**

No Triton server was run with this repository: its configuration was made for the one documented by
NVIDIA. Start it with `tritonserver --model-repository=...` and look for `READY` before anything
relies on it.

## What a client sends and gets

Input `{input}`, {request_type} [{full_dims}]: what
`hipnet_edge.preprocessing.preprocess_study` gives as `radiographs`, AP first, with a batch axis
before it. Pixels of a DICOM file that were not preprocessed by it give answers without meaning.

Outputs, all FP32:

| Name | Shape | |
|---|---|---|
| `probabilities` | [B, 5] | of the causes in their order, given that the prosthesis has failed |
| `member_probabilities` | [B, 4, 5] | the same of each backbone |
| `maps` | [{map_shape}] | disease-probability maps by view and cause |
{novelty_row}
Causes: {causes}. The maps are in the network's own frame;
`prepared.views[view].geometry.map_to_image(map)` carries one to its radiograph. B is {batch_words}.

```python
import numpy as np
import tritonclient.http as triton  # pip install "tritonclient[http]"

from hipnet_edge import Bundle, Radiograph, Study
from hipnet_edge.preprocessing import preprocess_study

bundle = Bundle.load("{bundle}")  # the bundle that this repository was made from
study = Study(Radiograph.from_dicom("ap.dcm"), Radiograph.from_dicom("lateral.dcm"))
prepared = preprocess_study(study, bundle.manifest.input)

given = np.ascontiguousarray(prepared.radiographs[np.newaxis], np.{numpy_type})
asked = triton.InferInput("{input}", list(given.shape), "{request_type}")
asked.set_data_from_numpy(given)
with triton.InferenceServerClient("localhost:8000") as client:
    answer = client.infer("{model}", [asked])
probabilities = answer.as_numpy("probabilities")[0]
```

A refused study (`InputRefused`) must not be sent. Flags, plausible causes and the sign of failure
are worked out by `hipnet_edge` from these outputs and the bundle's manifest (`hipnet_edge.answer`);
Triton does not give them.
"""


def write_repository(
    bundle: Bundle, out: Path, variant: str, *, instances: int = 1, gpu: bool = False
) -> Path:
    """Write the repository.

    Args:
        bundle: whose network is served.
        out: the folder for the repository; must not exist yet.
        variant: which of its networks.
        instances: how many copies Triton keeps loaded, on each GPU if there are several.
        gpu: on GPUs instead of the CPU.

    Returns:
        the folder of the model.

    Raises:
        BundleUnusable: the bundle has no such variant.
        UsageError: the folder exists.
    """
    if out.exists():
        raise UsageError(f"{out} exists; name another folder.")
    network, signature = bundle.model(variant), bundle.signature(variant)
    part = out.with_name(out.name + ".part")
    if part.exists():
        shutil.rmtree(part)
    model = part / MODEL_NAME
    (model / _VERSION).mkdir(parents=True)
    (model / "warmup").mkdir()
    (model / _VERSION / "model.onnx").write_bytes(network)
    pattern = signature.test_pattern().astype(np.dtype(signature.input_type).newbyteorder("<"))
    (model / "warmup" / _WARM_UP).write_bytes(pattern.tobytes())
    (model / "config.pbtxt").write_text(
        configuration(bundle, variant, instances=instances, gpu=gpu), encoding="utf-8"
    )
    (part / "README.md").write_text(_readme(bundle, variant), encoding="utf-8")
    part.replace(out)
    return out / MODEL_NAME


def configuration(bundle: Bundle, variant: str, *, instances: int, gpu: bool) -> str:
    """`config.pbtxt`: Triton's ModelConfig as protobuf text.

    A network of a fixed batch has it in its dims, and Triton does not batch (max_batch_size 0); to
    one with a dynamic batch Triton adds the axis itself and gathers requests that wait.
    """
    manifest, signature = bundle.manifest, bundle.signature(variant)
    dynamic = signature.dynamic_batch
    return _CONFIG.format(
        name=_one_line(manifest.name),
        version=_one_line(manifest.version),
        variant=variant,
        digest=bundle.digest,
        intended_use=_one_line(manifest.intended_use),
        model=MODEL_NAME,
        largest_batch=_LARGEST_BATCH if dynamic else 0,
        input=INPUT,
        type=_TYPES[signature.input_type][0],
        dims=_dims(signature.input_shape(), dynamic),
        outputs=",\n".join(
            f'  {{ name: "{name}" data_type: TYPE_FP32 dims: [ {_dims(shape, dynamic)} ]'
            f"{_scalar(shape, dynamic)} }}"
            for name, shape in signature.output_shapes().items()
        ),
        batching="dynamic_batching { }\n" if dynamic else "",
        instances=instances,
        kind="KIND_GPU" if gpu else "KIND_CPU",
        warm_up=_WARM_UP,
    )


def _dims(shape: tuple[int, ...], dynamic: bool) -> str:
    """Sides as Triton takes them: without the batch's where it adds that itself."""
    return ", ".join(map(str, shape[1:] or (1,))) if dynamic else ", ".join(map(str, shape))


def _scalar(shape: tuple[int, ...], dynamic: bool) -> str:
    """For an output that is a number for each study: Triton wants a side, the network has none."""
    return " reshape { shape: [ ] }" if dynamic and len(shape) == 1 else ""


def _one_line(words: str) -> str:
    return " ".join(words.split())


def _readme(bundle: Bundle, variant: str) -> str:
    manifest, signature = bundle.manifest, bundle.signature(variant)
    return _README.format(
        model=MODEL_NAME,
        variant=variant,
        name=_one_line(manifest.name),
        version=_one_line(manifest.version),
        digest=bundle.digest,
        sha256=bundle.network(variant),
        package=__version__,
        intended_use=_one_line(manifest.intended_use),
        bundle=_one_line(manifest.name),
        input=INPUT,
        request_type=_TYPES[signature.input_type][1],
        numpy_type=signature.input_type,
        full_dims=_shape(signature, INPUT),
        map_shape=_shape(signature, "maps"),
        causes=", ".join(cause.value for cause in CAUSES),
        novelty_row="| `novelty` | [B] | how far the study is from those of the training |\n"
        if signature.novelty
        else "",
        batch_words=f"1 to {_LARGEST_BATCH}" if signature.dynamic_batch else "1",
    )


def _shape(signature: Signature, name: str) -> str:
    shapes = {INPUT: signature.input_shape(), **signature.output_shapes()}
    return ", ".join(("B", *map(str, shapes[name][1:])))


@click.command(help=__doc__)
@click.option("--bundle", type=click.Path(path_type=Path), required=True, help="The bundle.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to be made.")
@click.option("--variant", default="fp32", show_default=True, help="Which network of the bundle.")
@click.option("--instances", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--gpu", is_flag=True, help="Serve on GPUs instead of the CPU.")
def main(bundle: Path, out: Path, variant: str, instances: int, gpu: bool) -> None:
    """Write the repository."""
    try:
        model = write_repository(Bundle.load(bundle), out, variant, instances=instances, gpu=gpu)
    except HipNetError as error:
        raise click.ClickException(error.message) from error
    print(f"{model}: variant {variant}; no Triton server was run with it")


if __name__ == "__main__":
    main()
