from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="torch (the export extra) is not installed")

import torch
from made_networks import lived_in, make_network
from torch import nn

from export.cost import multiply_accumulates, parameter_count
from export.network import (
    MEMBERS,
    Fusion,
    Member,
    Network,
    deploy,
)
from hipnet_edge.preprocessing import InputSpec

ROWS, COLUMNS = 128, 96


@pytest.fixture(scope="module")
def network() -> Network:
    return make_network()


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


def test_the_whole_network_gives_probabilities_and_maps(
    network: Network, studies: torch.Tensor
) -> None:
    with torch.no_grad():
        out = network(studies)
    assert out.probabilities.shape == (3, 5)
    assert out.member_probabilities.shape == (3, 4, 5)
    assert out.maps.shape == (3, 2, 5, ROWS // 8, COLUMNS // 8)
    torch.testing.assert_close(out.member_probabilities.sum(2), torch.ones(3, 4))
    torch.testing.assert_close(out.probabilities, out.member_probabilities.mean(1))
    assert out.maps.min() >= 0
    assert out.maps.max() <= 1


def test_temperatures_divide_each_members_own_logits() -> None:
    logits = [torch.tensor([[2.0, 0.0, 0.0, 0.0, 0.0]])] * 2
    _, members = Fusion([1.0, 4.0], [0.5, 0.5])(logits)
    torch.testing.assert_close(members[0, 0], torch.softmax(logits[0][0], 0))
    torch.testing.assert_close(members[0, 1], torch.softmax(logits[0][0] / 4, 0))


def test_deploy_folds_everything_and_changes_nothing(
    network: Network, studies: torch.Tensor
) -> None:
    before = {key: value.clone() for key, value in network.state_dict().items()}
    deployed = deploy(network)
    assert not [m for m in deployed.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        for wanted, given in zip(network(studies), deployed(studies), strict=True):
            torch.testing.assert_close(given, wanted, atol=1e-5, rtol=1e-4)
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_repvgg_deploys_as_one_plain_stack() -> None:
    trunk = deploy(Member("repvgg")).trunk
    convolutions = [m for m in trunk.modules() if isinstance(m, nn.Conv2d)]
    assert {conv.kernel_size for conv in convolutions} == {(3, 3)}
    assert len(convolutions) == 11


def test_the_network_stays_small_and_quick(network: Network) -> None:
    spec = InputSpec()
    deployed = deploy(network)
    study = torch.zeros(1, 2, spec.rows, spec.columns)
    assert parameter_count(deployed) < 6e6  # FP32 below 24 MB
    assert 8e9 < multiply_accumulates(deployed, study) < 12e9
    for member in deployed.members.values():
        assert 2e9 < multiply_accumulates(member, study) < 3.5e9
