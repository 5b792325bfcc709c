"""The one table of sizes, densities and habits from which every simulated study is drawn.

Lengths are millimetres, angles degrees, probabilities fractions; each row is a uniform range. The
figures are textbook orders of magnitude for adult hips and common prostheses, rounded by us; they
are inputs of the simulation and no measurement of any population. A row may differ at the shifted
site, where implants, patients and films are others than those a model is developed on.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from ..vocabulary import Cause


class Site(Enum):
    """Where a simulated study is taken: where models are developed, or another hospital."""

    DEVELOPMENT = "development"
    SHIFTED = "shifted"


@dataclass(frozen=True)
class Range:
    """A uniform range and what it is the size of; `shifted` where the other site has another."""

    low: float
    high: float
    meaning: str
    shifted: tuple[float, float] | None = None

    def at(self, site: Site) -> tuple[float, float]:
        """Low and high at a site."""
        return self.shifted if site is Site.SHIFTED and self.shifted else (self.low, self.high)


@dataclass(frozen=True)
class Chance:
    """How often a habit or finding is present; `shifted` where the other site differs."""

    development: float
    meaning: str
    shifted: float | None = None

    def at(self, site: Site) -> float:
        """The probability at a site."""
        other = site is Site.SHIFTED and self.shifted is not None
        return float(self.shifted if other else self.development)  # type: ignore[arg-type]


TABLE: dict[str, Range] = {
    # Femur (after resection of the neck)
    "femoral_offset": Range(36, 50, "head centre to shaft axis, in the coronal plane"),
    "femur_shaft_radius": Range(13.0, 16.5, "outer radius of the diaphysis"),
    "cortex_fraction": Range(0.38, 0.56, "cortical thickness over outer radius, sound bone"),
    "osteoporosis": Range(0.0, 0.35, "part of cortex and trabecular density lost", (0.1, 0.42)),
    "femur_flare": Range(1.45, 1.75, "metaphyseal over diaphyseal outer radius, medially"),
    "femur_bow": Range(4, 12, "anterior bow of the shaft over 300 mm"),
    # Prosthesis; which stem and cup, and what each makes of these sizes: see the catalogues
    "stem_length": Range(105, 155, "shoulder to tip, primary stems"),
    "long_stem_length": Range(165, 190, "shoulder to tip, revision stems"),
    "short_stem_length": Range(75, 100, "shoulder to tip, short stems"),
    "stem_tip_radius": Range(4.0, 5.5, "radius just above the rounded tip"),
    "stem_width_top": Range(10, 14, "medial half-width of the stem at the neck"),
    "stem_lateral_top": Range(6, 8, "lateral half-width of the stem at the neck"),
    "stem_depth": Range(5.5, 8.0, "antero-posterior half-depth of the stem at the neck"),
    "press_fit_gap": Range(0.1, 1.0, "between a cementless stem and the cortex it stands in"),
    "neck_radius": Range(5.0, 6.5, "radius of the prosthetic neck"),
    "neck_angle": Range(36, 44, "prosthetic neck below the horizontal"),
    "head_radius": Range(11, 18, "prosthetic head, 22 to 36 mm in diameter"),
    "liner_thickness": Range(6.5, 9.5, "polyethylene between head and shell"),
    "shell_thickness": Range(3.0, 4.5, "metal shell of the cup"),
    "cup_inclination": Range(36, 52, "opening plane against the horizontal"),
    "cup_anteversion": Range(8, 25, "opening plane turned forward"),
    "cement_mantle": Range(2.0, 4.0, "cement around a cemented stem or cup"),
    "cement_plug": Range(6, 18, "cement below the tip of a cemented stem"),
    "screw_length": Range(20, 40, "acetabular screws"),
    "wire_radius": Range(0.7, 1.0, "cerclage wire"),
    # Not disease
    "stable_lucency": Range(0.4, 1.4, "thin lucency of stable fibrous fixation, not a disease"),
    "bedding_in": Range(0.0, 0.5, "eccentricity of the head in a cup that is not worn"),
    "heterotopic_size": Range(3, 9, "half-axes of islands of heterotopic bone"),
    "calcification_size": Range(2, 6, "half-length of plaques along the femoral artery"),
    "thigh_swelling": Range(2, 12, "swelling of the thigh that is no infection (haematoma)"),
    # Soft tissue
    "thigh_radius": Range(72, 98, "thigh around the femur"),
    "trunk_half_depth": Range(85, 120, "antero-posterior half-depth of the pelvis"),
    "obesity": Range(0, 45, "added to every soft-tissue radius", (0, 55)),
    "hip_to_midline": Range(84, 96, "hip centre to the midline of the pelvis"),
    # Signs of failure
    "loosening_width": Range(1.6, 5.0, "continuous lucent line at the interface"),
    "loosening_extent": Range(0.6, 1.0, "fraction of the stem's length that is lined"),
    "sclerotic_line": Range(0.7, 1.3, "sclerotic border of the lucent line"),
    "loosening_tilt": Range(0, 3.5, "degrees of stem tilt in the canal"),
    "loosening_subsidence": Range(0, 10, "stem sunk into the femur"),
    "cup_migration": Range(0, 4, "a loose cup moved upwards and medially"),
    "infection_severity": Range(0, 1, "latent severity: the mean of two such draws"),
    "infection_scatter": Range(-0.2, 0.2, "added to the severity for each sign of infection"),
    "infection_width": Range(2.5, 8.0, "largest width of the irregular osteolysis"),
    "infection_bites": Range(2, 9, "bites out of the endosteum"),
    "infection_bite_length": Range(5, 12, "half-length of a bite along the shaft"),
    "periosteal_reaction": Range(0.8, 5.0, "outer face of periosteal new bone off the cortex"),
    "periosteal_gap": Range(0.45, 0.6, "lucent part of a lamella's distance to the next"),
    "periosteal_length": Range(40, 95, "extent of periosteal new bone along the shaft"),
    "swelling": Range(0, 6, "soft tissue of the thigh swollen by an infection"),
    "dislocation_distance": Range(22, 48, "head centre from cup centre"),
    "fracture_gap": Range(1.0, 5.0, "width of the fracture line"),
    "fracture_step": Range(0.0, 7.0, "displacement of the fragment along the fracture"),
    "fracture_angulation": Range(0, 7, "degrees between the fragments"),
    "fracture_obliquity": Range(5, 35, "degrees of the fracture plane against the transverse"),
    "wear_distance": Range(1.5, 6.0, "head centre from the liner's centre"),
    "wear_osteolysis": Range(7, 15, "radius of pelvic osteolysis with advanced wear"),
    # Acquisition
    "source_to_detector": Range(1050, 1200, "focal spot to detector", (980, 1150)),
    "object_to_detector_ap": Range(70, 150, "hip centre to detector, AP"),
    "object_to_detector_lateral": Range(110, 220, "hip centre to detector, lateral"),
    "femur_rotation": Range(-12, 12, "rotation of the thigh about its axis"),
    "femur_abduction": Range(-6, 8, "abduction in the coronal plane, AP"),
    "frog_abduction": Range(18, 35, "abduction of a frog-leg lateral"),
    "frog_turn": Range(70, 84, "external rotation of a frog-leg lateral"),
    "pelvic_turn": Range(-6, 6, "pelvis turned about the long axis, laterals"),
    "pelvic_tilt": Range(-8, 8, "pelvis tilted forwards, laterals"),
    "cross_table_tilt": Range(-6, 6, "thigh raised, cross-table lateral"),
    "decentring": Range(-14, 14, "shift of the hip from its usual place on the film", (-18, 18)),
    "collimation": Range(0.02, 0.14, "part of the frame covered on a side", (0.02, 0.18)),
    "marker_across": Range(0.2, 1.0, "place of the letter, midline to edge of the film"),
    "marker_down": Range(0.1, 0.92, "place of the letter, top to bottom of the film"),
    "marker_height": Range(10, 14, "height of the letter", (8, 16)),
    "photons": Range(450, 1750, "detected behind the patient in a 0.16 mm pixel", (300, 1300)),
    "scatter": Range(0.12, 0.35, "scatter over primary behind the grid", (0.2, 0.5)),
    "blur": Range(0.10, 0.20, "standard deviation of detector and focal spot", (0.12, 0.26)),
    "column_gain": Range(0.0005, 0.002, "standard deviation of column gains", (0.001, 0.004)),
    "grid_pitch": Range(0.6, 2.5, "distance between residual lines of the grid"),
    "grid_depth": Range(0.002, 0.008, "modulation by residual lines of the grid"),
    "edge_enhancement": Range(0.1, 0.6, "unsharp masking of the display", (0.2, 0.9)),
    "edge_radius": Range(1.2, 2.0, "scale of the unsharp masking", (0.8, 3.0)),
    "range_compression": Range(0.55, 0.8, "part of slow changes taken away", (0.4, 0.85)),
    "window_below": Range(1.0, 1.7, "log exposure shown below the median", (0.8, 1.9)),
    "window_above": Range(1.4, 2.1, "log exposure shown above the median", (1.3, 2.5)),
    "tone_bend": Range(2.6, 4.2, "steepness of a sigmoid tone curve", (2.2, 5.0)),
    "film_gradient": Range(2.2, 3.0, "density per decade of exposure, digitised film"),
    "film_place": Range(1.3, 1.8, "density behind the patient's median, digitised film"),
    "film_evened": Range(0.35, 0.6, "part of slow changes that a wedge in the beam takes away"),
    "scanner_maximum": Range(2.0, 2.7, "highest density that the scanner tells apart"),
    "scanner_noise": Range(0.004, 0.012, "standard deviation of density in a 0.16 mm pixel"),
    "scanner_streaks": Range(0.002, 0.008, "standard deviation of density between columns"),
    "dust": Range(0.5, 5.0, "specks and fibres in a hundred square centimetres"),
}

PROBABILITIES: dict[str, Chance] = {
    # Patient and prosthesis
    "right": Chance(0.5, "the hip in question is the right one"),
    "cobalt_chrome_stem": Chance(0.4, "the stem is cobalt-chrome, not titanium"),
    "ceramic_head": Chance(0.3, "the head is ceramic, not cobalt-chrome", 0.5),
    "screws": Chance(0.5, "a cup that can be screwed is", 0.6),
    "other_hip_replaced": Chance(0.25, "the other hip of a bilateral pelvis is replaced too"),
    # Not disease
    "cerclage": Chance(0.2, "wires around the shaft", 0.25),
    "stable_lucency": Chance(0.35, "a thin lucency of stable fibrous fixation", 0.45),
    "heterotopic_bone": Chance(0.2, "islands of bone between trochanter and ilium", 0.3),
    "vascular_calcification": Chance(0.15, "plaques along the femoral artery", 0.3),
    "thigh_swelling": Chance(0.5, "a thigh swollen for other reasons than infection"),
    # Signs of failure
    "periosteal_new_bone": Chance(0.85, "infection with periosteal new bone"),
    "gas": Chance(0.35, "times severity: infection with gas in the soft tissue"),
    "cup_loosening": Chance(0.4, "the cup is loose as well as the stem"),
    "pedestal": Chance(0.4, "a pedestal of bone under the tip of a loose stem"),
    "trochanter_fracture": Chance(0.2, "the fracture is of the greater trochanter (Vancouver A)"),
    "fracture_below_stem": Chance(0.3, "a fracture of the shaft is below the stem (Vancouver C)"),
    "posterior_superior_dislocation": Chance(0.8, "else the dislocation is anterior-inferior"),
    # Acquisition
    "bilateral_pelvis": Chance(0.3, "the AP is a film of the whole pelvis"),
    "frog_leg": Chance(0.5, "the lateral is a frog-leg, else cross-table"),
    "collimated_side": Chance(0.5, "for each side: the collimator is closed over it", 0.65),
    "white_collimation": Chance(0.15, "collimated borders are shown white", 0.4),
    "marker": Chance(0.85, "a lead letter for the side"),
    "marker_frame": Chance(0.3, "the letter has a frame around it", 0.6),
    "digitised_film": Chance(0.1, "both views are digitised film", 0.25),
    "linear_tone": Chance(0.2, "grey is linear in log exposure, not a sigmoid", 0.45),
    "grid_lines": Chance(0.05, "the grid leaves lines", 0.3),
    "monochrome1": Chance(0.3, "stored as MONOCHROME1"),
}


PREVALENCE: dict[Cause, Chance] = {
    Cause.PJI: Chance(0.2, "share of infection", 0.18),
    Cause.ASEPTIC_LOOSENING: Chance(0.2, "share of aseptic loosening", 0.3),
    Cause.DISLOCATION: Chance(0.2, "share of dislocation", 0.17),
    Cause.PERIPROSTHETIC_FRACTURE: Chance(0.2, "share of periprosthetic fracture", 0.15),
    Cause.POLYETHYLENE_WEAR: Chance(0.2, "share of polyethylene wear", 0.2),
}
"""How common each cause is at a site; it moves nothing but how many are simulated."""

SOUND = Chance(0.15, "sound prostheses among all studies", 0.12)


def severity_of(name: str, size: float) -> float:
    """Where a size lies in its row of the table, 0 to 1."""
    row = TABLE[name]
    return float(np.clip((size - row.low) / (row.high - row.low), 0.0, 1.0))


class Draws:
    """Named draws from `TABLE` and `PROBABILITIES` with one random stream of one site."""

    def __init__(self, site: Site, *seed: int) -> None:
        self.site = site
        self.rng = np.random.default_rng((list(Site).index(site), *seed))

    def __call__(self, name: str, share: float | None = None) -> float:
        """A value of the named range: drawn, or at `share` of it, 0 to 1."""
        low, high = TABLE[name].at(self.site)
        return float(low + (self.rng.random() if share is None else share) * (high - low))

    def chance(self, name: str, times: float = 1.0) -> bool:
        """Whether the named habit or finding is present, with `times` its probability."""
        return bool(self.rng.random() < times * PROBABILITIES[name].at(self.site))
