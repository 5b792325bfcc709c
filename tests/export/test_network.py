from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="torch (the export extra) is not installed")
pytest.importorskip("onnx", reason="onnx (the export extra) is not installed")
pytest.importorskip("sklearn", reason="scikit-learn (the export extra) is not installed")
pytest.importorskip("onnxscript", reason="onnxscript (the export extra) is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

import torch
from made_networks import lived_in
from torch import nn

from export.backbones import export_member
from export.network import MEMBERS, Member, deploy
from export.onnx_graph import multiply_accumulates, parameter_count
from hipnet_edge.preprocessing import InputSpec

ROWS, COLUMNS = 128, 96


@pytest.fixture(scope="module")
def studies() -> torch.Tensor:
    return torch.randn(3, 2, ROWS, COLUMNS, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", MEMBERS)
def test_a_member_keeps_the_contract(name: str, studies: torch.Tensor) -> None:
    member = Member(name).eval()
    with torch.no_grad():
        out = member(studies)
    assert out.logits.shape == (3, 5)
    assert out.features.shape == (3, 2, member.channels, ROWS // 16, COLUMNS // 16)
    assert out.evidence.shape == (3, 2, 5, ROWS // 16, COLUMNS // 16)


@pytest.mark.parametrize("name", MEMBERS)
def test_views_share_the_trunk_and_meet_only_in_the_decision(
    name: str, studies: torch.Tensor
) -> None:
    member = lived_in(Member(name))
    with torch.no_grad():
        out, swapped = member(studies), member(studies.flip(1))
    torch.testing.assert_close(out.features, swapped.features.flip(1))
    assert (out.logits - swapped.logits).abs().max() > 1e-4  # the decision knows which is which


@pytest.mark.parametrize("name", MEMBERS)
def test_deploy_folds_everything_and_changes_nothing(name: str, studies: torch.Tensor) -> None:
    member = lived_in(Member(name))
    before = {key: value.clone() for key, value in member.state_dict().items()}
    deployed = deploy(member)
    assert not [m for m in deployed.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [m for m in member.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        for wanted, given in zip(member(studies), deployed(studies), strict=True):
            torch.testing.assert_close(given, wanted, atol=1e-4, rtol=1e-3)
    for key, value in member.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_repvgg_deploys_as_one_plain_stack() -> None:
    trunk = deploy(Member("repvgg")).trunk
    convolutions = [m for m in trunk.modules() if isinstance(m, nn.Conv2d)]
    assert {conv.kernel_size for conv in convolutions} == {(3, 3)}


def test_the_members_stay_small_and_quick() -> None:
    members = [export_member(Member(name), InputSpec())[0] for name in MEMBERS]
    costs = [multiply_accumulates(member) for member in members]
    assert sum(parameter_count(member) for member in members) < 10.5e6
    assert 8e9 < sum(costs) < 12.5e9
    assert all(2e9 < cost < 3.8e9 for cost in costs)
