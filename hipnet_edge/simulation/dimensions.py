"""The one table of sizes, densities and habits from which every simulated study is drawn.

Lengths are millimetres, angles degrees, probabilities fractions; each row is a uniform range. The
figures are textbook orders of magnitude for adult hips and common prostheses, rounded by us; they
are inputs of the simulation and no measurement of any population.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Range:
    """A uniform range and what it is the size of."""

    low: float
    high: float
    meaning: str


TABLE: dict[str, Range] = {
    # Femur (after resection of the neck)
    "femoral_offset": Range(36, 50, "head centre to shaft axis, in the coronal plane"),
    "femur_shaft_radius": Range(13.0, 16.5, "outer radius of the diaphysis"),
    "cortex_fraction": Range(0.38, 0.56, "cortical thickness over outer radius, sound bone"),
    "osteoporosis": Range(0.0, 0.35, "fraction of cortex and trabecular density lost"),
    "femur_flare": Range(1.45, 1.75, "metaphyseal over diaphyseal outer radius, medially"),
    "femur_bow": Range(4, 12, "anterior bow of the shaft over 300 mm"),
    # Prosthesis
    "stem_length": Range(105, 155, "shoulder to tip"),
    "stem_tip_radius": Range(4.0, 5.5, "radius just above the rounded tip"),
    "stem_width_top": Range(10, 14, "medial half-width of the stem at the neck"),
    "stem_lateral_top": Range(6, 8, "lateral half-width of the stem at the neck"),
    "stem_depth": Range(5.5, 8.0, "antero-posterior half-depth of the stem at the neck"),
    "neck_radius": Range(5.0, 6.5, "radius of the prosthetic neck"),
    "neck_angle": Range(36, 44, "prosthetic neck below the horizontal"),
    "head_radius": Range(11, 18, "prosthetic head, 22 to 36 mm in diameter"),
    "liner_thickness": Range(6.5, 9.5, "polyethylene between head and shell"),
    "shell_thickness": Range(3.0, 4.5, "metal shell of the cup"),
    "cup_inclination": Range(36, 52, "opening plane against the horizontal"),
    "cup_anteversion": Range(8, 25, "opening plane turned forward"),
    "cement_mantle": Range(2.0, 4.0, "cement between stem and bone, cemented stems"),
    "screw_length": Range(20, 40, "acetabular screws"),
    "wire_radius": Range(0.7, 1.0, "cerclage wire"),
    "stable_lucency": Range(0.4, 1.2, "thin lucency of stable fibrous fixation, not a disease"),
    # Soft tissue
    "thigh_radius": Range(72, 98, "thigh around the femur"),
    "trunk_half_depth": Range(85, 120, "antero-posterior half-depth of the pelvis"),
    "obesity": Range(0, 45, "added to every soft-tissue radius"),
    "hip_to_midline": Range(84, 96, "hip centre to the midline of the pelvis"),
    # Signs of failure
    "loosening_width": Range(2.1, 4.5, "continuous lucent line at the interface"),
    "loosening_extent": Range(0.6, 1.0, "fraction of the stem's length that is lined"),
    "sclerotic_line": Range(0.7, 1.3, "sclerotic border of the lucent line"),
    "loosening_tilt": Range(0, 3.5, "degrees of stem tilt in the canal"),
    "loosening_subsidence": Range(0, 10, "stem sunk into the femur"),
    "infection_width": Range(3.0, 8.0, "largest width of the irregular osteolysis"),
    "periosteal_thickness": Range(0.7, 1.2, "one lamella of periosteal new bone"),
    "periosteal_gap": Range(0.9, 1.7, "lucent space under a lamella"),
    "periosteal_length": Range(40, 95, "extent of periosteal new bone along the shaft"),
    "swelling": Range(4, 16, "soft-tissue swelling"),
    "dislocation_distance": Range(22, 48, "head centre from cup centre"),
    "fracture_gap": Range(1.0, 4.5, "width of the fracture line"),
    "fracture_step": Range(0.5, 7.0, "displacement of the fragment"),
    "fracture_angulation": Range(0, 7, "degrees between the fragments"),
    "fracture_obliquity": Range(5, 35, "degrees of the fracture plane against the transverse"),
    "wear_distance": Range(2.0, 6.0, "head centre from the liner's centre"),
    "wear_osteolysis": Range(7, 15, "radius of pelvic osteolysis with advanced wear"),
    # Acquisition
    "source_to_detector": Range(1050, 1200, "focal spot to detector"),
    "object_to_detector_ap": Range(70, 150, "hip centre to detector, AP"),
    "object_to_detector_lateral": Range(110, 220, "hip centre to detector, lateral"),
    "femur_rotation": Range(-12, 12, "rotation of the thigh about its axis"),
    "femur_abduction": Range(-6, 8, "abduction in the coronal plane, AP"),
    "frog_abduction": Range(18, 35, "abduction of a frog-leg lateral"),
    "photons": Range(900, 3500, "photons behind the patient in a 0.16 mm pixel"),
    "scatter": Range(0.12, 0.35, "scatter over primary behind the grid"),
    "blur": Range(0.10, 0.20, "standard deviation of detector and focal-spot blur"),
    "edge_enhancement": Range(0.1, 0.6, "unsharp masking of the display processing"),
    "range_compression": Range(0.55, 0.8, "part of the slow density changes taken away"),
    "window_below": Range(0.8, 1.3, "log exposure shown below the body's median"),
    "window_above": Range(1.4, 2.3, "log exposure shown above the body's median"),
    "collimation": Range(0.02, 0.14, "fraction of the frame covered on a collimated side"),
    "decentring": Range(-14, 14, "shift of the hip from its usual place on the film"),
}

PROBABILITIES: dict[str, float] = {
    "cemented": 0.4,
    "cobalt_chrome_stem": 0.4,
    "screws": 0.45,
    "cerclage": 0.2,
    "stable_lucency": 0.35,
    "bilateral_pelvis": 0.3,
    "other_hip_replaced": 0.25,
    "frog_leg": 0.5,
    "collimated_side": 0.5,
    "white_collimation": 0.15,
    "marker": 0.85,
    "monochrome1": 0.3,
    "periosteal_new_bone": 0.8,
    "gas": 0.2,
    "cup_loosening": 0.4,
    "pedestal": 0.4,
    "trochanter_fracture": 0.2,
    "fracture_below_stem": 0.3,
    "posterior_superior_dislocation": 0.8,
    "right": 0.5,
}


class Draws:
    """Named draws from `TABLE` and `PROBABILITIES` with one random stream."""

    def __init__(self, *seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def __call__(self, name: str) -> float:
        """A value of the named range."""
        row = TABLE[name]
        return float(self.rng.uniform(row.low, row.high))

    def chance(self, name: str) -> bool:
        """Whether the named habit or finding is present."""
        return bool(self.rng.random() < PROBABILITIES[name])
