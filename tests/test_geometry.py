"""The way between radiograph and network: exact there and back."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hipnet_edge.collimation import Box
from hipnet_edge.errors import UsageError
from hipnet_edge.geometry import Geometry


@st.composite
def geometries(draw):
    rows, columns = draw(st.integers(40, 300)), draw(st.integers(40, 300))
    units = draw(st.integers(4, 50))
    top = draw(st.integers(-40, rows - 8))
    left = draw(st.integers(-40, columns - 8))
    box = Box(top, left, top + 8 * units, left + 5 * units)
    return Geometry((rows, columns), box, draw(st.booleans()), (128, 80))


PLAIN = Geometry((400, 300), Box(40, 50, 40 + 256, 50 + 160), False, (128, 80))
MIRRORED = Geometry((400, 300), Box(40, 50, 40 + 256, 50 + 160), True, (128, 80))


@given(geometries(), st.lists(st.tuples(st.floats(-500, 500), st.floats(-500, 500)), min_size=1))
def test_points_go_there_and_back(geometry, points):
    np.testing.assert_allclose(geometry.to_image(geometry.to_network(points)), points, atol=1e-9)
    np.testing.assert_allclose(geometry.to_network(geometry.to_image(points)), points, atol=1e-9)


def test_coordinates_are_of_pixel_centres():
    # The first network pixel covers the box's first 2 x 2 pixels: rows 40 and 41, columns 50 and 51
    np.testing.assert_allclose(PLAIN.to_image([0, 0]), [50.5, 40.5])
    np.testing.assert_allclose(PLAIN.to_image([79, 127]), [50 + 158.5, 40 + 254.5])
    np.testing.assert_allclose(MIRRORED.to_image([0, 0]), [50 + 158.5, 40.5])
    np.testing.assert_allclose(MIRRORED.to_network([[50.5, 40.5]]), [[79, 0]])


@settings(deadline=None, max_examples=60)
@given(geometries(), st.integers(0, 2**31))
def test_a_blob_in_the_image_lands_where_the_points_say(geometry, seed):
    rng = np.random.default_rng(seed)
    rows, columns = geometry.image_shape
    y, x = np.mgrid[0:rows, 0:columns]
    centre = geometry.to_image([rng.uniform(15, 65), rng.uniform(20, 108)])
    scale = geometry.box.height / 128
    near = np.hypot(x - centre[0], y - centre[1])
    blob = np.maximum(0.0, 1.0 - near / (6 * scale))
    seen = geometry.image_to_network(blob)
    inside = 10 * scale
    if scale < 1.0 or not (
        inside < centre[0] < columns - inside and inside < centre[1] < rows - inside
    ):
        return
    ny, nx = np.mgrid[0:128, 0:80]
    found = np.array([(seen * nx).sum(), (seen * ny).sum()]) / seen.sum()
    np.testing.assert_allclose(found, geometry.to_network(centre), atol=0.15)


@pytest.mark.parametrize("geometry", [PLAIN, MIRRORED])
@pytest.mark.parametrize("stride", [1, 4, 8, 16])
def test_a_map_is_laid_over_the_image_where_the_points_say(geometry, stride):
    """A map that holds its own x coordinate gives, in the image, that coordinate."""
    height, width = 128 // stride, 80 // stride
    centres = (np.arange(width) + 0.5) * stride - 0.5
    laid = geometry.map_to_image(np.tile(centres, (height, 1)))
    assert laid.shape == geometry.image_shape
    assert laid.dtype == np.float32
    y, x = np.mgrid[60:280:13, 75:185:7]
    expected = geometry.to_network(np.stack([x, y], axis=-1))[..., 0]
    np.testing.assert_allclose(laid[y, x], expected, atol=1e-3)


@given(geometries())
@settings(deadline=None, max_examples=60)
def test_a_map_covers_the_box_inside_the_frame_and_nothing_else(geometry):
    laid = geometry.map_to_image(np.ones((16, 10), np.float32))
    expected = np.zeros(geometry.image_shape, np.float32)
    box = geometry.box.clip(Box(0, 0, *geometry.image_shape))
    expected[box.slices] = 1.0
    np.testing.assert_allclose(laid, expected, atol=1e-6)


@given(geometries())
@settings(deadline=None, max_examples=60)
def test_what_is_seen_of_the_frame_is_what_is_covered(geometry):
    frame = np.ones(geometry.image_shape, bool)
    seen = geometry.box.clip(Box(0, 0, *geometry.image_shape))
    np.testing.assert_allclose(geometry.image_to_network(frame), geometry.covered(seen), atol=1e-5)


@settings(deadline=None, max_examples=60)
@given(geometries(), st.integers(0, 2**31))
def test_image_to_network_keeps_area(geometry, seed):
    """Averaging areas: the mean over the box is kept, whatever the ratio of sizes."""
    if geometry.box.height < 128:
        return
    image = np.random.default_rng(seed).uniform(0, 1, geometry.image_shape)
    seen = geometry.box.clip(Box(0, 0, *geometry.image_shape))
    total = image[seen.slices].sum() / (geometry.box.height * geometry.box.width)
    assert geometry.image_to_network(image).mean() == pytest.approx(total, rel=1e-4)


def test_mirrored_is_the_mirror_image():
    image = np.random.default_rng(0).uniform(0, 1, (400, 300)).astype(np.float32)
    np.testing.assert_array_equal(
        MIRRORED.image_to_network(image), PLAIN.image_to_network(image)[:, ::-1]
    )
    cells = np.random.default_rng(1).uniform(0, 1, (16, 10))
    np.testing.assert_array_equal(MIRRORED.map_to_image(cells), PLAIN.map_to_image(cells[:, ::-1]))


def test_wrong_shapes_are_refused():
    with pytest.raises(UsageError):
        PLAIN.image_to_network(np.zeros((10, 10)))
    with pytest.raises(UsageError):
        PLAIN.map_to_image(np.zeros((2, 3, 4)))
    with pytest.raises(UsageError):
        PLAIN.to_image([1.0, 2.0, 3.0])


@settings(deadline=None, max_examples=40)
@given(geometries(), st.integers(0, 2**31), st.integers(2, 40), st.integers(2, 40))
def test_an_averaged_map_is_the_laid_map_averaged(geometry, seed, rows, columns):
    cells = np.random.default_rng(seed).random((16, 10), np.float32)
    frame = Box(0, 0, *geometry.image_shape)
    for region in (frame, geometry.box.clip(frame)):
        shape = min(rows, region.height), min(columns, region.width)
        laid = geometry.map_to_image(cells)[region.slices]
        expected = cv2.resize(laid, shape[::-1], interpolation=cv2.INTER_AREA)
        found = geometry.map_averaged(cells, region, shape)
        np.testing.assert_allclose(found, expected, atol=1e-5)
