"""Which view, which side, is it a hip: the chain of evidence in a DICOM header.

Evidence is asked in order, and the first that speaks decides. What describes this one image is
strong: two strong pieces that contradict each other are refused, because a wrong view or side
gives a confident wrong answer. Descriptions of a series or a study are weak: many devices store
both views in one series named after the first, so they decide only where nothing strong speaks,
and nothing when they name two things. Markers burned into the pixels are never read.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Generic, TypeVar

from hipnet_edge.dicom_reader import items, text
from hipnet_edge.errors import InputRefused, Reason
from hipnet_edge.vocabulary import Laterality, View

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


class Anatomy(str, Enum):
    """Whether a radiograph shows a hip (hip, pelvis or femur)."""

    HIP = "hip"
    OTHER = "other"


T = TypeVar("T")
E = TypeVar("E", bound=Enum)


@dataclass(frozen=True)
class Finding(Generic[T]):
    """What was found, and what says so.

    Attributes:
        value: what was found; None when nothing says.
        source: the attribute that decided, such as "ViewPosition (0018,5101)", or "operator",
            or "argument position"; "none" when nothing says.
    """

    value: T | None
    source: str


class _Projection(Enum):
    """What a header can say of the projection; a view that is neither AP nor lateral exists."""

    AP = "ap"
    LATERAL = "lateral"
    OTHER = "other"


# SNOMED CT codes and their retired SNOMED RT forms (PS3.16 CID 4010, CID 4031, CID 244).
_PROJECTION_CODES = {
    **dict.fromkeys(("399348003", "R-10206"), _Projection.AP),
    # A hip taken from behind is rare and its shape the same: a frontal view is an AP.
    **dict.fromkeys(("272479007", "R-40888", "R-10214"), _Projection.AP),
    **dict.fromkeys(("399067008", "R-102CD"), _Projection.LATERAL),
    **dict.fromkeys(("399173006", "R-10236"), _Projection.LATERAL),  # left lateral
    **dict.fromkeys(("399198007", "R-10232"), _Projection.LATERAL),  # right lateral
    **dict.fromkeys(("399061009", "R-10241"), _Projection.LATERAL),  # axial
}
_SIDE_CODES = {
    **dict.fromkeys(("7771000", "G-A101"), Laterality.LEFT),
    **dict.fromkeys(("24028007", "G-A100"), Laterality.RIGHT),
    **dict.fromkeys(("51440002", "G-A102"), Laterality.BOTH),
}
_HIP_CODES = frozenset(
    (
        *("24136001", "T-15710", "29836001", "T-D2500"),  # hip joint, hip
        *("816092008", "12921003", "T-D6000"),  # pelvis, its older code
        *("71341001", "T-12710", "68367000", "T-D9100"),  # femur, thigh
    )
)
_SILENT_CODES = frozenset(
    # extremity, lower limb, bone of lower limb, pelvis and lower extremities
    ("66019005", "T-D0300", "61685007", "T-D9000", "72001000", "T-12700", "1231522001")
)
_PELVIS_CODES = frozenset(("816092008", "12921003", "T-D6000"))
_SNOMED = frozenset(("SCT", "SRT", "SNM3", "99SDM"))

# Patterns see upper-case ASCII words between single spaces (see `_normalised`).
_PROJECTION_WORDS = {
    _Projection.AP: re.compile(
        r"\b(A ?P|P ?A|(ANTERO|ANTERIO|POSTERO) ?(POSTERIOR|ANTERIOR)|FRONTAL|(DE )?FACE"
        r"|BECKENUE?BERSICHT)\d?\b"
    ),
    _Projection.LATERAL: re.compile(
        # BI-LAT and UNI-LATERAL name sides, not views
        r"(?<!\bBI )(?<!\bUNI )(?<!\bIPSI )(?<!\bCONTRA )"
        r"\b(LAT|LATERALE?|AX|AXIALE?|SEITL|SEITLICH|PROFIL|FALSE PROFILE|LAUENSTEIN|LOWENSTEIN"
        r"|LOEWENSTEIN|FROG|FROGLEG|DUNN|CROSS ?TABLE|X ?TABLE|XTL|SHOOT ?THROUGH|GROIN"
        r"|HORIZONTAL BEAM|DANELIUS|CLEAVES|SUGIOKA|TRANSLATERAL|MEDIOLATERAL|LATEROMEDIAL)\d?\b"
    ),
    _Projection.OTHER: re.compile(r"\b(OBLIQUE|OBL|JUDET|INLET|OUTLET|OBTURATOR|SCHRAEG|SCHRAG)\b"),
}
_LATERAL_POSITIONS = frozenset(("LL", "RL", "LLAT", "RLAT"))
_OBLIQUE_POSITIONS = frozenset(("LLO", "RLO", "LAO", "RAO", "LPO", "RPO"))
_SIDE_WORDS = {
    Laterality.LEFT: re.compile(r"\b(LEFT|LT|LINKS|LKS|GAUCHE)\b"),
    Laterality.RIGHT: re.compile(r"\b(RIGHT|RT|RECHTS|DROITE?)\b"),
    Laterality.BOTH: re.compile(r"\b(BILATERAL|BILAT|BI LAT(ERAL)?|BOTH|BEIDSEITS|BDS|BEIDE)\b"),
}
_SIDE_LETTERS = {
    Laterality.LEFT: re.compile(r"^L | (L|LI)$"),
    Laterality.RIGHT: re.compile(r"^R | (R|RE)$"),
}
_HIP_WORDS = re.compile(
    r"\b(HIPS?|HIPJOINT|PELVIS|PELVIC|FEMUR|FEMORAL|ACETABUL\w*|THIGH|UPPER ?LEG|THA|THR"
    r"|HUE?FT\w*|BECKEN\w*|OBERSCHENKEL|HANCHES?|BASSIN|COXA\w*)\b"
)
_OTHER_BODY_WORDS = re.compile(
    r"\b(CHEST|THORA\w*|LUNGS?|SKULL|SCHADEL|[CTL]? ?SPINE|LUMBAR|CERVICAL|ABDOM\w*|RIBS?|STERNUM"
    r"|CLAVICLE|SHOULDER|SCHULTER|SCAPULA|HUMERUS|ELBOW|FOREARM|RADIUS|ULNA|WRIST|HANDS?|FINGERS?"
    r"|THUMB|KNEES?|KNIE\w*|PATELLA|LOWER ?LEG|TIBIA\w*|FIBULA|ANKLE|FOOT|FEET|TOES?|HEEL"
    r"|CALCANEUS|BREAST|JAW|MANDIBLE|MAXILLA|TEETH|SINUS\w*|ORBITS?|COCCYX|WIRBEL\w*|GENOU)\b"
)
_OTHER_BODY_PARTS = frozenset(("HEAD", "NECK", "SPINE", "ARM", "WHOLEBODY", "SACRUM", "SSPINE"))
"""In Body Part Examined these are body parts; in a description they may belong to a hip's."""

