"""The film of a simulated study: sides, letters, metal, detectors, twins; the table."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from hipnet_edge.simulation import simulate_study
from hipnet_edge.simulation.detectors import Detector, Display, ScannedFilm
from hipnet_edge.simulation.dimensions import PROBABILITIES, TABLE, Chance, Draws, Site
from hipnet_edge.simulation.frame import Marker
from hipnet_edge.simulation.materials import Material
from hipnet_edge.simulation.radiography import attenuation, expose
from hipnet_edge.simulation.scene import FILM_STREAM, compose
from hipnet_edge.simulation.study import ERASED_MM, erased
from hipnet_edge.vocabulary import VIEWS, Cause, Laterality, View

ROOT = Path(__file__).parent.parent
SPACING = 0.8
METALS = (Material.TITANIUM, Material.COBALT_CHROME)
BARE = {
    "marker": 0.0,
    "collimated_side": 0.0,
    "cerclage": 0.0,
    "bilateral_pelvis": 0.0,
    "digitised_film": 0.0,
    "marker_frame": 0.0,
}


@pytest.fixture
def taken(monkeypatch):
    """Simulates a study with some probabilities of the table set."""

    def take(cause, seed, spacing=SPACING, site=Site.DEVELOPMENT, **chances):
        for name, chance in {**BARE, **chances}.items():
            monkeypatch.setitem(PROBABILITIES, name, Chance(chance, "as this test wants it"))
        return simulate_study(cause, seed, site=site, pixel_spacing_mm=spacing)

    return take


def grey(view):
    return view.stored / 16383.0


def exposure_of(scene, seed, view, spacing=SPACING):
    draws = Draws(scene.site, seed, FILM_STREAM, VIEWS.index(view))
    return expose(scene, view, draws, spacing)


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


@pytest.mark.parametrize("right", [0.0, 1.0], ids=["left", "right"])
def test_on_a_pelvis_the_letter_lies_on_its_own_side(right, taken):
    for seed in (2, 3, 5, 8):
        both = {"right": right, "bilateral_pelvis": 1.0}
        with_letter, without = (taken(None, seed, marker=chance, **both) for chance in (1.0, 0.0))
        found = np.clip(grey(with_letter.ap) - grey(without.ap), 0.0, 1.0)
        columns = np.nonzero(found > 0.5 * found.max())[1]
        towards_own_side = columns - found.shape[1] / 2
        assert (towards_own_side < 0).all() if right else (towards_own_side > 0).all()


@pytest.mark.parametrize("place", [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)])
@pytest.mark.parametrize("letter", ["R", "L"])
def test_a_letter_may_have_a_frame_and_stays_on_the_film(letter, place):
    shape, begins = (500, 400), 60.0
    areas = []
    for framed in (False, True):
        marker = Marker(*place, height=12.0, framed=framed)
        rows, columns, lead = marker.lay(letter, shape, 0.4, begins)
        assert lead.shape == (rows.stop - rows.start, columns.stop - columns.start)
        assert 0 <= rows.start < rows.stop <= shape[0]
        assert begins / 0.4 - 1 <= columns.start < columns.stop <= shape[1]
        assert lead.max() == pytest.approx(0.5)
        found = np.nonzero(lead > 0.25)
        part = lead[found[0].min() : found[0].max() + 1, found[1].min() : found[1].max() + 1] > 0.25
        sides = (part[0], part[-1], part[:, 0], part[:, -1])
        assert bool(min(side.mean() for side in sides) > 0.9) is framed
        areas.append((lead > 0.25).sum())
    assert areas[1] > areas[0] + 100


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


@pytest.mark.parametrize("right", [0.0, 1.0], ids=["left", "right"])
def test_the_knee_of_a_frog_leg_points_outwards(right, taken):
    for seed in (2, 3, 5):
        frog = taken(Cause.PERIPROSTHETIC_FRACTURE, seed, right=right, frog_leg=1.0)
        assert frog.lateral.projection == "frog-leg"
        assert list(frog.lateral.to_dataset().PatientOrientation) == ["L", "F"]
        scene = compose(Cause.PERIPROSTHETIC_FRACTURE, seed)
        pose = exposure_of(scene, seed, View.LATERAL).poses["femur"]
        front, down = pose.rotation @ [0.0, -1.0, 0.0], pose.rotation @ [0.0, 0.0, -1.0]
        assert front[0] > 0.8  # what looked forwards looks to the side, as the beam sees it
        assert down[0] > 0.25
        # Both sides reach the network alike: a right hip's film is the mirror of a left one's.
        mass = grey(frog.lateral)[int(0.6 * frog.lateral.stored.shape[0]) :]
        middle = (mass.sum(0) @ np.arange(mass.shape[1])) / mass.sum() / mass.shape[1]
        assert middle < 0.5 if right else middle > 0.5


def test_a_thigh_abducts_outwards():
    pushed = Draws(Site.DEVELOPMENT, 0)
    angles, leans = [], []
    for seed in range(12):
        scene = compose(None, seed)
        asked = []

        class Noted(Draws):
            def __call__(self, name, asked=asked):
                value = super().__call__(name)
                if name == "femur_abduction":
                    asked.append(value)
                return value

        pose = expose(scene, View.AP, Noted(pushed.site, seed, 9), SPACING).poses["femur"]
        angles.append(asked[0])
        leans.append((pose.rotation @ [0.0, 0.0, -1.0])[0])
    np.testing.assert_allclose(leans, np.sin(np.radians(angles)), atol=1e-9)


def test_the_sacrum_is_on_every_cross_table_film(monkeypatch):
    from hipnet_edge.simulation import anatomy, radiography

    for seed in range(12):
        scene = compose(None, seed)
        blocks = [e.solid.centre for e in anatomy.sacrum(scene.patient)]
        shown = [e for e in scene.elements if not radiography._far_side(e, scene)]
        centres = [e.solid.centre for e in shown if hasattr(e.solid, "centre")]
        for block in blocks:
            assert any(np.array_equal(block, centre) for centre in centres), seed


# Materials


@pytest.mark.parametrize("seed", [4, 6, 9])
def test_metal_is_the_brightest_thing_on_the_film(seed, taken):
    sound = taken(None, seed, right=0.0)
    scene = compose(None, seed)
    hardware = [e for e in scene.elements if e.material in METALS or e.displaces in METALS]
    for view in VIEWS:
        exposed = exposure_of(scene, seed, view)
        metal = attenuation(hardware, exposed)[0][1]
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


# Fractures and loose cups


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
    """Mineral of the femur's bone on the AP, across a fracture line at the point `through`."""
    exposed, normal = exposure_of(broken, seed, View.AP, 0.4), broken.sign.fracture.normal
    bone = [e for e in broken.elements if e.group == "femur" and e.material.is_bone]
    image = attenuation(bone, exposed)[1]
    points = through + np.arange(-6.0, 12.0, 0.4)[:, None] * normal
    uv = exposed.beam.project(exposed.poses["femur"].apply(points)) / 0.4
    return image[uv[:, 1].astype(int), uv[:, 0].astype(int)]


