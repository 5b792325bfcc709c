"""A simulated study is one patient seen twice, with the sign it claims where the mask says."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest

from hipnet_edge.simulation import simulate_study
from hipnet_edge.simulation.dimensions import PROBABILITIES, Chance, Draws, Site
from hipnet_edge.simulation.radiography import STORED_BITS, expose, truth_mask
from hipnet_edge.simulation.scene import FILM_STREAM, compose
from hipnet_edge.simulation.solids import Tube
from hipnet_edge.simulation.stems import stem
from hipnet_edge.simulation.truth import Truth
from hipnet_edge.vocabulary import CAUSES, VIEWS, Cause, Laterality, View

ROOT = Path(__file__).parent.parent
COARSE = 0.8
"""Pixel size of most studies here, mm; the scene is the same at every size."""
PLAIN = {
    "right": 0.0,
    "bilateral_pelvis": 0.0,
    "marker": 0.0,
    "collimated_side": 0.0,
    "stable_lucency": 0.0,
    "cerclage": 0.0,
}
"""Habits of a left hip on a film without anything that is not asked for."""


@cache
def study(cause, seed):
    return simulate_study(cause, seed, pixel_spacing_mm=COARSE)


@cache
def scene(cause, seed):
    return compose(cause, seed)


def exposure(cause, seed, view, spacing=COARSE):
    return expose(
        scene(cause, seed),
        view,
        Draws(Site.DEVELOPMENT, seed, FILM_STREAM, VIEWS.index(view)),
        spacing,
    )


@pytest.fixture
def habits(monkeypatch):
    """Sets probabilities of the table; scenes are not kept across such a change."""

    def change(**chances):
        for name, chance in {**PLAIN, **chances}.items():
            monkeypatch.setitem(PROBABILITIES, name, Chance(chance, name))
        scene.cache_clear()

    scene.cache_clear()
    yield change
    scene.cache_clear()


def grey(view):
    return view.stored / float(2**STORED_BITS - 1)


def grown(mask, millimetres):
    reach = 2 * round(millimetres / COARSE) + 1
    return cv2.dilate(mask.astype(np.uint8), np.ones((reach, reach), np.uint8)) > 0


def centre_mm(mask, spacing):
    """Centre of a silhouette on the detector (u, v), mm."""
    rows, columns = np.nonzero(mask)
    return np.array([columns.mean() + 0.5, rows.mean() + 0.5]) * spacing


# One seed is one patient on one film


@pytest.mark.parametrize("cause", [Cause.PJI, None], ids=str)
def test_the_same_arguments_give_the_same_bytes(cause):
    again = simulate_study(cause, 11, pixel_spacing_mm=COARSE)
    for view in VIEWS:
        one, two = study(cause, 11).views[view], again.views[view]
        assert one.stored.tobytes() == two.stored.tobytes()
        assert one.mask.tobytes() == two.mask.tobytes()
        assert one.stored.dtype == np.uint16
        assert one.stored.max() < 2**STORED_BITS
        assert one.mask.shape == one.stored.shape


def test_another_seed_is_another_patient():
    one, two = study(Cause.PJI, 11).lateral, study(Cause.PJI, 12).lateral
    assert np.abs(grey(one) - grey(two)).mean() > 0.05
    assert one.mask.tobytes() != two.mask.tobytes()


# Mean change of grey more than 10 mm away from what the mask marks. What is left: swelling (PJI),
# the leg that hangs on a shifted head (wear), and the display curve, which follows the median.
ELSEWHERE = {
    Cause.PJI: 0.035,
    Cause.ASEPTIC_LOOSENING: 0.01,
    Cause.PERIPROSTHETIC_FRACTURE: 0.01,
    Cause.POLYETHYLENE_WEAR: 0.025,
}


@pytest.mark.parametrize("cause", ELSEWHERE, ids=str)
def test_another_cause_with_the_same_seed_changes_little_but_the_sign(cause):
    seed = 3
    for view in VIEWS:
        sound, sick = study(None, seed).views[view], study(cause, seed).views[view]
        change = np.abs(grey(sick) - grey(sound))
        away = change[~grown(sick.mask, 10.0)].mean()
        assert away < ELSEWHERE[cause]
        assert change[sick.mask].mean() > 1.5 * away


def test_a_dislocation_leaves_the_pelvis_where_it_was():
    seed = 3
    sound, sick = study(None, seed).ap, study(Cause.DISLOCATION, seed).ap
    change = np.abs(grey(sick) - grey(sound))
    above = int(np.nonzero(sick.mask.any(axis=1))[0].min() - 15 / COARSE)
    assert change[:above].mean() < 0.03
    assert change[sick.mask].mean() > 0.1


def test_only_the_sign_differs_between_causes_of_one_seed():
    scenes = [scene(cause, 21) for cause in (None, *CAUSES)]
    assert len({repr(s.patient) + repr(s.prosthesis) for s in scenes}) == 1
    poses = [exposure(cause, 21, View.AP).poses["pelvis"].rotation for cause in (None, *CAUSES)]
    assert all(np.array_equal(poses[0], pose) for pose in poses)


# Masks


def test_a_sound_prosthesis_has_nothing_to_mark():
    sound = study(None, 11)
    assert sound.sign_mm == 0.0
    assert not sound.ap.mask.any()
    assert not sound.lateral.mask.any()


@pytest.mark.parametrize("cause", CAUSES, ids=str)
def test_both_views_of_every_disease_have_a_mask_inside_the_film(cause):
    for seed in range(10):
        for view in VIEWS:
            mask = truth_mask(scene(cause, seed).truth, exposure(cause, seed, view))
            area = mask.sum() * COARSE**2
            assert 150.0 < area < 6000.0, (seed, view)
            assert not mask[[0, -1]].any(), (seed, view)
            assert not mask[:, [0, -1]].any(), (seed, view)


@pytest.mark.parametrize("cause", CAUSES, ids=str)
def test_the_study_carries_that_mask_less_what_collimation_hides(cause):
    seed = 3
    for view in VIEWS:
        mask = truth_mask(scene(cause, seed).truth, exposure(cause, seed, view))
        if study(cause, seed).laterality is Laterality.RIGHT:
            mask = np.fliplr(mask)
        own = study(cause, seed).views[view].mask
        assert not (own & ~mask).any()
        assert own.sum() > 0.9 * mask.sum()


# The two views are of one scene


def ray(exposed, uv):
    """Focal spot and direction, in the pelvis's frame, of what falls on the detector at `uv`."""
    pose = exposed.poses["pelvis"]
    source, end = pose.undo(exposed.beam.source), pose.undo(exposed.beam.on_detector(uv))
    return source, (end - source) / np.linalg.norm(end - source)