_DESCRIPTION = "AcquisitionDeviceProcessingDescription"
_TAGS = {
    "ViewCodeSequence": "(0054,0220)",
    "ViewPosition": "(0018,5101)",
    _DESCRIPTION: "(0018,1400)",
    "SeriesDescription": "(0008,103E)",
    "ProtocolName": "(0018,1030)",
    "StudyDescription": "(0008,1030)",
    "ImageLaterality": "(0020,0062)",
    "Laterality": "(0020,0060)",
    "AnatomicRegionSequence": "(0008,2218)",
    "BodyPartExamined": "(0018,0015)",
}


def view_of(header: Dataset) -> Finding[View]:
    """The view that the header states.

    Raises:
        InputRefused: `CONFLICTING_VIEW` when strong evidence contradicts itself; `WRONG_VIEW`
            when the header states a projection that is neither AP nor lateral.
    """
    strong = [
        ("ViewCodeSequence", _coded_projection(header)),
        ("ViewPosition", _view_position(header)),
        (_DESCRIPTION, _projection_in(text(header, _DESCRIPTION))),
    ]
    speaking = [(value, _source(keyword)) for keyword, value in strong if value is not None]
    if len({value for value, _ in speaking}) > 1:
        raise InputRefused(
            Reason.CONFLICTING_VIEW, "Parts of the header contradict each other on the view."
        )
    found = speaking[0] if speaking else _weak(header, _projection_in)
    if found is None:
        return Finding(None, "none")
    projection, source = found
    if projection is _Projection.OTHER:
        raise InputRefused(
            Reason.WRONG_VIEW, "The header says that this view is neither AP nor lateral."
        )
    return Finding(View(projection.value), source)


def laterality_of(header: Dataset) -> Finding[Laterality]:
    """The side that the header states; unpaired (U) for a pelvis means both hips.

    Raises:
        InputRefused: `CONFLICTING_LATERALITY` when strong evidence says left and right.
    """
    strong = [
        ("ImageLaterality", _coded_side(header, "ImageLaterality")),
        ("Laterality", _coded_side(header, "Laterality")),
        ("AnatomicRegionSequence", _region_side(header)),
    ]
    # Both hips on an image of one hip's series is no contradiction: an AP pelvis for a left hip.
    sides = [side for _, side in strong]
    if Laterality.LEFT in sides and Laterality.RIGHT in sides:
        raise InputRefused(
            Reason.CONFLICTING_LATERALITY, "Parts of the header contradict each other on the side."
        )
    for keyword, side in strong:
        if side is not None:
            return Finding(side, _source(keyword))
    found = _weak(header, _side_in)
    return Finding(*found) if found else Finding(None, "none")


