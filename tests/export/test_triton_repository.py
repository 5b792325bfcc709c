"""The repository for Triton: the network as it is, a configuration that says its contract."""

from __future__ import annotations

import hashlib
import re

import numpy as np
import pytest
from click.testing import CliRunner
from small_bundle import declared, small_decision, small_manifest, small_model, write_bundle

from export.triton_repository import configuration, main, write_repository
from hipnet_edge import Bundle, Predictor
from hipnet_edge.errors import UsageError

SCHEMA = "tritonclient[grpc] is not installed: nothing here knows Triton's own schema"


def calibrated(folder, *, dynamic_batch):
    model = small_model(novelty=True, dynamic_batch=dynamic_batch)
    manifest = small_manifest(model) | {"decision": small_decision()}
    manifest["variants"]["fp32"]["dynamic_batch"] = dynamic_batch
    manifest["files"] = {"fp32.onnx": declared(model)}
    return Bundle.load(write_bundle(folder, model, manifest))


@pytest.fixture(params=[False, True], ids=["fixed batch", "dynamic batch"])
def bundle(request, tmp_path):
    return calibrated(tmp_path / "bundle", dynamic_batch=request.param)


def test_the_network_is_the_bundles_own_and_the_warm_up_its_test_pattern(tmp_path, bundle):
    model = write_repository(bundle, tmp_path / "repository", "fp32")
    network = (model / "1" / "model.onnx").read_bytes()
    assert hashlib.sha256(network).hexdigest() == bundle.network("fp32")
    signature = bundle.signature("fp32")
    warm_up = np.frombuffer((model / "warmup" / "radiographs.bin").read_bytes(), "<f4")
    assert np.array_equal(warm_up.reshape(signature.input_shape()), signature.test_pattern())
    assert bundle.digest in (model.parent / "README.md").read_text()


def test_the_network_that_is_served_gives_what_the_predictor_gives(tmp_path, bundle):
    """By ONNX Runtime, which is what Triton runs it with; no Triton is here."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    model = write_repository(bundle, tmp_path / "repository", "fp32")
    session = onnxruntime.InferenceSession(str(model / "1" / "model.onnx"))
    pattern = bundle.signature("fp32").test_pattern(3)
    names = [output.name for output in session.get_outputs()]
    served = dict(zip(names, session.run(names, {"radiographs": pattern}), strict=True))
    with Predictor(bundle, backend="onnxruntime", threads=1) as predictor:
        outputs = predictor.backend.infer(pattern)
    for name, value in served.items():
        assert np.allclose(value, getattr(outputs, name), atol=1e-6)
    config = (model / "config.pbtxt").read_text()
    assert re.findall(r'\{ name: "(\w+)"', config) == ["radiographs", *names]


def test_the_configuration_follows_tritons_schema(bundle):
    schema = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason=SCHEMA)
    text_format = pytest.importorskip("google.protobuf.text_format", reason=SCHEMA)
    text = configuration(bundle, "fp32", instances=3, gpu=True)
    config = text_format.Parse(text, schema.ModelConfig())
    signature = bundle.signature("fp32")
    dynamic, skipped = signature.dynamic_batch, int(signature.dynamic_batch)
    assert (config.max_batch_size > 0) is dynamic
    assert config.HasField("dynamic_batching") is dynamic
    (given,) = config.input
    assert tuple(given.dims) == signature.input_shape()[skipped:]
    shapes = signature.output_shapes()
    assert [output.name for output in config.output] == list(shapes)
    for output in config.output:
        assert output.data_type == schema.TYPE_FP32
        asked = output.reshape.shape if output.HasField("reshape") else output.dims
        assert tuple(asked) == shapes[output.name][skipped:]
    (group,) = config.instance_group
    assert (group.count, group.kind) == (3, schema.ModelInstanceGroup.KIND_GPU)
    (warm_up,) = config.model_warmup
    assert warm_up.batch_size == 1
    assert warm_up.inputs["radiographs"].input_data_file == "radiographs.bin"
    assert tuple(warm_up.inputs["radiographs"].dims) == tuple(given.dims)
    assert config.parameters["bundle_digest"].string_value == bundle.digest


def test_a_manifests_words_cannot_break_out_of_the_configuration(tmp_path):
    model = small_model()
    manifest = small_manifest(model) | {"intended_use": 'Tests.\nname: "other"'}
    text = configuration(
        Bundle.load(write_bundle(tmp_path / "bundle", model, manifest)),
        "fp32",
        instances=1,
        gpu=False,
    )
    assert re.findall(r'^name: "(.*)"', text, re.MULTILINE) == ["hipnet_edge"]


def test_the_command_refuses_a_folder_that_exists(tmp_path, bundle):
    out = tmp_path / "repository"
    arguments = ["--bundle", str(bundle.path), "--out", str(out)]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 1
    assert "exists" in again.output
    with pytest.raises(UsageError):
        write_repository(bundle, out, "fp32")
