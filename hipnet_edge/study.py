"""A study: the one AP and the one lateral radiograph of one hip that belong together."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from hipnet_edge.acquisition import acquired_at
from hipnet_edge.dicom_reader import check_kind, read_dicom, text
from hipnet_edge.errors import InputRefused, Reason, UsageError
from hipnet_edge.input_limits import refusing
from hipnet_edge.pairing import ONE_SIDE, Candidate, choose_pair
from hipnet_edge.radiograph import Radiograph
from hipnet_edge.views import Anatomy, Finding, anatomy_of, laterality_of, view_of
from hipnet_edge.vocabulary import Laterality, View

logger = logging.getLogger(__name__)

_MAX_FILES = 5_000


class Study:
    """An AP and a lateral radiograph of one hip, checked to belong together; immutable.

    Attributes:
        ap: the AP radiograph; where its header is silent on the view, the view is what its place
            among the arguments states, with the source "argument position".
        lateral: the lateral radiograph, likewise.
        laterality: the hip to be read, LEFT or RIGHT, and what says so; None when both
            radiographs are silent or show both hips.
        overrides: all that the operator stated: keys such as "ap.view", "lateral.laterality" and
            "laterality".
    """

    __slots__ = ("ap", "lateral", "laterality", "overrides")

    ap: Radiograph
    lateral: Radiograph
    laterality: Finding[Laterality]
    overrides: Mapping[str, str]

    def __init__(
        self,
        ap: Radiograph,
        lateral: Radiograph,
        *,
        laterality: Laterality | str | None = None,
    ) -> None:
        """Check that two radiographs are one study of one hip.

        Args:
            ap: the AP radiograph.
            lateral: the lateral radiograph.
            laterality: the hip to read, "left" or "right", where the radiographs show both or do
                not say. It does not overrule a header that names the other side: state the side
                when reading that radiograph.

        Raises:
            InputRefused: `SAME_IMAGE_TWICE`, `DIFFERENT_PATIENTS`, `DIFFERENT_STUDIES`,
                `WRONG_VIEW`, `DIFFERENT_SIDES` or `CONFLICTING_LATERALITY`.
            UsageError: an argument is not what is documented.
        """
        if not isinstance(ap, Radiograph) or not isinstance(lateral, Radiograph):
            raise UsageError("A study is made of two radiographs.")
        side = _named_side(laterality)
        _check_same_study(ap, lateral)
        ap, lateral = _in_place(ap, View.AP), _in_place(lateral, View.LATERAL)
        overrides = {
            f"{view.value}.{name}": value
            for view, radiograph in ((View.AP, ap), (View.LATERAL, lateral))
            for name, value in radiograph.overrides.items()
        }
        if side is not None:
            overrides["laterality"] = side.value
        for name, value in (
            ("ap", ap),
            ("lateral", lateral),
            ("laterality", _common_side(ap, lateral, side)),
            ("overrides", MappingProxyType(overrides)),
        ):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("A study is immutable.")

    @property
    def views(self) -> dict[View, Radiograph]:
        """The two radiographs by view."""
        return {View.AP: self.ap, View.LATERAL: self.lateral}

    def __repr__(self) -> str:
        side = self.laterality.value
        return (
            f"Study({side.value if side else 'side unknown'}, ap={self.ap}, lateral={self.lateral})"
        )

    @classmethod
    def from_directory(
        cls, path: str | os.PathLike[str], *, laterality: Laterality | str | None = None
    ) -> Study:
        """Find the one pair of hip radiographs in a folder of mixed files and read it.

        Headers decide: the images of one patient and study, one of them AP, one lateral, of sides
        that agree. Among several the two closest in acquisition time are taken. Folders inside
        are searched too; whatever is no hip radiograph is passed over.

        Args:
            path: the folder.
            laterality: the hip to read, "left" or "right", when the folder holds both.

        Raises:
            InputRefused: `UNREADABLE_FILE`, `MISSING_VIEW`, `UNKNOWN_VIEW`, `AMBIGUOUS_PAIR`, or
                why the pair that was found cannot be read.
        """
        ap, lateral = find_pair(path, laterality=laterality)
        return cls(Radiograph.from_dicom(ap), Radiograph.from_dicom(lateral), laterality=laterality)


def find_pair(
    path: str | os.PathLike[str], *, laterality: Laterality | str | None = None
) -> tuple[Path, Path]:
    """The AP and the lateral file that `Study.from_directory` reads, chosen by their headers.

    Raises:
        InputRefused: `UNREADABLE_FILE`, `MISSING_VIEW`, `UNKNOWN_VIEW` or `AMBIGUOUS_PAIR`.
        UsageError: the side is neither left nor right.
    """
    candidates, passed_over = _find_candidates(Path(path))
    ap, lateral = choose_pair(candidates, _named_side(laterality), passed_over)
    return ap.image, lateral.image


def _named_side(laterality: Laterality | str | None) -> Laterality | None:
    if laterality is None:
        return None
    if laterality not in ONE_SIDE:
        raise UsageError("The side of a study is left or right.")
    return Laterality(laterality)


def _check_same_study(ap: Radiograph, lateral: Radiograph) -> None:
    if _same_pixels(ap, lateral) or (
        ap.sop_instance_uid and ap.sop_instance_uid == lateral.sop_instance_uid
    ):
        raise InputRefused(Reason.SAME_IMAGE_TWICE, "AP and lateral are the same image.")
    if _differ(ap._patient_id, lateral._patient_id):
        raise InputRefused(
            Reason.DIFFERENT_PATIENTS, "The two radiographs are of different patients."
        )
    if _differ(ap.study_instance_uid, lateral.study_instance_uid):
        raise InputRefused(
            Reason.DIFFERENT_STUDIES, "The two radiographs are of different studies."
        )


def _same_pixels(one: Radiograph, other: Radiograph) -> bool:
    """Whether two radiographs hold the same values; a glance tells nearly always."""
    if one.shape != other.shape:
        return False
    if one.encoded_sha256 and one.encoded_sha256 == other.encoded_sha256:
        return True
    # What two glances at unlike pixels show differs even where the pixels do not.
    first, second = one.pixels.coarse[::16, ::16], other.pixels.coarse[::16, ::16]
    alike = type(one.pixels) is type(other.pixels) and first.shape == second.shape
    if alike and not np.array_equal(first, second):
        return False
    return one.stored.dtype == other.stored.dtype and all(
        np.array_equal(*rows) for rows in zip(one.stored, other.stored, strict=True)
    )


def _differ(one: str | None, other: str | None) -> bool:
    """Whether both are known and not the same."""
    return bool(one) and bool(other) and one != other


def _in_place(radiograph: Radiograph, view: View) -> Radiograph:
    """The radiograph in the place of a view: what its header leaves open, the place states."""
    if radiograph.view.value is view:
        return radiograph
    if radiograph.view.value is not None:
        raise InputRefused(
            Reason.WRONG_VIEW,
            f"The radiograph given as {view.label} says that it is "
            f"{radiograph.view.value.label} ({radiograph.view.source}).",
        )
    return replace(
        radiograph,
        view=Finding(view, "argument position"),
        overrides=MappingProxyType({**radiograph.overrides, "view": view.value}),
    )


def _common_side(
    ap: Radiograph, lateral: Radiograph, named: Laterality | None
) -> Finding[Laterality]:
    """The hip that both radiographs show."""
    findings = {
        f"{view}: {r.laterality.source}": r.laterality.value
        for view, r in (("AP", ap), ("lateral", lateral))
    }
    said = {source: side for source, side in findings.items() if side in ONE_SIDE}
    if len(set(said.values())) > 1:
        raise InputRefused(
            Reason.DIFFERENT_SIDES, "One radiograph shows the left hip, the other the right."
        )
    for source, side in said.items():
        if named not in (None, side):
            raise InputRefused(
                Reason.CONFLICTING_LATERALITY,
                "The side that was named is not the one that the radiographs show.",
            )
        return Finding(side, source)
    return Finding(named, "operator" if named else "none")


def _find_candidates(folder: Path) -> tuple[list[Candidate[Path]], Counter[Reason]]:
    """The hip radiographs in a folder, and why the rest was passed over."""
    candidates: dict[str, Candidate[Path]] = {}
    passed_over: Counter[Reason] = Counter()
    for path in _files(folder):
        try:
            uid, candidate = _describe(path)
        except InputRefused as error:  # noqa: PERF203 - each file is judged alone
            passed_over[error.code] += 1
        else:
            candidates.setdefault(uid, candidate)  # a second copy of the same image
    logger.debug(
        "folder: %d hip radiographs, passed over: %s",
        len(candidates),
        {code.value: count for code, count in passed_over.items()},
    )
    return list(candidates.values()), passed_over


def _files(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        raise InputRefused(Reason.UNREADABLE_FILE, "There is no such folder.")
    seen = 0
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            seen += 1
            if seen > _MAX_FILES:
                raise InputRefused(
                    Reason.TOO_LARGE, f"The folder holds more than {_MAX_FILES} files."
                )
            yield Path(root, name)


def _describe(path: Path) -> tuple[str, Candidate[Path]]:
    dicom = read_dicom(path)
    header = dicom.header
    with refusing(Reason.NOT_DICOM, "The header is damaged and cannot be read."):
        check_kind(dicom)
        if anatomy_of(header).value is Anatomy.OTHER:
            raise InputRefused(Reason.NOT_A_HIP, "The header names another body part.")
        study = (text(header, "PatientID"), text(header, "StudyInstanceUID"))
        candidate = Candidate(
            path, study, view_of(header).value, laterality_of(header).value, acquired_at(header)
        )
        return text(header, "SOPInstanceUID") or str(path), candidate