def test_a_broken_shaft_has_a_gap_that_lacks_bone():
    seed, broken = fracture_seed(False, 2)
    fracture, aside = broken.sign.fracture, np.array([0.8 * broken.patient.shaft_radius, 0.0, 0.0])
    wall = fracture.point + aside - (aside @ fracture.normal) * fracture.normal
    profile = bone_across(seed, broken, wall)
    assert profile.min() < 0.6 * np.median(profile)


def test_the_mask_of_a_fractured_trochanter_lies_in_the_plane_of_the_fracture():
    _, broken = fracture_seed(True)
    solid = broken.truth[0].solid
    longest = solid.axes[np.linalg.norm(solid.axes[[0, 2]], axis=1).argmax() * 2]
    assert abs(longest @ broken.sign.fracture.normal) / np.linalg.norm(longest) < 0.3


def test_a_loose_cup_keeps_its_head_in_the_middle():
    for seed in range(20):
        loose = compose(Cause.ASEPTIC_LOOSENING, seed)
        exposed = exposure_of(loose, seed, View.AP)
        head = exposed.poses["femur"].apply(np.zeros(3))
        shells = [e.solid for e in loose.elements if getattr(e.solid, "planes", ())]
        cup = exposed.poses["pelvis"].apply(shells[0].centre)
        assert np.linalg.norm(head - cup) < 0.5, seed


