"""The film of a simulated study: sides, letters, metal; what is known to be wrong; the table."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from hipnet_edge.simulation import simulate_study
from hipnet_edge.simulation.dimensions import PROBABILITIES, TABLE, Draws
from hipnet_edge.simulation.materials import Material
from hipnet_edge.simulation.radiography import attenuation, expose
from hipnet_edge.simulation.scene import FILM_STREAM, compose
from hipnet_edge.vocabulary import VIEWS, Cause, Laterality, View

ROOT = Path(__file__).parent.parent
SPACING = 0.8
METALS = (Material.TITANIUM, Material.COBALT_CHROME)
BARE = {"marker": 0.0, "collimated_side": 0.0, "cerclage": 0.0, "bilateral_pelvis": 0.0}


@pytest.fixture
def taken(monkeypatch):
    """Simulates a study with some probabilities of the table set."""

    def take(cause, seed, spacing=SPACING, **chances):
        for name, chance in {**BARE, **chances}.items():
            monkeypatch.setitem(PROBABILITIES, name, chance)
        return simulate_study(cause, seed, pixel_spacing_mm=spacing)

    return take


def grey(view):
    return view.stored / 16383.0


def exposure_of(scene, seed, view, spacing=SPACING):
    return expose(scene, view, Draws(seed, FILM_STREAM, VIEWS.index(view)), spacing)


# Sides


@pytest.mark.parametrize("bilateral", [0.0, 1.0], ids=["hip", "pelvis"])
def test_a_right_hip_is_the_left_one_in_the_mirror(bilateral, taken):
    right, left = (
        taken(Cause.PJI, 5, right=chance, bilateral_pelvis=bilateral) for chance in (1.0, 0.0)
    )
    assert (right.laterality, left.laterality) == (Laterality.RIGHT, Laterality.LEFT)
    for view in VIEWS:
        one, other = right.views[view], left.views[view]
        assert np.array_equal(one.stored, np.fliplr(other.stored))
        assert np.array_equal(one.mask, np.fliplr(other.mask))
        assert not np.array_equal(one.stored, other.stored)


def test_a_left_hip_lies_towards_the_right_of_the_film(taken):
    left = taken(Cause.PJI, 5, right=0.0, bilateral_pelvis=1.0)
    columns = np.nonzero(left.ap.mask)[1]
    assert columns.min() > left.ap.mask.shape[1] / 2
    # On the film of one hip the pelvis's midline is beyond the left edge and the thigh's outer
    # side, where there is only air, to the right.
    single = grey(taken(None, 5, right=0.0).ap)
    assert single[:, :40].mean() > single[:, -40:].mean() + 0.1


@pytest.mark.parametrize("letter", ["R", "L"])
def test_the_side_letter_can_be_read_on_the_finished_film(letter, taken):
    side = {"right": 1.0 if letter == "R" else 0.0}
    with_letter, without = (taken(None, 8, 0.4, marker=chance, **side) for chance in (1.0, 0.0))
    found = np.clip(grey(with_letter.lateral) - grey(without.lateral), 0.0, 1.0)
    rows, columns = np.nonzero(found > 0.5 * found.max())
    seen = found[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] > 0.5 * found.max()

    def alike(text, flip):
        sheet = np.zeros((60, 60), np.uint8)
        cv2.putText(sheet, text, (10, 50), cv2.FONT_HERSHEY_SIMPLEX, 1.4, 255, 6, cv2.LINE_AA)
        x, y, width, height = cv2.boundingRect(sheet)
        model = sheet[y : y + height, x : x + width]
        model = cv2.resize(model[:, ::-1] if flip else model, seen.shape[::-1])
        return np.corrcoef(model.ravel() > 127, seen.ravel())[0, 1]

    assert alike(letter, False) > 0.6
    assert alike(letter, False) > alike(letter, True) + 0.15
    assert alike(letter, False) > alike("L" if letter == "R" else "R", False) + 0.15


@pytest.mark.xfail(
    reason="the letter is laid anywhere on the film, so half lie beside the other hip"
)
def test_on_a_pelvis_the_letter_lies_on_its_own_side(taken):
    for seed in (2, 3, 5, 8):
        both = {"right": 0.0, "bilateral_pelvis": 1.0}
        with_letter, without = (taken(None, seed, marker=chance, **both) for chance in (1.0, 0.0))
        found = np.clip(grey(with_letter.ap) - grey(without.ap), 0.0, 1.0)
        columns = np.nonzero(found > 0.5 * found.max())[1]
        assert columns.mean() > found.shape[1] / 2


def test_a_bilateral_pelvis_is_wide_and_shows_the_other_hip(taken):
    pelvis, replaced = (
        taken(None, 5, right=0.0, bilateral_pelvis=1.0, other_hip_replaced=chance)
        for chance in (0.0, 1.0)
    )
    rows, columns = pelvis.ap.stored.shape
    assert columns > 1.2 * rows
    assert pelvis.ap.laterality is Laterality.BOTH
    assert pelvis.laterality is pelvis.lateral.laterality is Laterality.LEFT
    assert (pelvis.ap.projection, pelvis.other_hip_replaced) == ("ap pelvis", False)
    assert replaced.other_hip_replaced
    lateral_rows, lateral_columns = pelvis.lateral.stored.shape
    assert lateral_rows > lateral_columns
    change = np.abs(grey(replaced.ap) - grey(pelvis.ap))
    other, own = change[:, : columns // 2], change[:, columns // 2 :]
    assert (other > 0.2).sum() * SPACING**2 > 2000.0  # a prosthesis where there was none
    assert (own > 0.2).sum() == 0


# Materials


@pytest.mark.parametrize("seed", [4, 6, 9])
def test_metal_is_the_brightest_thing_on_the_film(seed, taken):
    sound = taken(None, seed, right=0.0)
    scene = compose(None, seed)
    hardware = [e for e in scene.elements if e.material in METALS or e.displaces in METALS]
    for view in VIEWS:
        exposed = exposure_of(scene, seed, view)
        metal = attenuation(hardware, exposed)[1][1]
        levels = grey(sound.views[view])
        solid = levels[metal > 2.0]
        assert solid.size * SPACING**2 > 1000.0
        assert np.quantile(solid, 0.05) > np.quantile(levels[metal < 0.05], 0.98)


def test_cortex_is_brighter_than_the_canal_and_the_canal_than_the_skin(taken):
    sound = taken(None, 6, right=0.0, frog_leg=0.0)
    scene = compose(None, 6)
    patient, exposed = scene.patient, exposure_of(scene, 6, View.AP)
    z = np.linspace(-170.0, -190.0, 9) + patient.neck_level
    bow = -patient.bow * np.sin(np.pi * np.clip((patient.neck_level - z) / 300.0, 0, 1))

    def level(aside):
        points = np.column_stack([np.full(9, patient.offset + aside), bow, z])
        uv = exposed.beam.project(exposed.poses["femur"].apply(points)) / SPACING
        return grey(sound.ap)[uv[:, 1].astype(int), uv[:, 0].astype(int)].mean()

    wall = patient.shaft_radius * (1.0 - 0.45 * patient.cortex_fraction)
    assert level(wall) > level(0.0) + 0.02
    assert level(0.0) > level(patient.thigh_radius * 0.45) + 0.02


# Fractures, and what is known to be wrong


def fracture_seed(trochanter, start=0):
    for seed in range(start, start + 200):
        found = compose(Cause.PERIPROSTHETIC_FRACTURE, seed)
        if found.sign.fracture.trochanter is trochanter:
            return seed, found
    raise AssertionError("no such fracture")


@pytest.mark.parametrize("start", [8, 25])
def test_a_fractured_shaft_shows_within_its_mask_in_at_least_one_view(start, taken):
    seed, _ = fracture_seed(False, start)
    sound, broken = (taken(c, seed, 0.5) for c in (None, Cause.PERIPROSTHETIC_FRACTURE))
    darker = []
    for view in VIEWS:
        loss = grey(sound.views[view]) - grey(broken.views[view])
        darker.append(np.quantile(loss[broken.views[view].mask], 0.9))
    assert max(darker) > 0.02


def bone_across(seed, broken, through):
    """Attenuation by the femur's bone on the AP, across a fracture line at the point `through`."""
    exposed, normal = exposure_of(broken, seed, View.AP, 0.4), broken.sign.fracture.normal
    bone = [e for e in broken.elements if e.group == "femur" and e.material.is_bone]
    image = attenuation(bone, exposed)[0][0]
    points = through + np.arange(-6.0, 12.0, 0.4)[:, None] * normal
    uv = exposed.beam.project(exposed.poses["femur"].apply(points)) / 0.4
    return image[uv[:, 1].astype(int), uv[:, 0].astype(int)]


