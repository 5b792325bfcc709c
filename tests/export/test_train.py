from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch (the export extra) is not installed")
pytest.importorskip("sklearn", reason="scikit-learn (the export extra) is not installed")

import torch
from toy import MEAN, STD, toy_cohort

from export.augmentation import augment, cut_windows
from export.calibration import fit_temperatures
from export.network import MAP_STRIDE, Member
from export.train import (
    Settings,
    cause_loss,
    cell_cause_loss,
    load_member,
    map_loss,
    map_target,
    train_member,
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_a_member_learns_a_small_sign_and_its_place(tmp_path: Path) -> None:
    train = toy_cohort(120, seed=1, rows=64, columns=64, size=16, contrast=0.5)
    held_out = toy_cohort(60, seed=2, rows=64, columns=64, size=16, contrast=0.5)
    settings = Settings(member="resnet", epochs_windows=0, epochs_full=8, batch=12)
    figures = train_member(train, held_out, tmp_path, settings)
    assert figures["macro_auc"] > 0.9
    assert figures["pointing"] > 0.8
    lines = (tmp_path / "resnet" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(1, 9))


class _Interrupted(np.ndarray):
    """Radiographs whose reading breaks off after a number of batches."""

    left = 0

    def __getitem__(self, key: object) -> np.ndarray:
        _Interrupted.left -= 1
        if _Interrupted.left < 0:
            raise KeyboardInterrupt
        return np.asarray(super().__getitem__(key))


def test_a_stopped_training_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    train, held_out = toy_cohort(12, 1, 64, 64, 12), toy_cohort(10, 2, 64, 64, 12)
    settings = Settings(member="repvgg", epochs_half=1, epochs_windows=1, epochs_full=1, batch=4)
    train_member(train, held_out, tmp_path / "whole", settings)
    broken = replace(train, radiographs=train.radiographs.view(_Interrupted))
    _Interrupted.left = 4  # the first epoch has three batches
    with pytest.raises(KeyboardInterrupt):
        train_member(broken, held_out, tmp_path / "broken", settings)
    train_member(train, held_out, tmp_path / "broken", settings)
    whole = load_member(tmp_path / "whole", "repvgg").state_dict()
    again = load_member(tmp_path / "broken", "repvgg").state_dict()
    for key, value in whole.items():
        torch.testing.assert_close(again[key], value, msg=key)
    with pytest.raises(ValueError, match="other settings"):
        train_member(train, held_out, tmp_path / "whole", Settings(member="repvgg", seed=1))


def test_augmentation_moves_truth_with_the_picture() -> None:
    grey = torch.full((16, 2, 128, 96), 0.2)
    grey[:, :, 40:56, 24:48] = 0.9
    occupancy = torch.zeros(16, 2, 16, 12)
    occupancy[:, :, 5:7, 3:6] = 1.0
    generator = torch.Generator().manual_seed(3)
    pictures, truth = augment((grey - MEAN) / STD, occupancy, MEAN, STD, generator)
    assert pictures.shape == grey.shape
    moved = 0
    for picture, cells in zip(pictures.flatten(0, 1), truth.flatten(0, 1), strict=True):
        middle = picture[8:-8, 8:-8].median()
        bright = torch.nn.functional.avg_pool2d((picture > middle + 1.0).float()[None], 8)[0]
        bright[:4], bright[-6:], bright[:, -4:] = 0, 0, 0  # corners may be covered
        centre = [torch.nonzero(m > 0.5).float().mean(0) for m in (bright, cells)]
        assert (centre[0] - centre[1]).abs().max() < 0.8
        moved += not torch.equal(cells, occupancy[0, 0])
    assert 4 < moved < 28
    again = augment((grey - MEAN) / STD, occupancy, MEAN, STD, generator.manual_seed(3))
    assert torch.equal(again[0], pictures)


def test_map_loss_prefers_the_truth() -> None:
    occupancy = torch.zeros(2, 2, 16, 12)
    occupancy[:, :, 4:6, 3:9] = 0.3
    target = map_target(occupancy, torch.tensor([1, 4]), MAP_STRIDE)
    assert target.shape == (2, 2, 5, 16, 12)
    assert target[0, :, 1].amax() == 1.0
    assert target.sum((1, 3, 4)).count_nonzero() == 2  # each study in its own cause alone
    right, wrong = (target * 2 - 1) * 6, (target.roll(1, 2) * 2 - 1) * 6
    nothing = torch.full_like(target, -6.0)
    assert map_loss(right, target) < 0.2 * map_loss(nothing, target)
    assert map_loss(nothing, target) < map_loss(wrong, target)


def test_a_window_keeps_its_truth() -> None:
    occupancy = torch.rand(5, 2, 16, 12)
    films = torch.nn.functional.interpolate(occupancy, scale_factor=8.0)  # each cell as it says
    generator = torch.Generator().manual_seed(2)
    pixels, cells = cut_windows(films, occupancy, 16, generator)
    assert pixels.shape == (5, 2, 64, 48)
    torch.testing.assert_close(torch.nn.functional.avg_pool2d(pixels, 8), cells)
    places = {
        int(torch.argwhere((whole == part[0, 0]).any(1))[0])
        for whole, part in zip(occupancy.flatten(0, 1), cells.flatten(0, 1), strict=True)
    }
    assert len(places) > 1


def test_diseased_cells_say_which_disease() -> None:
    occupancy = torch.zeros(2, 2, 8, 8)
    occupancy[0, :, 2:4, 2:4] = 1.0
    occupancy[1, 0, 0, 0] = 1.0  # one cell of one view weighs as much as many
    target = map_target(occupancy, torch.tensor([0, 3]), MAP_STRIDE)
    right, shy = target * 9.0, target * 9.0
    shy[1] = 0.0
    assert cell_cause_loss(right, target) < 0.01
    assert cell_cause_loss(shy, target) == pytest.approx(np.log(5) / 3, abs=0.01)
    # What lies outside the disease is the map loss's affair.
    noise = torch.where(target.sum(2, keepdim=True) > 0, right, torch.randn_like(right))
    assert cell_cause_loss(noise, target) == cell_cause_loss(right, target)
    assert cell_cause_loss(noise, target * torch.nan) == 0.0


def test_windows_teach_the_maps_and_not_the_decision(tmp_path: Path) -> None:
    train, held_out = toy_cohort(8, 1, 64, 64, 12), toy_cohort(10, 2, 64, 64, 12)
    settings = Settings(member="resnet", epochs_windows=1, epochs_full=0, batch=4)
    train_member(train, held_out, tmp_path, settings)
    learned = load_member(tmp_path, "resnet")
    torch.manual_seed(settings.seed)
    fresh = Member("resnet")
    assert torch.equal(learned.direct.weight, fresh.direct.weight)
    assert not torch.equal(learned.evidence.weight, fresh.evidence.weight)


def test_sound_studies_teach_the_maps_and_not_the_cause() -> None:
    logits = torch.tensor([[4.0, 0, 0, 0, 0], [0, 0, 9.0, 0, 0]])
    with_sound = cause_loss(logits, torch.tensor([0, -1]))
    assert with_sound == pytest.approx(float(cause_loss(logits[:1], torch.tensor([0]))))
    occupancy = torch.full((1, 2, 8, 8), 0.5)  # whatever it says, a sound one has no disease
    target = map_target(occupancy, torch.tensor([-1]), MAP_STRIDE)
    assert not target.any()
    assert map_loss(target + 3.0, target) > map_loss(target - 3.0, target)


def test_a_film_without_a_mask_teaches_what_it_is_not() -> None:
    unknown = torch.full((1, 2, 8, 8), float("nan"))
    target = map_target(unknown, torch.tensor([1]), MAP_STRIDE)
    quiet = torch.full_like(target, -4.0).requires_grad_()
    loss = map_loss(quiet, target)
    loss.backward()
    assert torch.isfinite(loss)
    assert quiet.grad is not None
    assert not quiet.grad[:, :, 1].any()
    assert (quiet.grad[:, :, [0, 2, 3, 4]] > 0).all()


def test_temperatures_undo_overconfidence() -> None:
    random = torch.Generator().manual_seed(0)
    true = torch.randn(4000, 5, generator=random) * 1.5
    causes = torch.multinomial(true.softmax(1), 1, generator=random).flatten()
    found = fit_temperatures(torch.stack([true * 3.0] * 4).numpy(), causes.numpy())
    assert found.tolist() == pytest.approx([3.0] * 4, rel=0.1)