# Detectors


@pytest.fixture
def one_wall():
    """Attenuated beam behind 120 mm of soft tissue with a bar of bone, 0.16 mm pixels."""
    wall = np.full((400, 320), np.exp(-2.5), np.float32)
    wall[:, 140:180] *= np.float32(np.exp(-0.6))
    wall[:, 300:] = 1.0
    return wall


def detector(seed, site=Site.DEVELOPMENT):
    return Detector.draw(Draws(site, seed))


def whole(image):
    return tuple(slice(0, size) for size in image.shape)


def test_a_site_has_digital_and_digitised_films_and_several_tone_curves():
    for site in Site:
        drawn = [detector(seed, site) for seed in range(400)]
        films = [d for d in drawn if isinstance(d.processing, ScannedFilm)]
        displays = [d.processing for d in drawn if isinstance(d.processing, Display)]
        expected = PROBABILITIES["digitised_film"].at(site)
        assert len(films) / 400 == pytest.approx(expected, abs=0.08)
        assert {d.bend == 0.0 for d in displays} == {True, False}
        assert {d.grid is None for d in drawn} == {True, False}


def test_a_study_says_whether_its_films_are_digitised(taken):
    digital, film = (taken(None, 3, digitised_film=chance) for chance in (0.0, 1.0))
    assert (digital.digitised, film.digitised) == (False, True)
    assert not np.array_equal(digital.ap.stored, film.ap.stored)


def test_film_is_a_negative_with_a_toe_and_a_shoulder():
    film = ScannedFilm(2.5, 1.5, 0.0, 2.7, noise=0.0, streaks=0.0, dust=0.0)
    exposure = np.linspace(-6.0, 6.0, 1201)
    raw = np.repeat(exposure[None, :], 60, axis=0).astype(np.float32)
    shown = film.show(raw, 0.0, 0.16, np.random.default_rng(0))[30]
    density = 0.2 + (1.0 - shown) * 2.5
    assert np.all(np.diff(density) <= 1e-6)  # more attenuation, less exposure, less density
    assert density[600] == pytest.approx(1.5, abs=0.01)
    steepest = -np.gradient(density, exposure).min() * np.log(10.0)
    assert steepest == pytest.approx(2.5, rel=0.02)
    assert density[-1] == pytest.approx(0.2, abs=0.05)
    assert density[0] == pytest.approx(3.2, abs=0.05)


def test_film_has_streaks_along_columns_and_dust_which_a_display_has_not(one_wall):
    flat = np.full((600, 600), 2.0, np.float32)
    clean = ScannedFilm(2.5, 1.5, 0.0, 2.7, noise=0.005, streaks=0.0, dust=0.0)
    streaky = ScannedFilm(2.5, 1.5, 0.0, 2.7, noise=0.005, streaks=0.02, dust=0.0)
    dusty = ScannedFilm(2.5, 1.5, 0.0, 2.7, noise=0.0, streaks=0.0, dust=40.0)
    shown = {
        name: film.show(flat.copy(), 2.0, 0.16, np.random.default_rng(3))
        for name, film in (("clean", clean), ("streaky", streaky), ("dusty", dusty))
    }
    between = {name: image.mean(0).std() for name, image in shown.items()}
    assert between["streaky"] == pytest.approx(0.02 / 2.5, rel=0.2)
    assert between["clean"] < 0.1 * between["streaky"]
    rest = np.abs(shown["dusty"] - np.median(shown["dusty"])) > 0.02
    assert 10 < rest.sum() < 0.02 * rest.size