def test_a_broken_shaft_has_a_gap_without_bone():
    seed, broken = fracture_seed(False, 2)
    fracture, aside = broken.sign.fracture, np.array([0.8 * broken.patient.shaft_radius, 0.0, 0.0])
    wall = fracture.point + aside - (aside @ fracture.normal) * fracture.normal
    profile = bone_across(seed, broken, wall)
    assert profile.min() < 0.25 * np.median(profile)


@pytest.mark.xfail(reason="a broken greater trochanter slides over the femur and leaves no gap")
def test_a_broken_trochanter_has_a_gap_without_bone():
    seed, broken = fracture_seed(True)
    profile = bone_across(seed, broken, broken.sign.fracture.point)
    assert profile.min() < 0.25 * np.median(profile)


@pytest.mark.xfail(reason="the mask of a broken trochanter lies across the plane of its fracture")
def test_the_mask_of_a_fractured_trochanter_lies_in_the_plane_of_the_fracture():
    _, broken = fracture_seed(True)
    solid = broken.truth[0].solid
    longest = solid.axes[np.linalg.norm(solid.axes[[0, 2]], axis=1).argmax() * 2]
    assert abs(longest @ broken.sign.fracture.normal) / np.linalg.norm(longest) < 0.3


@pytest.mark.xfail(reason="a loose cup stays where it was; the head moves in its place")
def test_a_loose_cup_keeps_its_head_in_the_middle():
    for seed in range(20):
        loose = compose(Cause.ASEPTIC_LOOSENING, seed)
        exposed = exposure_of(loose, seed, View.AP)
        head = exposed.poses["femur"].apply(np.zeros(3))
        shells = [e.solid for e in loose.elements if getattr(e.solid, "planes", ())]
        cup = exposed.poses["pelvis"].apply(shells[0].centre)
        assert np.linalg.norm(head - cup) < 0.5, seed


