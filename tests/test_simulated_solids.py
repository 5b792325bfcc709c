"""Chord images of tubes and ellipsoids against closed-form answers; the beam's geometry."""

from __future__ import annotations

import numpy as np
import pytest

from hipnet_edge.simulation.solids import (
    Beam,
    Ellipsoid,
    Pose,
    Tube,
    rotation,
    round_section,
    section,
    sphere,
)

SPACING = 0.5
FILM = (400, 360)
CENTRE = (90.0, 100.0)
BEAM = Beam(1100.0, 100.0, CENTRE, CENTRE)
PARALLEL = Beam(1e7, 100.0, CENTRE, CENTRE)
"""A source ten kilometres away: nothing is magnified, and chords add up to volumes."""

POSES = {
    "as it lies": Pose(),
    "from the side": Pose(rotation("z", -90.0)),
    "abducted and turned": Pose(rotation("y", -30.0) @ rotation("z", -78.0)),
    "leaning along the beam": Pose(rotation("x", 40.0), np.array([4.0, -7.0, 3.0])),
}


def film(solid, pose=Pose(), beam=BEAM):  # noqa: B008 (a Pose is frozen)
    """The chords of a solid on the whole film [rows, columns], mm."""
    image = np.zeros(FILM, np.float32)
    laid = solid.project(pose, beam).lay(FILM, SPACING)
    assert laid is not None
    image[laid[0], laid[1]] = laid[2]
    return image


def pixel_centres():
    """Detector coordinates (u, v) of every pixel's centre, mm."""
    v, u = np.indices(FILM)
    return (u + 0.5) * SPACING, (v + 0.5) * SPACING


def volume(image):
    return float(image.sum()) * SPACING**2


def rod(radius, length=80.0, **kwargs):
    nodes = np.linspace([0.0, 0.0, 0.5 * length], [0.0, 0.0, -0.5 * length], 41)
    return Tube(nodes, round_section(np.full(41, radius)), **kwargs)


# Closed-form chords


def test_a_sphere_under_a_point_source_has_the_chords_of_geometry():
    radius = 20.0
    u, v = pixel_centres()
    off_axis = np.hypot(u - CENTRE[0], v - CENTRE[1])
    distance = BEAM.source_to_object * np.sin(np.arctan(off_axis / BEAM.source_to_detector))
    expected = 2.0 * np.sqrt(np.maximum(radius**2 - distance**2, 0.0))
    image = film(sphere(np.zeros(3), radius, detail=0.25))
    inside = expected > 8.0  # at the rim a chord grows without limit within one pixel
    np.testing.assert_allclose(image[inside], expected[inside], atol=0.1)
    assert image[off_axis > 22.5].max() == 0.0


def test_a_sphere_is_magnified_as_source_to_detector_over_source_to_object():
    radius = 14.0
    for depth in (-60.0, 0.0, 60.0):
        image = film(sphere(np.array([0.0, depth, 0.0]), radius, detail=0.25))
        measured = np.sqrt((image > 1.0).sum() * SPACING**2 / np.pi) / radius
        assert measured == pytest.approx(1100.0 / (1000.0 + depth), rel=0.01)


def test_a_cylinder_across_the_beam_has_the_chords_of_a_circle():
    radius = 15.0
    image = film(rod(radius, detail=0.25), beam=PARALLEL)
    u, _ = pixel_centres()
    across = np.abs(u[200] - CENTRE[0])
    expected = 2.0 * np.sqrt(np.maximum(radius**2 - across**2, 0.0))
    inside = across < 13.5
    np.testing.assert_allclose(image[200][inside], expected[inside], atol=0.15)
    assert image[200][across > 15.6].max() == 0.0


@pytest.mark.parametrize("depth", [-60.0, 60.0])
def test_a_cylinder_is_magnified_by_where_it_stands(depth):
    image = film(rod(10.0, detail=0.2), Pose(shift=np.array([0.0, depth, 0.0])))
    width = (image[200] > 1.0).sum() * SPACING
    assert width == pytest.approx(20.0 * 1100.0 / (1000.0 + depth), abs=0.6)


@pytest.mark.parametrize("pose", POSES.values(), ids=POSES)
def test_chords_add_up_to_the_volume_of_an_ellipsoid_from_every_side(pose):
    solid = Ellipsoid(np.array([3.0, -4.0, 5.0]), np.diag([12.0, 18.0, 25.0]), detail=0.4)
    expected = 4.0 / 3.0 * np.pi * 12 * 18 * 25
    assert volume(film(solid, pose, PARALLEL)) == pytest.approx(expected, rel=0.005)


@pytest.mark.parametrize("pose", POSES.values(), ids=POSES)
def test_half_a_ball_is_half_a_ball_from_every_side(pose):
    opening = np.array([0.6, -0.3, -0.74])
    opening /= np.linalg.norm(opening)
    cup = Ellipsoid(np.zeros(3), 24.0 * np.eye(3), planes=((opening, 0.0),), detail=0.3)
    lid = Ellipsoid(np.zeros(3), 24.0 * np.eye(3), planes=((-opening, 0.0),), detail=0.3)
    whole = 4.0 / 3.0 * np.pi * 24.0**3
    assert volume(film(cup, pose, PARALLEL)) == pytest.approx(0.5 * whole, rel=0.01)
    both = film(cup, pose) + film(lid, pose)
    np.testing.assert_allclose(both, film(sphere(np.zeros(3), 24.0, detail=0.3), pose), atol=1e-3)