def nearest_point(rays):
    """The point with the smallest sum of squared distances to some rays, and the largest one."""
    across = [np.eye(3) - np.outer(direction, direction) for _, direction in rays]
    offsets = sum(a @ source for a, (source, _) in zip(across, rays, strict=True))
    point = np.linalg.solve(sum(across), offsets)
    return point, max(
        np.linalg.norm(a @ (point - s)) for a, (s, _) in zip(across, rays, strict=True)
    )


@pytest.mark.parametrize("seed", range(4))
def test_head_and_cup_measured_in_both_views_meet_in_space(seed, habits):
    habits(frog_leg=0.0)
    dislocated = scene(Cause.DISLOCATION, seed)
    shift = dislocated.sign.head_shift
    for item, expected in zip(dislocated.truth, (shift, np.zeros(3)), strict=True):
        if item.group == "pelvis":  # half a ball has no centre to measure; the whole one has
            item = replace(item, solid=replace(item.solid, planes=()))
        rays = []
        for view in VIEWS:
            exposed = exposure(Cause.DISLOCATION, seed, view)
            rays.append(ray(exposed, centre_mm(truth_mask([item], exposed), COARSE)))
        found, apart = nearest_point(rays)
        assert apart < 0.6
        np.testing.assert_allclose(found, expected, atol=1.0)
    assert np.linalg.norm(shift) == pytest.approx(dislocated.sign.size_mm)
    assert np.linalg.norm(shift) > dislocated.prosthesis.head_radius


@pytest.mark.parametrize("frog", [0.0, 1.0], ids=["cross-table", "frog-leg"])
@pytest.mark.parametrize("seed", [2, 9])
def test_the_stem_is_equally_long_in_both_views(seed, frog, habits):
    habits(frog_leg=frog)
    whole = scene(None, seed)
    body = stem(whole.patient, whole.prosthesis)
    for view in VIEWS:
        exposed = exposure(None, seed, view, 0.4)
        ends = exposed.poses["femur"].apply(body.nodes[[0, -1]])
        silhouette = truth_mask([Truth(Tube(body.nodes, body.radii), "femur")], exposed)
        along = np.subtract(*exposed.beam.project(ends))
        along /= np.linalg.norm(along)
        rows, columns = np.nonzero(silhouette)
        reach = np.column_stack([columns, rows]) @ along * 0.4
        seen = (np.ptp(reach) - 2.0) / exposed.beam.magnification(ends).mean()
        flat = np.linalg.norm((ends[0] - ends[1])[[0, 2]])  # what leans along the beam looks short
        assert seen == pytest.approx(flat, abs=1.6)
        assert flat > 0.97 * whole.prosthesis.stem_length


# Every sign is as large as it says


