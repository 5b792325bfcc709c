"""The networks that published peers use, from timm to one merged network that runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch (the export extra) is not installed")
pytest.importorskip("onnx", reason="onnx (the export extra) is not installed")
pytest.importorskip("onnxscript", reason="onnxscript (the export extra) is not installed")
pytest.importorskip("sklearn", reason="scikit-learn (the export extra) is not installed")

import torchvision_stub  # noqa: F401  # before timm

pytest.importorskip("timm", reason="timm (the export extra) is not installed")

import onnx
import torch
from click.testing import CliRunner
from made_networks import lived_in, make_tail

from export import timm_backbone, to_onnx
from export.backbones import like_a_radiograph, open_backbones, open_session
from export.parts import cut
from export.timm_backbone import TimmBackbone, export_timm
from hipnet_edge.preprocessing import InputSpec

NAMES = ("resnet50", "densenet121", "efficientnet_b0", "convnext_atto")
SPEC = InputSpec(rows=64, columns=64)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], dict[str, float]]:
    """Four ONNX files, and how far each is from PyTorch."""
    torch.set_num_threads(1)
    folder, differences = tmp_path_factory.mktemp("timm"), {}
    for name in NAMES:
        torch.manual_seed(0)
        model, differences[name] = export_timm(lived_in(TimmBackbone(name)), name, SPEC)
        onnx.save(model, folder / f"{name}.onnx")
    return [folder / f"{name}.onnx" for name in NAMES], differences


@pytest.mark.slow
def test_the_four_that_peers_use_run_as_one_network(
    exported: tuple[list[Path], dict[str, float]], tmp_path: Path
) -> None:
    files, differences = exported
    assert max(differences.values()) < timm_backbone.TOLERANCE
    backbones = open_backbones(files, SPEC)
    assert [backbone.family for backbone in backbones] == [f"timm {name}" for name in NAMES]
    tail = make_tail([backbone.channels for backbone in backbones])
    merged = to_onnx.merge(backbones, tail, SPEC)
    assert to_onnx.largest_difference(merged, backbones, tail, SPEC, seeds=1) < 1e-3
    study = like_a_radiograph(SPEC, 1)
    probabilities, members, maps, _ = open_session(merged).run(None, {"radiographs": study})
    assert maps.shape == (1, 2, 5, 8, 8)
    np.testing.assert_allclose(members.sum(axis=2), 1.0, atol=1e-5)
    assert members.std(axis=1).max() > 1e-4  # four networks, four opinions
    np.testing.assert_allclose(probabilities, members.mean(axis=1), atol=1e-5)
    assert set(cut(merged, NAMES)) == {*NAMES, "tail"}


def test_a_network_without_such_features_is_refused() -> None:
    with pytest.raises(ValueError, match="no feature maps of 'no_such_network'"):
        TimmBackbone("no_such_network")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(TimmBackbone("resnet18").state_dict(), tmp_path / "weights.pt")
    out = tmp_path / "out.onnx"
    arguments = ["--name", "resnet34", "--weights", str(tmp_path / "weights.pt"), "--out", str(out)]
    result = CliRunner().invoke(timm_backbone.main, arguments)
    assert result.exit_code == 1
    assert "state_dict" in result.output
    assert not out.exists()
