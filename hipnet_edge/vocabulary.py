"""The field's terms as enumerations: cause, view, laterality, and the flags a result can carry."""

from __future__ import annotations

from enum import Enum


class Cause(str, Enum):
    """A cause of total-hip-arthroplasty failure, in the order used everywhere.

    Source: the five causes of Hip-Net (Wu et al., JBJS 2025, doi 10.2106/JBJS.24.01601).
    """

    PJI = "pji"
    ASEPTIC_LOOSENING = "aseptic_loosening"
    DISLOCATION = "dislocation"
    PERIPROSTHETIC_FRACTURE = "periprosthetic_fracture"
    POLYETHYLENE_WEAR = "polyethylene_wear"

    @property
    def label(self) -> str:
        """The words a person reads."""
        return _CAUSE_LABELS[self]


_CAUSE_LABELS = {
    Cause.PJI: "Periprosthetic joint infection",
    Cause.ASEPTIC_LOOSENING: "Aseptic loosening",
    Cause.DISLOCATION: "Dislocation",
    Cause.PERIPROSTHETIC_FRACTURE: "Periprosthetic fracture",
    Cause.POLYETHYLENE_WEAR: "Polyethylene wear",
}

CAUSES: tuple[Cause, ...] = tuple(Cause)
"""The five causes in channel order: index i of every probability vector and map stack."""


class View(str, Enum):
    """A radiographic projection; index 0 of the network's view axis is AP, 1 lateral."""

    AP = "ap"
    LATERAL = "lateral"

    @property
    def label(self) -> str:
        """The words a person reads."""
        return "AP" if self is View.AP else "Lateral"


VIEWS: tuple[View, ...] = tuple(View)


class Laterality(str, Enum):
    """Which hip a radiograph shows (DICOM's L, R and B)."""

    LEFT = "left"
    RIGHT = "right"
    BOTH = "both"

    @property
    def dicom(self) -> str:
        """The code value of Image Laterality (0020,0062)."""
        return {"left": "L", "right": "R", "both": "B"}[self.value]


class Flag(str, Enum):
    """What a result's reader should know about its inputs; findings, never silent fixes."""

    NO_IMPLANT = "no_implant"
    """No hip prosthesis was found; the whole frame was used instead of a crop."""
    OUT_OF_DISTRIBUTION = "out_of_distribution"
    """The radiographs are unlike those the model was fitted to; its answer means little."""
    NO_SIGN_OF_FAILURE = "no_sign_of_failure"
    """The maps show no sign of any cause; the probabilities assume that the prosthesis failed."""
    BURNED_IN_ANNOTATION = "burned_in_annotation"
    """The header says that text is burned into the pixels."""
    SATURATED = "saturated"
    """A large part of the frame sits at the end of its grey range."""
    COLLIMATION_CROPPED = "collimation_cropped"
    """Uniform collimation borders were found and left out."""
    ODD_ASPECT_RATIO = "odd_aspect_ratio"
    """The frame is more than three times as long as wide, or the reverse."""
    NO_PIXEL_SPACING = "no_pixel_spacing"
    """The radiograph states no pixel spacing: nothing in millimetres can be said of it."""
    CLIPPED_TO_SIDE = "clipped_to_side"
    """Both hips are shown; the half of the named side was used."""
    OPERATOR_OVERRIDE = "operator_override"
    """The operator overruled or supplied what the header should say; see provenance."""
    LOSSY_COMPRESSION = "lossy_compression"
    """The pixels went through lossy compression."""
    SIMULATED_INPUT = "simulated_input"
    """The radiograph says of itself that it is simulated."""
    NOT_CALIBRATED = "not_calibrated"
    """The bundle lacks calibration: plausible causes, novelty or sign of failure are not given."""
    MODEL_TRAINED_ON_SIMULATION = "model_trained_on_simulation"
    """The bundle was trained on simulated studies; it must not inform care."""
    NOT_GATED = "not_gated"
    """No passed verdict of the gate covers this variant on this engine and device."""
    CPU_FALLBACK = "cpu_fallback"
    """An engine on the GPU that passed the gate here could not be used; the CPU answered."""
    ENGINE_FALLBACK = "engine_fallback"
    """A cart's pinned bundle, engine or variant could not be had; another answered, as allowed."""
    UNPROVEN_ENGINE = "unproven_engine"
    """No GPU has yet run this version's code for it; check its answers before use."""