def test_noise_is_blurred_with_the_image_and_falls_with_photons(one_wall):
    from dataclasses import replace

    base = replace(detector(1), column_gain=1e-9, grid=None)
    straight = Display(0.0, 1.5, 0.0, 1.0, 1.0, 0.0)
    spread, likeness = {}, {}
    for photons in (400.0, 1600.0):
        one = replace(base, photons=photons, processing=straight)
        image = one.grey(one_wall, 0.16, whole(one_wall), np.random.default_rng(5))
        patch = image[100:300, 20:100]
        patch = patch - patch.mean(0)
        spread[photons] = patch.std()
        likeness[photons] = np.corrcoef(patch[:-1].ravel(), patch[1:].ravel())[0, 1]
    assert spread[400.0] / spread[1600.0] == pytest.approx(2.0, rel=0.1)
    assert min(likeness.values()) > 0.2


# Twins


@pytest.mark.parametrize("cause", list(Cause))
def test_a_twin_differs_from_its_study_only_around_the_truth_mask(cause):
    diseased, sound = (simulate_study(c, 7, pixel_spacing_mm=SPACING) for c in (cause, None))
    twin = erased(diseased, sound)
    assert twin.cause is None
    assert twin.severity == 0.0
    changed = 0
    for view in VIEWS:
        one, other, healthy = diseased.views[view], twin.views[view], sound.views[view]
        assert not other.mask.any()
        reach = 2 * int(np.ceil(ERASED_MM / SPACING)) + 1
        near = cv2.dilate(
            one.mask.astype(np.uint8),
            cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)),
        )
        assert np.array_equal(one.stored[near == 0], other.stored[near == 0])
        assert np.array_equal(other.stored[one.mask], healthy.stored[one.mask])
        changed += int((one.stored != other.stored).sum())
        # No seam: at the rim of what was changed the blend has faded out.
        rim = (near > 0) & (cv2.erode(near, np.ones((3, 3), np.uint8)) == 0)
        step = np.abs(one.stored[rim].astype(float) - other.stored[rim]) / 16383.0
        assert step.size == 0 or step.mean() < 0.01
    assert changed > 100


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


@pytest.mark.parametrize("site", Site)
def test_every_draw_lies_within_its_row(site):
    draws = Draws(site, 1, 2)
    for name, row in TABLE.items():
        low, high = row.at(site)
        assert low < high
        assert row.meaning
        values = [draws(name) for _ in range(50)]
        assert low <= min(values) < max(values) <= high
    assert all(0.0 < chance.at(site) < 1.0 and chance.meaning for chance in PROBABILITIES.values())


def test_the_page_about_the_simulation_holds_the_table_as_it_is():
    page = (ROOT / "docs" / "simulation.md").read_text()
    lines = re.findall(r"^\| `(\w+)` \|(.*)\|(.*)\|(.*)\|$", page, re.MULTILINE)
    ranges = {
        name: (
            f"{row.low:g} to {row.high:g}",
            "{:g} to {:g}".format(*row.shifted) if row.shifted else "",
            row.meaning,
        )
        for name, row in TABLE.items()
    }
    chances = {
        name: (
            f"{row.development:g}",
            "" if row.shifted is None else f"{row.shifted:g}",
            row.meaning,
        )
        for name, row in PROBABILITIES.items()
    }
    rows = [(name, *cells) for table in (ranges, chances) for name, cells in table.items()]
    assert [(name, *(cell.strip() for cell in cells)) for name, *cells in lines] == rows
