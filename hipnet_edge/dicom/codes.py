"""Coded concepts of the objects: standard ones, and a scheme of our own for what has no sure code.

SNOMED CT surely has codes for some of the five causes. None is used here, as none could be looked
up in a release of it: a wrong code is worse than a private one with its definition.
"""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from hipnet_edge import __version__
from hipnet_edge.dicom.identifiers import derived_uid
from hipnet_edge.vocabulary import Cause, Flag, Laterality

SCHEME = "99HIPNET"
"""Our coding scheme; private ones begin with 99 (PS3.16 8.2)."""

HIP_JOINT = Code("24136001", "SCT", "Hip joint")
SIDES = {
    Laterality.LEFT: Code("7771000", "SCT", "Left"),
    Laterality.RIGHT: Code("24028007", "SCT", "Right"),
}
YES, NO = Code("373066001", "SCT", "Yes"), Code("373067005", "SCT", "No")
PLAIN_RADIOGRAPHY = Code("168537006", "SCT", "Plain radiography")
ABNORMAL_STRUCTURE = Code("49755003", "SCT", "Morphologically Abnormal Structure")
REPORT = Code("126000", "DCM", "Imaging Measurement Report")
PROBABILITY = Code("122157", "DCM", "Probability")
COMMENT = Code("121106", "DCM", "Comment")
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
ACQUISITION_EQUIPMENT = Code("109101", "DCM", "Acquisition Equipment")
PROCESSING_EQUIPMENT = Code("109102", "DCM", "Processing Equipment")
SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")
NO_UNITS = Code("1", "UCUM", "no units")

CAUSES = {
    Cause.PJI: Code("pji", SCHEME, Cause.PJI.label),
    Cause.ASEPTIC_LOOSENING: Code("loosening", SCHEME, Cause.ASEPTIC_LOOSENING.label),
    Cause.DISLOCATION: Code("dislocation", SCHEME, Cause.DISLOCATION.label),
    Cause.PERIPROSTHETIC_FRACTURE: Code("fracture", SCHEME, Cause.PERIPROSTHETIC_FRACTURE.label),
    Cause.POLYETHYLENE_WEAR: Code("wear", SCHEME, Cause.POLYETHYLENE_WEAR.label),
}
ARTHROPLASTY_FAILURE = Code("failure", SCHEME, "Failure of total hip arthroplasty")
PLAUSIBLE = Code("plausible", SCHEME, "Plausible cause")
PJI_RISK = Code("pji_risk", SCHEME, "Risk of periprosthetic joint infection")
DISAGREEMENT = Code("disagreement", SCHEME, "Disagreement of the four networks")
NOVELTY = Code("novelty", SCHEME, "Novelty of the study, usual is 1")
SIGN_OF_FAILURE = Code("sign_of_failure", SCHEME, "Probability of any sign of failure")
FLAG = Code("flag", SCHEME, "What to know about this result")


def of_flag(flag: Flag) -> Code:
    """A flag; its code value is its name in the JSON result, long ones are Long Code Values."""
    return Code(flag.value, SCHEME, flag.value.replace("_", " ").capitalize())


def item(code: Code) -> Dataset:
    """A code as the item of a code sequence."""
    dataset = Dataset()
    dataset.CodeValue = code.value
    dataset.CodingSchemeDesignator = code.scheme_designator
    dataset.CodeMeaning = code.meaning
    return dataset


def scheme_identification() -> Dataset:
    """An item of Coding Scheme Identification Sequence (0008,0110) that says whose scheme it is."""
    scheme = Dataset()
    scheme.CodingSchemeDesignator = SCHEME
    scheme.CodingSchemeUID = derived_uid("coding scheme", SCHEME)
    scheme.CodingSchemeName = "hipnet_edge: causes, measures and flags, see docs/dicom.md"
    scheme.CodingSchemeVersion = __version__
    scheme.CodingSchemeResponsibleOrganization = "The hipnet_edge maintainers"
    return scheme
