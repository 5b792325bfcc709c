"""The prosthesis: found wherever it is, and neither bone nor other metal taken for it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from phantoms import hip_phantom

from hipnet_edge.collimation import Box, find_collimation
from hipnet_edge.implant import find_implants
from hipnet_edge.radiograph import Radiograph

THUMBNAIL = 320


def search(grey):
    """The prostheses found, as boxes in pixels of `grey`."""
    scale = THUMBNAIL / max(grey.shape)
    size = (round(grey.shape[1] * scale), round(grey.shape[0] * scale))
    small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    found = find_implants(small, find_collimation(small))
    return [np.array(implant.box) / scale for implant in found]


def assert_found(phantom, *, tolerance=0.03):
    """Each prosthesis is found, its box right to a part of its height."""
    found = search(phantom.grey)
    assert len(found) == len(phantom.implants)
    for box, truth in zip(found, phantom.implants, strict=True):
        height = truth[2] - truth[0]
        np.testing.assert_allclose(box, truth, atol=tolerance * height)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("laterality", ["left", "right"])
def test_a_hip_prosthesis_is_found_to_three_percent(seed, laterality):
    assert_found(hip_phantom(seed, laterality=laterality))


@pytest.mark.parametrize(
    "changes",
    [
        {"metal": 0.99, "bone": 0.75},
        {"metal": 0.70, "bone": 0.50},
        {"metal": 0.85, "noise": 0.05},
        {"dislocated": True},
        {"marker": "bone"},
        {"marker": None},
        {"collimation": (0.05, 0.15, 0.1, 0.0), "border": 1.0},
        {"collimation": (0.05, 0.0, 0.2, 0.1), "border": 0.02, "border_noise": 0.02},
        {"mm": 0.25},
        {"mm": 0.9},
    ],
    ids=str,
)
def test_a_prosthesis_is_found_whatever_the_picture(changes):
    assert_found(hip_phantom(2, **changes))


def test_cerclage_wires_hardly_widen_the_box():
    assert_found(hip_phantom(1, wires=3), tolerance=0.06)


@pytest.mark.parametrize("implants", [(True, True), (True, False), (False, True), (False, False)])
def test_each_hip_of_a_pelvis_is_told_apart(implants):
    assert_found(hip_phantom(6, implants=implants))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("marker", ["edge", "bone"])
def test_bone_marker_and_wires_are_no_prosthesis(seed, marker):
    assert search(hip_phantom(seed, implants=(False,), marker=marker, wires=3).grey) == []


def draw_metal(grey, *polygons):
    """Lay sharp metal polygons (x, y) over a radiograph of 0.5 mm a pixel."""
    layer = np.zeros_like(grey)
    for polygon in polygons:
        cv2.fillPoly(layer, [np.array(polygon, np.int32)], 1.0)
    layer = cv2.GaussianBlur(layer, (0, 0), 0.8)
    return grey + layer * np.maximum(0.93 - grey, 0.0)


def rectangle(x, y, width, height):
    return [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]


@pytest.mark.parametrize(
    "metal",
    [
        pytest.param([rectangle(390, 300, 22, 400)], id="a nail"),
        pytest.param([rectangle(425, 250, 14, 430)], id="a plate"),
        pytest.param([rectangle(425, 250, 14, 430)]
            + [rectangle(370, y, 60, 7) for y in range(290, 680, 60)], id="a plate with screws"),
        pytest.param([rectangle(60, 60, 60, 40)], id="a lead plate"),
        pytest.param([rectangle(500, 80 + 18 * i, 14, 4) for i in range(25)], id="skin staples"),
        pytest.param([rectangle(0, 0, 10, 760)], id="a bright rim"),
    ],
)  # fmt: skip
def test_other_metal_is_no_hip_prosthesis(metal):
    assert search(draw_metal(hip_phantom(8, implants=(False,)).grey, *metal)) == []


@pytest.mark.parametrize("name", ["RG1_UNCR.dcm", "RG3_UNCR.dcm"])
@pytest.mark.parametrize("turned", [0, 1])
def test_real_chest_and_tibia_hold_no_prosthesis(real_radiograph, name, turned):
    grey = Radiograph.from_dicom(real_radiograph(name)).grey_levels()
    assert search(np.ascontiguousarray(np.rot90(grey, turned))) == []


def test_the_box_hardly_moves_with_the_bit_depth():
    phantom = hip_phantom(9)
    boxes = [
        search((np.round(phantom.grey * (2**bits - 1)) / (2**bits - 1)).astype(np.float32))[0]
        for bits in (10, 12, 16)
    ]
    for box in boxes:
        np.testing.assert_allclose(box, boxes[-1], atol=0.1)


def test_exposure_moves_the_box_by_two_millimetres_at_most():
    grey = hip_phantom(10).grey
    (first,), (second,) = search(grey), search(np.sqrt(grey * 0.8 + 0.1))
    np.testing.assert_allclose(first, second, atol=4.0)


def test_frames_without_anything_hold_no_prosthesis():
    rng = np.random.default_rng(0)
    assert find_implants(np.full((300, 200), 0.4, np.float32)) == ()
    assert find_implants(rng.uniform(0, 1, (300, 200)).astype(np.float32)) == ()
    assert find_implants(np.zeros((300, 200), np.float32), Box(10, 10, 30, 30)) == ()
