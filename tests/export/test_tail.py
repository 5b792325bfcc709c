from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="torch (the export extra) is not installed")
pytest.importorskip("sklearn", reason="scikit-learn (the export extra) is not installed")
pytest.importorskip("onnx", reason="onnx (the export extra) is not installed")

import numpy as np
import torch
from made_networks import make_tail
from torch import nn

from export.network import deploy
from export.novelty import Distance, fit_novelty, novelty_if_unseen, pooled
from export.tail import Fusion, Tail

CHANNELS = (6, 8, 5, 7)


def answers(batch: int = 3) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    random = torch.Generator().manual_seed(0)
    logits = [torch.randn(batch, 5, generator=random) for _ in CHANNELS]
    return logits, [torch.randn(batch, 2, c, 8, 6, generator=random) for c in CHANNELS]


def test_the_tail_gives_probabilities_maps_and_a_score() -> None:
    with torch.no_grad():
        out = make_tail(CHANNELS)(*answers())
    assert out.probabilities.shape == (3, 5)
    assert out.maps.shape == (3, 2, 5, 16, 12)
    assert out.novelty.shape == (3,)
    torch.testing.assert_close(out.member_probabilities.sum(2), torch.ones(3, 4))
    torch.testing.assert_close(out.probabilities, out.member_probabilities.mean(1))
    assert out.maps.min() >= 0
    assert out.maps.max() <= 1


def test_temperatures_divide_each_backbones_own_logits() -> None:
    logits = [torch.tensor([[2.0, 0.0, 0.0, 0.0, 0.0]])] * 2
    _, members = Fusion([1.0, 4.0], [0.5, 0.5])(logits)
    torch.testing.assert_close(members[0, 0], torch.softmax(logits[0][0], 0))
    torch.testing.assert_close(members[0, 1], torch.softmax(logits[0][0] / 4, 0))


def test_deploying_and_storing_change_nothing() -> None:
    tail = make_tail(CHANNELS)
    deployed, restored = deploy(tail), Tail.like(tail.state_dict())
    assert not [m for m in deployed.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        expected = tail(*answers())
        for other in (deployed, restored):
            for wanted, given in zip(expected, other(*answers()), strict=True):
                torch.testing.assert_close(given, wanted, atol=1e-5, rtol=1e-4)


def test_distance_is_that_of_mahalanobis_in_units_of_the_median() -> None:
    random = np.random.default_rng(0)
    # Two axes vary on their own, all others alike: what the shape of the Gaussian assumes.
    widths = np.array([5.0, 3.0, *[1.0] * 6])
    vectors = random.normal(size=(20_000, 8)) * widths + 2.0
    distance = Distance.fit(vectors)
    asked = random.normal(size=(50, 8)) * 2 * widths + 2.0
    exact = np.square((asked - 2.0) / widths).sum(axis=1)
    found = distance(torch.from_numpy(asked).float()).numpy()
    median = np.median(np.square((vectors - 2.0) / widths).sum(axis=1))
    np.testing.assert_allclose(found, exact / median, rtol=0.05)
    assert float(distance(torch.from_numpy(vectors).float()).median()) == pytest.approx(1, rel=1e-3)


def test_more_channels_than_studies_still_tell_strangers() -> None:
    random = np.random.default_rng(1)
    mix = random.normal(size=(10, 200))
    vectors = random.normal(size=(120, 10)) @ mix + 0.1 * random.normal(size=(120, 200))
    distance = Distance.fit(vectors[:80])
    usual = distance(torch.from_numpy(vectors[80:]).float())
    strange = distance(torch.from_numpy(random.normal(size=(40, 200))).float())
    assert strange.min() > usual.max()


def test_views_are_told_apart() -> None:
    features = answers()[1][0]
    vector = pooled(features)
    assert vector.shape == (3, 4 * CHANNELS[0])
    assert not torch.allclose(pooled(features.flip(1)), vector)
    mean, spread = vector.chunk(2, dim=1)
    torch.testing.assert_close(mean, features.mean((3, 4)).flatten(1))
    torch.testing.assert_close(
        spread, features.std((3, 4), correction=0).flatten(1), atol=1e-4, rtol=1e-3
    )


def test_an_implant_that_was_left_out_of_the_statistics_lies_further_away():
    random = np.random.default_rng(5)
    families = np.repeat(["a", "b", "c"], 60)
    apart = {"a": 0.0, "b": 0.0, "c": 6.0}
    vectors = random.normal(size=(180, 12)).astype(np.float32)
    vectors[:, 3] += [apart[family] for family in families]
    with torch.no_grad():
        met = fit_novelty([vectors]).distances[0](torch.from_numpy(vectors)).numpy()
    unseen = novelty_if_unseen([vectors], families, [vectors], families)
    assert np.median(unseen[families == "c"]) > 2 * np.median(met[families == "c"])
    # Those that differ from the rest in nothing stay where they were.
    assert np.median(unseen[families == "a"]) < 1.5 * np.median(met[families == "a"])


def test_without_another_family_all_studies_are_what_there_is_to_measure_by():
    vectors = np.random.default_rng(6).normal(size=(50, 8)).astype(np.float32)
    one = np.full(50, "")
    with torch.no_grad():
        met = fit_novelty([vectors]).distances[0](torch.from_numpy(vectors)).numpy()
    assert novelty_if_unseen([vectors], one, [vectors], one) == pytest.approx(met)
