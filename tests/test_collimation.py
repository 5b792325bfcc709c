"""Collimated borders: found on every side, white or black, and nothing else taken for one."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
from phantoms import hip_phantom

from hipnet_edge.collimation import Box, find_collimation
from hipnet_edge.radiograph import Radiograph

THUMBNAIL = 320


def thumbnail(grey):
    scale = THUMBNAIL / max(grey.shape)
    size = (round(grey.shape[1] * scale), round(grey.shape[0] * scale))
    return cv2.resize(grey, size, interpolation=cv2.INTER_AREA), scale


def assert_found(phantom, *, lines=2.5):
    """The field found lies inside the true one and misses at most some thumbnail lines of it."""
    small, scale = thumbnail(phantom.grey)
    found = find_collimation(small)
    top, left, bottom, right = (edge * scale for edge in phantom.field)
    assert -1e-6 <= found.top - top + 0.6 <= lines + 0.6
    assert -1e-6 <= found.left - left + 0.6 <= lines + 0.6
    assert -1e-6 <= bottom - found.bottom + 0.6 <= lines + 0.6
    assert -1e-6 <= right - found.right + 0.6 <= lines + 0.6


SIDES = [sides for sides in itertools.product((0, 1), repeat=4) if any(sides)]


@pytest.mark.parametrize("border", [0.0, 1.0])
@pytest.mark.parametrize("sides", SIDES, ids=lambda sides: "".join("tlbr"[i] * s for i, s in enumerate(sides)))  # fmt: skip  # noqa: E501
def test_borders_on_any_sides(sides, border):
    closed = tuple(side * width for side, width in zip(sides, (0.08, 0.15, 0.12, 0.2), strict=True))
    assert_found(hip_phantom(3, collimation=closed, border=border))


@pytest.mark.parametrize("border", [0.0, 1.0])
def test_borders_of_a_third_of_the_frame(border):
    assert_found(hip_phantom(4, collimation=(0.0, 0.33, 0.33, 0.0), border=border))
    assert_found(hip_phantom(4, collimation=(0.0, 0.25, 0.0, 0.3), border=border))


@pytest.mark.parametrize(("border", "noise"), [(0.03, 0.03), (0.95, 0.06)])
def test_noisy_borders_lit_by_scatter(border, noise):
    phantom = hip_phantom(5, collimation=(0.1, 0.1, 0.0, 0.12), border=border, border_noise=noise)
    assert_found(phantom)


def test_a_border_set_askew_leaves_at_most_half_its_wedge():
    grey = hip_phantom(6, marker=None).grey.copy()
    rows, columns = grey.shape
    edge = np.linspace(0.10, 0.13, rows) * columns
    grey[np.arange(columns)[None, :] < edge[:, None]] = 1.0
    small, scale = thumbnail(grey)
    found = find_collimation(small)
    assert 0.112 * columns * scale <= found.left <= 0.14 * columns * scale


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("implants", [(True,), (False,), (True, True)])
def test_an_open_frame_is_left_alone(seed, implants):
    small, _ = thumbnail(hip_phantom(seed, implants=implants).grey)
    assert find_collimation(small) == Box(0, 0, *small.shape)


def test_noise_and_flat_frames_have_no_border():
    rng = np.random.default_rng(0)
    noise = rng.uniform(0, 1, (200, 160)).astype(np.float32)
    assert find_collimation(noise) == Box(0, 0, 200, 160)
    flat = np.full((200, 160), 0.5, np.float32)
    assert find_collimation(flat) == Box(0, 0, 200, 160)


def test_invalid_edges_are_left_out_and_do_not_hide_the_border():
    phantom = hip_phantom(7, collimation=(0.0, 0.2, 0.0, 0.0), border=1.0)
    small, scale = thumbnail(phantom.grey)
    valid = np.ones(small.shape, bool)
    valid[:20], valid[:, -12:] = False, False
    small = np.where(valid, small, np.float32(0.0))
    found = find_collimation(small, valid)
    assert (found.top, found.right) == (20, small.shape[1] - 12)
    assert found.left == pytest.approx(phantom.field[1] * scale, abs=2.5)


def test_the_real_tibias_two_white_borders_fade_over_a_penumbra(real_radiograph):
    grey = Radiograph.from_dicom(real_radiograph("RG3_UNCR.dcm")).grey_levels()
    small, scale = thumbnail(grey)
    found = find_collimation(small)
    assert (found.top, found.bottom) == (0, small.shape[0])
    # read off the film: black begins at column 470 and ends at column 1250 of 1760
    assert found.left == pytest.approx(470 * scale, abs=8)
    assert found.right == pytest.approx(1250 * scale, abs=8)


def test_the_real_chest_is_not_collimated(real_radiograph):
    small, _ = thumbnail(Radiograph.from_dicom(real_radiograph("RG1_UNCR.dcm")).grey_levels())
    assert find_collimation(small) == Box(0, 0, *small.shape)


def test_boxes_clip_and_shift():
    box = Box(2, 3, 10, 9)
    assert (box.height, box.width) == (8, 6)
    assert box.clip(Box(0, 0, 5, 5)) == Box(2, 3, 5, 5)
    assert box.shifted(-2, 1) == Box(0, 4, 8, 10)
    empty = box.clip(Box(20, 20, 30, 30))
    assert (empty.height, empty.width) == (0, 0)