@pytest.mark.parametrize("pose", POSES.values(), ids=POSES)
def test_chords_add_up_to_the_volume_of_a_tube_from_every_side(pose):
    tapered = Tube(rod(1.0).nodes, round_section(np.linspace(14.0, 8.0, 41)))
    frustum = np.pi * 80.0 / 3.0 * (14.0**2 + 14.0 * 8.0 + 8.0**2)
    assert volume(film(rod(12.0), pose, PARALLEL)) == pytest.approx(np.pi * 144 * 80, rel=0.03)
    assert volume(film(tapered, pose, PARALLEL)) == pytest.approx(frustum, rel=0.03)


def test_a_section_of_four_quarter_ellipses_lies_the_right_way_round():
    ones = np.ones(41)
    oval = Tube(rod(1.0).nodes, section(16 * ones, 8 * ones, 12 * ones, 4 * ones), detail=0.2)
    front = film(oval, beam=PARALLEL)[200]
    side = film(oval, POSES["from the side"], PARALLEL)[200]
    u, _ = pixel_centres()

    def edges(row):
        seen = u[0][row > 1.0] - CENTRE[0]
        return seen.min(), seen.max()

    assert edges(front) == pytest.approx((-8.0, 16.0), abs=0.6)  # lateral to the image's right
    assert edges(side) == pytest.approx((-12.0, 4.0), abs=0.6)  # posterior to the image's right
    area = np.pi / 4.0 * (16 + 8) * (12 + 4)
    assert front.sum() * SPACING == pytest.approx(area, rel=0.01)
    assert side.sum() * SPACING == pytest.approx(area, rel=0.01)


@pytest.mark.parametrize("pose", POSES.values(), ids=POSES)
def test_a_saw_cut_leaves_exactly_what_lies_on_its_side(pose):
    normal = np.array([0.5, 0.4, 0.77])
    normal /= np.linalg.norm(normal)
    kept = rod(12.0, cut=lambda points: (points @ normal < 0.0).astype(float))
    gone = rod(12.0, cut=lambda points: (points @ normal >= 0.0).astype(float))
    whole = volume(film(rod(12.0), pose, PARALLEL))
    assert volume(film(kept, pose, PARALLEL)) == pytest.approx(0.5 * whole, rel=0.03)
    assert volume(film(gone, pose, PARALLEL)) == pytest.approx(0.5 * whole, rel=0.03)


def test_a_soft_edge_moves_no_mass():
    sharp, soft = sphere(np.zeros(3), 8.0), sphere(np.zeros(3), 8.0, softness=2.5)
    assert volume(film(soft)) == pytest.approx(volume(film(sharp)), rel=0.01)
    assert film(soft).max() < film(sharp).max() - 0.5


# Geometry


@pytest.mark.parametrize("pose", POSES.values(), ids=POSES)
def test_a_solid_is_drawn_where_its_point_projects(pose):
    beam = Beam(1100.0, 160.0, (70.0, 60.0), CENTRE)
    centre = np.array([20.0, -15.0, 25.0])
    image = film(sphere(centre, 4.0, detail=0.2), pose, beam)
    u, v = pixel_centres()
    found = np.array([(u * image).sum(), (v * image).sum()]) / image.sum()
    np.testing.assert_allclose(found, beam.project(pose.apply(centre)), atol=0.06)


def test_what_falls_off_the_film_is_left_out_and_the_rest_is_kept():
    whole = film(sphere(np.zeros(3), 20.0))
    edge = Beam(1100.0, 100.0, (0.0, 100.0), (0.0, 100.0))
    half = film(sphere(np.zeros(3), 20.0), beam=edge)
    assert volume(half) == pytest.approx(0.5 * volume(whole), rel=0.01)
    outside = Beam(1100.0, 100.0, (-60.0, 100.0), (-60.0, 100.0))
    assert sphere(np.zeros(3), 20.0).project(Pose(), outside).lay(FILM, SPACING) is None


@pytest.mark.parametrize("pose", POSES.values(), ids=POSES)
def test_a_pose_is_undone_and_keeps_distances(pose):
    points = np.random.default_rng(1).normal(0.0, 50.0, (20, 3))
    np.testing.assert_allclose(pose.undo(pose.apply(points)), points, atol=1e-9)
    moved = pose.apply(points)
    np.testing.assert_allclose(
        np.linalg.norm(moved[1:] - moved[0], axis=1), np.linalg.norm(points[1:] - points[0], axis=1)
    )
    assert np.linalg.det(pose.rotation) == pytest.approx(1.0)


def test_a_point_its_image_and_the_focal_spot_lie_on_one_ray():
    beam = Beam(1100.0, 160.0, (70.0, 60.0), CENTRE)
    points = np.random.default_rng(2).normal(0.0, 60.0, (50, 3))
    uv = beam.project(points)
    np.testing.assert_allclose(beam.project(beam.on_detector(uv)), uv, atol=1e-9)
    to_point, to_image = points - beam.source, beam.on_detector(uv) - beam.source
    scale = np.linalg.norm(to_image, axis=1) / np.linalg.norm(to_point, axis=1)
    np.testing.assert_allclose(to_point * scale[:, None], to_image, atol=1e-6)
    np.testing.assert_allclose(scale, beam.magnification(points), rtol=1e-9)
    np.testing.assert_allclose(beam.project(np.zeros(3)), (70.0, 60.0), atol=1e-9)


def test_rotations_turn_from_one_axis_to_the_next():
    np.testing.assert_allclose(rotation("z", 90.0) @ [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(rotation("x", 90.0) @ [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], atol=1e-12)
    np.testing.assert_allclose(rotation("y", 90.0) @ [0.0, 0.0, 1.0], [1.0, 0.0, 0.0], atol=1e-12)
