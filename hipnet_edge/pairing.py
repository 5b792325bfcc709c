"""Which AP and which lateral of several hip radiographs are one pair: the one rule for it.

A pair is an AP and a lateral of one patient and study whose sides agree; of several pairs it is the
one closest in acquisition time. Folders are searched by it, and what arrives over DICOM.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import product
from typing import Generic, TypeVar

from hipnet_edge.errors import InputRefused, Reason
from hipnet_edge.vocabulary import Laterality, View

ONE_SIDE = (Laterality.LEFT, Laterality.RIGHT)
"""What names a single hip; both sides, or none, do not."""

ImageT = TypeVar("ImageT")


@dataclass(frozen=True)
class Candidate(Generic[ImageT]):
    """A hip radiograph as far as its header tells.

    Attributes:
        image: what the caller knows the radiograph by: a path, an identifier.
        study: the patient and the study that it belongs to.
        view: AP, lateral, or None when nothing says.
        laterality: left, right, both, or None when nothing says.
        acquired_at: when it was taken; None when the header does not say.
    """

    image: ImageT
    study: tuple[str, str]
    view: View | None
    laterality: Laterality | None
    acquired_at: datetime | None


def choose_pair(
    candidates: Sequence[Candidate[ImageT]],
    side: Laterality | None,
    passed_over: Mapping[Reason, int],
    *,
    place: str = "folder",
) -> tuple[Candidate[ImageT], Candidate[ImageT]]:
    """The one pair of AP and lateral.

    Args:
        candidates: the radiographs to choose from; no image twice.
        side: the hip that is sought, LEFT or RIGHT; None where nobody named one.
        passed_over: how many other images there were, by what kept them out.
        place: where they lie, as a refusal names it.

    Raises:
        InputRefused: `MISSING_VIEW`, `UNKNOWN_VIEW`, `CONFLICTING_VIEW` or
            `CONFLICTING_LATERALITY` when there is no pair, `AMBIGUOUS_PAIR` when nothing decides
            between several.
    """
    pairs = [
        (ap, lateral)
        for ap, lateral in product(candidates, repeat=2)
        if (ap.view, lateral.view) == (View.AP, View.LATERAL)
        and ap.study == lateral.study
        and len(sides_named(ap, lateral) | ({side} if side else set())) < 2
    ]
    if not pairs:
        raise _no_pair(candidates, side, passed_over, place)
    if len({ap.study for ap, _ in pairs}) > 1:
        raise InputRefused(Reason.AMBIGUOUS_PAIR, f"The {place} holds pairs of several studies.")
    if side is None and len(set[Laterality]().union(*(sides_named(*pair) for pair in pairs))) > 1:
        raise InputRefused(
            Reason.AMBIGUOUS_PAIR, f"The {place} holds pairs of both hips; name the side."
        )
    if len(pairs) == 1:
        return pairs[0]
    gaps = {index: gap for index, pair in enumerate(pairs) if (gap := _gap(*pair)) is not None}
    closest = [index for index, gap in gaps.items() if gap == min(gaps.values())]
    if len(gaps) < len(pairs) or len(closest) != 1:
        raise InputRefused(
            Reason.AMBIGUOUS_PAIR,
            f"The {place} holds several AP or lateral radiographs of one hip, and their times do "
            "not tell which two belong together.",
        )
    return pairs[closest[0]]


def sides_named(*candidates: Candidate[ImageT]) -> set[Laterality]:
    """The single hips that radiographs name; more than one cannot be right for a pair."""
    return {
        candidate.laterality
        for candidate in candidates
        if candidate.laterality is not None and candidate.laterality in ONE_SIDE
    }


def _gap(ap: Candidate[ImageT], lateral: Candidate[ImageT]) -> float | None:
    """The seconds between two radiographs; None where one does not say when it was taken."""
    if ap.acquired_at is None or lateral.acquired_at is None:
        return None
    return abs((ap.acquired_at - lateral.acquired_at).total_seconds())


def _no_pair(
    candidates: Sequence[Candidate[ImageT]],
    side: Laterality | None,
    passed_over: Mapping[Reason, int],
    place: str,
) -> InputRefused:
    """Why there is no pair."""
    views = Counter(candidate.view for candidate in candidates)
    others = ", ".join(f"{count} {code.value}" for code, count in sorted(passed_over.items()))
    counted = (
        f"{views[View.AP]} AP, {views[View.LATERAL]} lateral, {views[None]} of unknown view; "
        f"passed over: {others or 'nothing'}"
    )
    # Who searched a folder can name files instead; what was sent to a cart stays as it is.
    advice = "; name the two files." if place == "folder" else "."
    for code in (Reason.CONFLICTING_VIEW, Reason.CONFLICTING_LATERALITY):
        if passed_over.get(code):
            return InputRefused(
                code,
                f"The {place} holds no pair, and a header that contradicts itself ({counted})"
                f"{advice}",
            )
    if views[None]:
        return InputRefused(
            Reason.UNKNOWN_VIEW,
            f"Not every hip radiograph in the {place} says which view it is ({counted}){advice}",
        )
    if views[View.AP] and views[View.LATERAL]:
        which = f"the {side.value} hip" if side else "one patient, study and hip"
        return InputRefused(
            Reason.MISSING_VIEW, f"No AP and lateral in the {place} are of {which} ({counted})."
        )
    missing = "lateral" if views[View.AP] else "AP" if views[View.LATERAL] else "hip"
    return InputRefused(
        Reason.MISSING_VIEW, f"The {place} holds no {missing} radiograph ({counted})."
    )
