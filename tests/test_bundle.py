"""A bundle is used only if every file is the one its manifest lists."""

from __future__ import annotations

import json
import os
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper
from small_bundle import declared, small_manifest, small_model, write_bundle

from hipnet_edge import Bundle, BundleUnusable, Reason


@pytest.fixture(scope="module")
def model() -> bytes:
    return small_model()


@pytest.fixture
def folder(tmp_path: Path, model: bytes) -> Path:
    return write_bundle(tmp_path / "bundle", model)


def refusal(folder: Path) -> BundleUnusable:
    with pytest.raises(BundleUnusable) as caught:
        Bundle.load(folder)
    return caught.value


def test_a_bundle_says_what_it_is(folder, model):
    bundle = Bundle.load(folder)
    assert bundle.manifest.name == "small"
    assert bundle.manifest.backbones[2].name == "third"
    assert bundle.manifest.input.rows == 512
    assert bundle.manifest.simulated
    assert bundle.model("fp32") == model
    assert bundle.signature("fp32").output_shapes()["maps"] == (1, 2, 5, 64, 40)


def test_the_digest_names_content_not_layout(folder, model):
    digest = Bundle.load(folder).digest
    manifest = small_manifest(model)
    shuffled = dict(reversed(manifest.items()))
    (folder / "manifest.json").write_text(json.dumps(shuffled, indent=3))
    assert Bundle.load(folder).digest == digest
    manifest["version"] = "1.1"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert Bundle.load(folder).digest != digest


def test_a_missing_bundle(tmp_path):
    assert refusal(tmp_path / "nowhere").code is Reason.BUNDLE_NOT_FOUND
    assert refusal(tmp_path).code is Reason.BUNDLE_NOT_FOUND
    (tmp_path / "file").write_text("")
    assert refusal(tmp_path / "file").code is Reason.BUNDLE_INVALID


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: b"",
    ],
    ids=["one bit", "cut", "grown", "empty"],
)
def test_a_changed_file_is_refused(folder, model, spoil):
    (folder / "fp32.onnx").write_bytes(spoil(model))
    error = refusal(folder)
    assert error.code is Reason.BUNDLE_DIGEST_MISMATCH
    assert "fp32.onnx" in error.message


def test_what_is_handed_out_is_what_was_verified(folder, model):
    bundle = Bundle.load(folder)
    (folder / "fp32.onnx").write_bytes(small_model(scale=2.0))
    with pytest.raises(BundleUnusable) as caught:
        bundle.model("fp32")
    assert caught.value.code is Reason.BUNDLE_DIGEST_MISMATCH


def test_a_missing_file_is_refused(folder):
    (folder / "fp32.onnx").unlink()
    assert "lacks fp32.onnx" in refusal(folder).message


@pytest.mark.parametrize("name", ["other.onnx", "weights.bin", "folder"])
def test_an_undeclared_entry_is_refused(folder, name):
    if name == "folder":
        (folder / name).mkdir()
    else:
        (folder / name).write_bytes(b"1")
    assert name in refusal(folder).message


def test_what_desktops_leave_behind_is_ignored(folder):
    (folder / ".DS_Store").write_bytes(b"1")
    assert Bundle.load(folder).manifest.name == "small"


def test_a_link_out_of_the_bundle_is_refused(folder, tmp_path, model):
    outside = tmp_path / "outside.onnx"
    outside.write_bytes(model)
    (folder / "fp32.onnx").unlink()
    (folder / "fp32.onnx").symlink_to(outside)
    assert "link" in refusal(folder).message
    (folder / "fp32.onnx").unlink()
    (folder / "fp32.onnx").symlink_to(folder / "fp32.onnx")
    assert refusal(folder).code is Reason.BUNDLE_INVALID


def test_a_pipe_in_place_of_a_file_is_refused(folder):
    (folder / "fp32.onnx").unlink()
    os.mkfifo(folder / "fp32.onnx")
    assert "regular file" in refusal(folder).message