# The table


def names_drawn():
    """Names given to draws(...) and draws.chance(...) in the package, by kind."""
    found = {"range": set(), "chance": set()}
    for path in (ROOT / "hipnet_edge" / "simulation").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and node.args):
                continue
            name = node.args[0].value if isinstance(node.args[0], ast.Constant) else None
            if isinstance(node.func, ast.Attribute) and node.func.attr == "chance":
                found["chance"].add(name)
            elif isinstance(node.func, ast.Name) and node.func.id in ("draws", "side"):
                found["range"].add(name)
    return found


def test_the_table_has_every_size_that_is_drawn_and_no_other():
    assert names_drawn() == {"range": set(TABLE), "chance": set(PROBABILITIES)}


def test_every_draw_lies_within_its_row():
    draws = Draws(1, 2)
    for name, row in TABLE.items():
        assert row.low < row.high
        assert row.meaning
        values = [draws(name) for _ in range(50)]
        assert row.low <= min(values) < max(values) <= row.high
    assert all(0.0 < chance < 1.0 for chance in PROBABILITIES.values())


def test_the_page_about_the_simulation_holds_the_table_as_it_is():
    page = (ROOT / "docs" / "simulation.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| ([-\d.]+) \| ([-\d.]+) \| (.+) \|$", page, re.MULTILINE)
    written = {name: (float(low), float(high), meaning) for name, low, high, meaning in rows}
    assert written == {name: (r.low, r.high, r.meaning) for name, r in TABLE.items()}
    chances = dict(re.findall(r"^\| `(\w+)` \| ([\d.]+) \|$", page, re.MULTILINE))
    assert {name: float(chance) for name, chance in chances.items()} == PROBABILITIES