def anatomy_of(header: Dataset) -> Finding[Anatomy]:
    """Whether the header says hip or another body part; "EXTREMITY" and the like say neither.

    A header that names another body part in one place is not overruled by one that says hip in
    another: the value is `OTHER`.
    """
    strong = [
        ("AnatomicRegionSequence", _coded_region(header)),
        ("BodyPartExamined", _body_part(header)),
        (_DESCRIPTION, _body_part_in(text(header, _DESCRIPTION))),
    ]
    for wanted in (Anatomy.OTHER, Anatomy.HIP):
        for keyword, anatomy in strong:
            if anatomy is wanted:
                return Finding(anatomy, _source(keyword))
    found = _weak(header, _body_part_in)
    return Finding(*found) if found else Finding(None, "none")


def patient_left_of(header: Dataset) -> str:
    """The image side that shows the patient's left: "right" as is customary, or "left".

    Source: the row direction in Patient Orientation (0020,0020), PS3.3 C.7.6.1.1.1.
    """
    return "left" if text(header, "PatientOrientation").upper().startswith("R") else "right"


def _source(keyword: str) -> str:
    return f"{keyword} {_TAGS[keyword]}"


def _weak(header: Dataset, read: Callable[[str], E | None]) -> tuple[E, str] | None:
    """What series and protocol say if they agree, else the study when they are silent."""
    for level in (("SeriesDescription", "ProtocolName"), ("StudyDescription",)):
        speaking = [
            (value, _source(keyword))
            for keyword in level
            if (value := read(text(header, keyword))) is not None
        ]
        if speaking:
            return speaking[0] if len({value for value, _ in speaking}) == 1 else None
    return None


def _normalised(words: str) -> str:
    """Upper-case ASCII words between single spaces: no accents, punctuation or underscores."""
    plain = unicodedata.normalize("NFKD", words[:1024]).encode("ascii", "ignore").decode().upper()
    return " ".join(re.findall(r"[A-Z0-9]+", plain))


def _only(table: dict[E, re.Pattern[str]], words: str) -> E | None:
    """The one entry whose pattern occurs; None when none or several do."""
    found = [value for value, pattern in table.items() if pattern.search(words)]
    return found[0] if len(found) == 1 else None


def _projection_in(words: str) -> _Projection | None:
    return _only(_PROJECTION_WORDS, _normalised(words))


def _side_in(words: str) -> Laterality | None:
    """A side named in words; a single letter counts only at either end of a text about a hip."""
    plain = _normalised(words)
    named = any(pattern.search(plain) for pattern in _SIDE_WORDS.values())
    if named or not _HIP_WORDS.search(plain):
        return _only(_SIDE_WORDS, plain)
    return _only(_SIDE_LETTERS, plain)


def _body_part_in(words: str) -> Anatomy | None:
    plain = _normalised(words)
    hip, other = bool(_HIP_WORDS.search(plain)), bool(_OTHER_BODY_WORDS.search(plain))
    if hip == other:
        return None
    return Anatomy.HIP if hip else Anatomy.OTHER


def _codes(header: Dataset, keyword: str) -> Iterator[tuple[str, str, str]]:
    """Value, scheme and meaning of every coded item."""
    for item in items(header, keyword):
        scheme = text(item, "CodingSchemeDesignator").upper()
        yield text(item, "CodeValue"), scheme, text(item, "CodeMeaning")


def _coded_projection(header: Dataset) -> _Projection | None:
    for value, _, meaning in _codes(header, "ViewCodeSequence"):
        return _PROJECTION_CODES.get(value) or _projection_in(meaning)
    return None


def _view_position(header: Dataset) -> _Projection | None:
    position = text(header, "ViewPosition").upper()
    if position in _LATERAL_POSITIONS:
        return _Projection.LATERAL
    if position in _OBLIQUE_POSITIONS:
        return _Projection.OTHER
    return _projection_in(position)


def _coded_side(header: Dataset, keyword: str) -> Laterality | None:
    letter = text(header, keyword).upper()
    if letter == "U" and (
        "PELVIS" in text(header, "BodyPartExamined").upper()
        or any(code in _PELVIS_CODES for code, _, _ in _codes(header, "AnatomicRegionSequence"))
    ):
        return Laterality.BOTH
    return {"L": Laterality.LEFT, "R": Laterality.RIGHT, "B": Laterality.BOTH}.get(letter)


def _region_side(header: Dataset) -> Laterality | None:
    for region in items(header, "AnatomicRegionSequence"):
        for value, _, _ in _codes(region, "AnatomicRegionModifierSequence"):
            if value in _SIDE_CODES:
                return _SIDE_CODES[value]
    return None


def _coded_region(header: Dataset) -> Anatomy | None:
    for value, scheme, meaning in _codes(header, "AnatomicRegionSequence"):
        if value in _HIP_CODES:
            return Anatomy.HIP
        if value in _SILENT_CODES:
            return None
        named = _body_part_in(meaning)
        # Another code of a vocabulary made for body parts is another body part.
        return named or (Anatomy.OTHER if scheme in _SNOMED else None)
    return None


def _body_part(header: Dataset) -> Anatomy | None:
    part = text(header, "BodyPartExamined")
    return Anatomy.OTHER if part.upper() in _OTHER_BODY_PARTS else _body_part_in(part)