def displacement(before, after, reach=24):
    """How far, in pixels (x, y), the picture `after` is moved against `before`."""
    score = cv2.matchTemplate(after, before[reach:-reach, reach:-reach], cv2.TM_CCOEFF_NORMED)
    _, _, _, (x, y) = cv2.minMaxLoc(score)

    def peak(low, middle, high):
        return (low - high) / (2.0 * (low - 2.0 * middle + high))

    return np.array(
        [x - reach + peak(*score[y, x - 1 : x + 2]), y - reach + peak(*score[y - 1 : y + 2, x])]
    )


@pytest.mark.parametrize(
    "seed", [1, 5, 11]
)  # along others, cemented or long, there is little to match
def test_wear_moves_the_head_in_the_pixels_by_what_it_says(seed, habits):
    habits(frog_leg=0.0)
    spacing = 0.5
    pictures = {
        cause: simulate_study(cause, seed, pixel_spacing_mm=spacing)
        for cause in (None, Cause.POLYETHYLENE_WEAR)
    }
    worn = pictures[Cause.POLYETHYLENE_WEAR]
    measured = []
    for view in VIEWS:
        # Only stem and neck move with the head: cut them out, and leave only what metal is.
        exposed = exposure(None, seed, view, spacing)
        parts = scene(None, seed)
        body = stem(parts.patient, parts.prosthesis).nodes
        uv = exposed.beam.project(exposed.poses["femur"].apply(body)) / spacing
        low, high = uv.min(0).astype(int) - 45, uv.max(0).astype(int) + 45
        window = slice(low[1], high[1]), slice(low[0], high[0])
        middle = uv[20:70].astype(int)
        level = np.median(grey(pictures[None].views[view])[middle[:, 1], middle[:, 0]])
        metal = [
            np.clip(grey(pictures[cause].views[view])[window], level - 0.1, level).astype(
                np.float32
            )
            for cause in (None, Cause.POLYETHYLENE_WEAR)
        ]
        moved = displacement(*metal) * spacing / exposed.beam.magnification(np.zeros(3))
        measured.append(moved)
    (x, z), (_, z_again) = measured
    worn_in, sound = (scene(c, seed).sign.head_shift for c in (Cause.POLYETHYLENE_WEAR, None))
    shift = worn_in - sound
    np.testing.assert_allclose([x, -z, -z_again], [shift[0], shift[2], shift[2]], atol=0.6)
    assert worn.sign_mm == pytest.approx(np.linalg.norm(worn_in))


@pytest.mark.parametrize("seed", [1, 3, 4])
def test_a_loose_stem_has_a_dark_seam_as_wide_as_it_says(seed, habits):
    habits(frog_leg=0.0)
    spacing = 0.3
    loose = simulate_study(Cause.ASEPTIC_LOOSENING, seed, pixel_spacing_mm=spacing)
    parts = scene(Cause.ASEPTIC_LOOSENING, seed)
    border = parts.sign.lucencies[0].border
    body = stem(parts.patient, parts.prosthesis).nodes
    lined = parts.sign.lucencies[0].width.mean(axis=1) > 0.8 * loose.sign_mm
    mask_widths, darks, widths = [], [], []
    for view in VIEWS:
        exposed = exposure(Cause.ASEPTIC_LOOSENING, seed, view, spacing)
        nodes = exposed.poses["femur"].apply(body)
        uv, scale = exposed.beam.project(nodes), exposed.beam.magnification(nodes).mean()
        along = uv[-1] - uv[0]
        across = np.array([-along[1], along[0]]) / np.linalg.norm(along)
        for side in (-1.0, 1.0):
            reach = np.arange(0.0, 30.0, 0.1)  # mm on the detector, away from the stem's middle
            at = uv[lined][:, None] + side * reach[:, None] * across
            at = (at / spacing - 0.5).astype(np.float32)
            look = [
                cv2.remap(np.float32(image), at[..., 0], at[..., 1], cv2.INTER_LINEAR)
                for image in (grey(loose.views[view]), loose.views[view].mask)
            ]
            mask_widths.append((np.median((look[1] > 0.5).sum(1)) * 0.1 - 2.0) / scale)
            # Rows are laid metal edge on metal edge, where the mask begins 1 mm inside.
            starts = (look[1] > 0.5).argmax(1) + 10
            bone = [row[i : i + 100] for row, i in zip(look[0], starts, strict=True)]
            profile = np.mean(bone, axis=0)
            line = 20 + int(profile[20:75].argmax())  # the sclerotic line
            widths.append(0.1 * line / scale - 0.5 * border)
            darks.append(profile[line] - profile[5 : line - 10].mean())
    assert np.mean(mask_widths) == pytest.approx(loose.sign_mm, rel=0.15)
    assert np.mean(widths) == pytest.approx(loose.sign_mm, abs=0.7)
    assert np.mean(darks) > 0.03
    assert min(darks) > 0.01
