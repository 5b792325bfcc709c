"""The words a person reads: what a flag means, and the line that marks every result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hipnet_edge.vocabulary import Flag

if TYPE_CHECKING:
    from hipnet_edge.prediction import Prediction

RESEARCH_USE = "Simulated / research use. Not for clinical use."
"""Stands on every picture and under every printed result."""

FLAG_WORDS: dict[Flag, str] = {
    Flag.NO_IMPLANT: "No hip prosthesis was found: the whole frame was read.",
    Flag.BURNED_IN_ANNOTATION: "Text is burned into the pixels.",
    Flag.SATURATED: "A large part of the frame is at the end of its grey range.",
    Flag.COLLIMATION_CROPPED: "Collimation borders were left out.",
    Flag.ODD_ASPECT_RATIO: "The frame is unusually long or wide.",
    Flag.NO_PIXEL_SPACING: "No pixel spacing is stated: nothing can be said in millimetres.",
    Flag.CLIPPED_TO_SIDE: "Both hips are shown: the half of the named side was read.",
    Flag.OPERATOR_OVERRIDE: "The operator overruled or supplied what the header should say.",
    Flag.LOSSY_COMPRESSION: "The pixels went through lossy compression.",
    Flag.SIMULATED_INPUT: "The radiographs are simulated.",
    Flag.MODEL_TRAINED_ON_SIMULATION: "The model was trained on simulated studies.",
}
"""One short sentence for each flag; a test holds it complete."""