@pytest.mark.parametrize(
    "name", ["../fp32.onnx", "a/b.onnx", "a\\b.onnx", "", ".hidden", "manifest.json", "fp32.onnx\n"]
)
def test_a_file_name_that_leads_elsewhere_is_refused(folder, model, name):
    manifest = small_manifest(model)
    manifest["files"][name] = declared(b"")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert "file name" in refusal(folder).message


def external_data(graph_of_tensor):
    def change(model: onnx.ModelProto) -> None:
        tensor = TensorProto(name="far", data_type=TensorProto.FLOAT, dims=[1])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="/etc/passwd")
        graph_of_tensor(model, tensor)

    return change


def in_initializer(model, tensor):
    model.graph.initializer.append(tensor)


def in_constant(model, tensor):
    model.graph.node.append(helper.make_node("Constant", [], ["far"], value=tensor))


def in_branch(model, tensor):
    branch = helper.make_graph([], "branch", [], [], [tensor])
    model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=branch))


@pytest.mark.parametrize("place", [in_initializer, in_constant, in_branch])
def test_weights_in_other_files_are_refused(tmp_path, place):
    model = small_model(change=external_data(place))
    assert "external data" in refusal(write_bundle(tmp_path / "bundle", model)).message


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x09", bytes(range(256))])
def test_a_file_that_is_no_network_is_refused(tmp_path, content):
    assert "not an ONNX file" in refusal(write_bundle(tmp_path / "bundle", content)).message


def without(*path):
    def change(manifest):
        for key in path[:-1]:
            manifest = manifest[key]
        del manifest[path[-1]]

    return change


def with_(value, *path):
    def change(manifest):
        for key in path[:-1]:
            manifest = manifest[key]
        manifest[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (with_(2, "schema"), "schema 2"),
        (with_(True, "schema"), "schema True"),
        (without("schema"), "schema"),
        (without("name"), "name"),
        (with_("", "version"), "version"),
        (with_(["pji"], "causes"), "causes"),
        (with_(["lateral", "ap"], "views"), "views"),
        (with_(0, "map_stride"), "map_stride"),
        (with_(7, "map_stride"), "map_stride"),
        (with_({"rows": 512}, "input"), "input"),
        (with_([], "backbones"), "backbones"),
        (with_("second", "backbones", 0, "name"), "backbones"),
        (with_(0, "backbones", 3, "temperature"), "backbones[3].temperature"),
        (with_([0.5, 0.5], "fusion", "weights"), "fusion.weights"),
        (with_([1, 1, 1, "x"], "fusion", "weights"), "fusion.weights.3"),
        (with_("int8.onnx", "variants", "fp32", "file"), "variants.fp32.file"),
        (with_(1, "variants", "fp32", "dynamic_batch"), "variants.fp32.dynamic_batch"),
        (with_("A" * 64, "files", "fp32.onnx", "sha256"), "files.fp32.onnx.sha256"),
        (with_(-1, "files", "fp32.onnx", "bytes"), "files.fp32.onnx.bytes"),
        (with_(2**40, "files", "fp32.onnx", "bytes"), "files.fp32.onnx.bytes"),
        (with_("yes", "simulated"), "simulated"),
    ],
)
def test_a_wrong_manifest_is_refused_by_the_name_of_the_field(folder, model, change, named):
    manifest = small_manifest(model)
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    error = refusal(folder)
    assert error.code is Reason.BUNDLE_INVALID
    assert named in error.message


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"schema": NaN}', "[" * 100_000, "\xff", '{"schema": 1}']
)
def test_a_manifest_that_is_no_manifest_is_refused(folder, text):
    (folder / "manifest.json").write_bytes(text.encode("latin-1"))
    assert refusal(folder).code is Reason.BUNDLE_INVALID


def test_a_huge_manifest_is_refused_unread(folder):
    with (folder / "manifest.json").open("wb") as file:
        file.truncate(1 << 40)
    assert "too large" in refusal(folder).message
