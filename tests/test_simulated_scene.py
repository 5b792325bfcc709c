"""The scene: catalogues and sites, one rigid prosthesis, fragments, severity and blood tests."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from hipnet_edge.simulation.anatomy import bone_around
from hipnet_edge.simulation.cups import CUPS
from hipnet_edge.simulation.dimensions import PREVALENCE, TABLE, Draws, Site
from hipnet_edge.simulation.materials import Material
from hipnet_edge.simulation.radiography import expose
from hipnet_edge.simulation.scene import FILM_STREAM, compose
from hipnet_edge.simulation.solids import Ellipsoid, Tube
from hipnet_edge.simulation.stems import STEMS, stem
from hipnet_edge.vocabulary import CAUSES, VIEWS, Cause, View

SEEDS = range(24)
SPACING = 0.6


@cache
def scene(cause, seed, site=Site.DEVELOPMENT, also=None):
    return compose(cause, seed, site, also)


def excess(scene, elements, view, seed):
    """Attenuation of elements over the soft tissue they stand in [rows, columns], at 50 keV."""
    draws = Draws(scene.site, seed, FILM_STREAM, VIEWS.index(view))
    exposed = expose(scene, view, draws, SPACING)
    total = np.zeros(exposed.shape)
    for element in elements:
        laid = exposed.lay(element.solid, element.group)
        if laid is not None:
            gain = element.material.value[0] - element.displaces.value[0]
            total[laid[0], laid[1]] += gain * element.density * laid[2]
    return total


# Catalogues and sites


@pytest.mark.parametrize("catalogue", [STEMS, CUPS], ids=["stems", "cups"])
def test_the_shifted_site_implants_what_development_never_saw(catalogue):
    names = [family.name for family in catalogue]
    assert len(set(names)) == len(names)
    for site in Site:
        own = [family for family in catalogue if family.site is site]
        assert len(own) >= 3
        assert sum(family.share for family in own) == pytest.approx(1.0)
        kind = "stem" if catalogue is STEMS else "cup"
        drawn = {getattr(compose(None, seed, site).prosthesis, kind).name for seed in range(40)}
        assert drawn == {family.name for family in own}


def test_one_seed_at_two_sites_is_two_patients():
    here, there = scene(None, 5), scene(None, 5, Site.SHIFTED)
    assert here.patient != there.patient
    assert (here.site, there.site) == (Site.DEVELOPMENT, Site.SHIFTED)


def test_shares_of_the_causes_add_up_at_both_sites():
    for site in Site:
        assert sum(PREVALENCE[cause].at(site) for cause in CAUSES) == pytest.approx(1.0)


@pytest.mark.parametrize("site", Site, ids=lambda site: site.value)
def test_a_stem_stands_in_the_canal_below_the_metaphysis(site):
    for seed in SEEDS:
        found = scene(None, seed, site)
        body = stem(found.patient, found.prosthesis)
        _, canal = bone_around(found.patient, body.nodes)
        deep = np.linspace(0, 1, len(canal)) > 0.35
        assert np.all(body.bed[deep] <= np.maximum(canal[deep], 5.0) + 1e-6)
        assert np.all(body.radii <= body.bed + 1e-6)
        assert np.ptp(body.nodes[:, 2]) == pytest.approx(found.prosthesis.stem_length)


# What moves, moves whole


def test_a_loose_cup_moves_with_its_head_and_all_it_holds():
    moved = 0
    for seed in range(40):
        loose, sound = scene(Cause.ASEPTIC_LOOSENING, seed), scene(None, seed)
        shift = loose.sign.cup_shift
        if not shift.any():
            continue
        moved += 1
        centres = [
            next(
                e.solid.centre
                for e in whole.elements
                if e.material is Material.POLYETHYLENE and isinstance(e.solid, Ellipsoid)
            )
            for whole in (sound, loose)
        ]
        np.testing.assert_allclose(centres[1] - centres[0], shift)
        draws = Draws(loose.site, seed, FILM_STREAM, 0)
        head = expose(loose, View.AP, draws, SPACING).poses["femur"].shift
        assert np.linalg.norm(head - centres[1]) <= TABLE["bedding_in"].high
        lined = [t.solid.centre for t in loose.truth if t.group == "pelvis"]
        np.testing.assert_allclose(lined, [shift])
    assert moved > 8


def femoral_metal(whole):
    metal = (Material.TITANIUM, Material.COBALT_CHROME, Material.CERAMIC)
    return [
        e.solid
        for e in whole.elements
        if e.group == "femur"
        and e.material in metal
        and len(getattr(e.solid, "nodes", range(9))) > 8
    ]


def test_stem_neck_and_head_stay_one_piece_and_all_bone_rises_around_a_sunk_stem():
    seed = 3
    loose, sound = scene(Cause.ASEPTIC_LOOSENING, seed), scene(None, seed)
    for one, other in zip(femoral_metal(loose), femoral_metal(sound), strict=True):
        for name in ("nodes", "centre"):
            assert np.array_equal(getattr(one, name, 0), getattr(other, name, 0))
    bone = [
        [e.solid for e in whole.elements if e.group == "femur" and e.material.is_bone][:6]
        for whole in (loose, sound)
    ]
    assert len(bone[0]) == 6
    for one, other in zip(*bone, strict=True):
        place = [s.nodes.mean(0) if isinstance(s, Tube) else s.centre for s in (one, other)]
        rise = (place[0] - place[1])[2]
        assert rise == pytest.approx(loose.sign.subsidence, abs=1.6)  # the tilt lifts one side


def fractures():
    for seed in range(60):
        broken = scene(Cause.PERIPROSTHETIC_FRACTURE, seed)
        yield broken, broken.sign.fracture


def test_the_far_fragment_is_off_the_near_one_by_the_gap_wherever_it_turns():
    kinds = set()
    for broken, fracture in fractures():
        kinds.add(fracture.trochanter)
        normal = fracture.normal
        assert np.linalg.norm(normal) == pytest.approx(1.0)
        assert fracture.shift @ normal == pytest.approx(fracture.gap)
        along = np.linalg.norm(fracture.shift - fracture.gap * normal)
        assert along <= TABLE["fracture_step"].high
        if fracture.trochanter:
            continue
        around = np.linspace(0, 2 * np.pi, 24)
        first = np.cross(normal, [0.0, 1.0, 0.0])
        first /= np.linalg.norm(first)
        ring = np.cos(around)[:, None] * first + np.sin(around)[:, None] * np.cross(normal, first)
        edge = broken.patient.shaft_radius * ring @ fracture.turn.T + fracture.shift
        assert (edge @ normal).min() > 0.0  # the fragments touch nowhere
        height = fracture.point[2]
        assert height < broken.patient.neck_level - 60.0
    assert kinds == {True, False}


# Lesions


@pytest.mark.parametrize("cause", [Cause.PJI, Cause.ASEPTIC_LOOSENING], ids=str)
def test_a_lesion_takes_no_more_than_the_bone_that_is_there(cause):
    solid = (Material.CANCELLOUS_BONE, Material.CORTICAL_BONE, Material.SOFT_TISSUE)
    for seed in (1, 4, 7, 9):
        sick = scene(cause, seed)
        bone = [
            e
            for e in sick.elements
            if e.group == "femur" and e.material in solid and e.displaces in solid
        ]
        for view in VIEWS:
            left = excess(sick, bone, view, seed)
            assert left.max() > 0.5
            # 0.1 is 2 mm of cortex: the outlines of two tubes differ by as much at their ends.
            assert np.quantile(left, 0.0005) > -0.05
            assert left.min() > -0.25


def test_the_harmless_line_is_thin_short_and_gone_where_disease_is():
    seen = 0
    for seed in range(30):
        sound, loose = scene(None, seed), scene(Cause.ASEPTIC_LOOSENING, seed)
        soft = [
            [
                e.solid.radii
                for e in whole.elements
                if e.material is Material.SOFT_TISSUE and e.group == "femur"
            ]
            for whole in (sound, loose)
        ]
        if not soft[0]:
            assert len(soft[1]) == 1
            continue
        seen += 1
        width = soft[0][0] - stem(sound.patient, sound.prosthesis).bed
        assert width.max() <= TABLE["stable_lucency"].high + 1e-6
        assert (width > 0.05).mean() < 0.34
    assert seen > 4


# Severity, sizes and blood


RANGES = {
    Cause.ASEPTIC_LOOSENING: "loosening_width",
    Cause.PERIPROSTHETIC_FRACTURE: "fracture_gap",
    Cause.POLYETHYLENE_WEAR: "wear_distance",
}


@pytest.mark.parametrize("cause", RANGES, ids=str)
def test_severity_is_the_place_of_the_sign_in_its_range(cause):
    row = TABLE[RANGES[cause]]
    for seed in SEEDS:
        found = scene(cause, seed)
        assert row.low <= found.sign.size_mm <= row.high
        share = (found.sign.size_mm - row.low) / (row.high - row.low)
        assert found.sign.severity == pytest.approx(share)
        if cause is Cause.POLYETHYLENE_WEAR:
            assert found.sign.size_mm < found.prosthesis.liner
            assert np.linalg.norm(found.sign.head_shift) == pytest.approx(found.sign.size_mm)


def test_the_severity_of_an_infection_drives_all_its_signs_and_the_blood():
    sick = [scene(Cause.PJI, seed) for seed in range(400)]
    severity = np.array([s.sign.severity for s in sick])
    assert 0.0 <= severity.min() < 0.25 < 0.75 < severity.max() <= 1.0
    reaction = np.array([s.sign.size_mm for s in sick])
    assert 0.08 < (reaction == 0.0).mean() < 0.25
    lamellae = [max((layer.outer for layer in s.sign.lamellae), default=0.0) for s in sick]
    np.testing.assert_allclose(lamellae, reaction)
    lysis = np.array([s.sign.lucencies[0].width.max() for s in sick])
    signs = {
        "reaction": (reaction[reaction > 0], severity[reaction > 0]),
        "osteolysis": (lysis, severity),
        "swelling": ([s.sign.swelling for s in sick], severity),
        "crp": (np.log([s.crp_mg_l for s in sick]), severity),
        "esr": (np.log([s.esr_mm_h for s in sick]), severity),
    }
    for name, (values, driven_by) in signs.items():
        assert 0.25 < np.corrcoef(values, driven_by)[0, 1] < 0.98, name


def test_blood_tests_are_high_in_infection_and_the_same_for_the_harmless():
    def medians(cause):
        values = [(s.crp_mg_l, s.esr_mm_h) for s in (scene(cause, seed) for seed in range(150))]
        return np.median(values, axis=0)

    crp, esr = medians(Cause.PJI)
    assert crp == pytest.approx(42.0, rel=0.35)
    assert esr == pytest.approx(46.0, rel=0.25)
    np.testing.assert_array_equal(medians(None), medians(Cause.POLYETHYLENE_WEAR))
    assert medians(None) == pytest.approx((4.0, 14.0), rel=0.25)
    assert medians(Cause.DISLOCATION)[0] == pytest.approx(9.0, rel=0.25)


def test_a_head_that_is_not_worn_in_sits_half_a_millimetre_off_at_most():
    shifts = [np.linalg.norm(scene(None, seed).sign.head_shift) for seed in SEEDS]
    assert 0.2 < max(shifts) <= 0.5
    assert scene(None, 3).sign.size_mm == scene(None, 3).sign.severity == 0.0


def test_two_causes_at_once_show_the_signs_of_both():
    both = scene(Cause.ASEPTIC_LOOSENING, 6, Site.DEVELOPMENT, Cause.POLYETHYLENE_WEAR)
    loose = scene(Cause.ASEPTIC_LOOSENING, 6)
    assert both.sign.size_mm == loose.sign.size_mm
    assert np.array_equal(both.sign.lucencies[0].width, loose.sign.lucencies[0].width)
    assert np.linalg.norm(both.sign.head_shift) >= TABLE["wear_distance"].low
    assert len(both.truth) > len(loose.truth)
    assert both.patient == loose.patient
