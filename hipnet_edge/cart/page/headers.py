"""What the page reads of stored DICOM objects: whose study it is, and what a report says.

Both are read when somebody opens a study and go to that browser alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_PATIENT = {"name": "PatientName", "id": "PatientID", "birth_date": "PatientBirthDate"}
_DEEPEST = 12


def patient_of(content: bytes) -> dict[str, str] | None:
    """Name, id and birth date in a DICOM file; None where its header cannot be read."""
    from pydicom import dcmread

    tags = ["SpecificCharacterSet", *_PATIENT.values()]
    # pydicom raises nearly anything on damaged headers; no text of theirs may leave from here.
    try:
        header = dcmread(BytesIO(content), stop_before_pixels=True, specific_tags=tags)
        found = {key: str(header.get(keyword) or "") for key, keyword in _PATIENT.items()}
    except Exception:
        return None
    date = found["birth_date"]
    if len(date) == 8 and date.isdecimal():
        found["birth_date"] = f"{date[:4]}-{date[4:6]}-{date[6:]}"
    found["name"] = ", ".join(filter(None, found["name"].partition("=")[0].split("^")))
    return found


def report_lines(content: bytes) -> list[dict[str, object]]:
    """A structured report (PS3.3 C.17.3) as lines with their depth: what is said of which concept.

    Persons are left out: whoever may see the patient finds him on the page already.
    """
    from pydicom import dcmread

    report = dcmread(BytesIO(content))
    return list(_lines(report, 0))


def _lines(item: Dataset, depth: int) -> Iterator[dict[str, object]]:
    if item.get("ValueType") == "PNAME" or depth > _DEEPEST:
        return
    yield {"depth": depth, "name": _meaning(item, "ConceptNameCodeSequence"), "value": _value(item)}
    for child in item.get("ContentSequence", []):
        yield from _lines(child, depth + 1)


def _value(item: Dataset) -> str:
    """The value of a content item as text."""
    kind = item.get("ValueType", "")
    if kind == "CODE":
        return _meaning(item, "ConceptCodeSequence")
    if kind == "NUM":
        measured = item.get("MeasuredValueSequence")
        if not measured:
            return ""
        unit = measured[0].MeasurementUnitsCodeSequence[0]
        words = "" if str(unit.CodeValue) in ("1", "{ratio}") else f" {unit.CodeMeaning}"
        return f"{float(measured[0].NumericValue):.4g}{words}"
    if kind in ("IMAGE", "COMPOSITE"):
        return str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
    keyword = {"TEXT": "TextValue", "UIDREF": "UID", "DATE": "Date", "TIME": "Time"}.get(kind)
    return str(item.get(keyword or "DateTime", ""))


def _meaning(item: Dataset, sequence: str) -> str:
    codes = item.get(sequence)
    return str(codes[0].CodeMeaning) if codes else ""
