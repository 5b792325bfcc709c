"""Which images of a study are a pair, which are not, and how long one may wait for the other.

The table in `docs/cart.md` is what `settlement_for` does; the pair itself is chosen by
`hipnet_edge.pairing`, as in a folder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from hipnet_edge.cart.records import NewCase, NewRefusal, Settlement
from hipnet_edge.errors import InputRefused, Reason
from hipnet_edge.pairing import Candidate, choose_pair, sides_named
from hipnet_edge.vocabulary import Laterality, View

if TYPE_CHECKING:
    from hipnet_edge.cart.records import Instance, WaitingStudy
    from hipnet_edge.cart.settings import Assemble

ANOTHER_PAIR = "another_pair"
"""Why an image was set aside: the rule chose another pair of its study and side."""


@dataclass(frozen=True)
class _Found:
    """What was found for one side, or for the whole study where no image names a side."""

    side: Laterality | None
    pair: tuple[Candidate[Instance], Candidate[Instance]] | None = None
    refusal: InputRefused | None = None

    @property
    def ambiguous(self) -> bool:
        return self.refusal is not None and self.refusal.code is Reason.AMBIGUOUS_PAIR

    @property
    def decided(self) -> bool:
        """Whether waiting would not help: there is a pair, or there are too many."""
        return self.pair is not None or self.ambiguous

    def concerns(self, candidate: Candidate[Instance]) -> bool:
        """Whether an image could belong to this side."""
        named = sides_named(candidate)
        return self.side is None or not named or self.side in named


def settlement_for(
    study: WaitingStudy, now: float, policy: Assemble, *, beside: Sequence[WaitingStudy] = ()
) -> Settlement | None:
    """What becomes of a study's new images now.

    Args:
        study: the images of one study and one patient, those used before among them.
        now: seconds since the epoch.
        policy: how long to wait, and whether a lone view is refused or held.
        beside: what waits under the same study UID for other patients.

    Returns:
        The cases to make, the refusals and the images to set aside, each of them with a new image;
        None while there is nothing to do but wait.
    """
    if now - study.last_received_at < policy.settle_s:
        return None
    candidates, unusable = _sorted_out(study)
    found = _search(candidates, unusable)
    paired = {c.image.sop_instance_uid for f in found if f.pair for c in f.pair}
    fresh = [c for c in candidates if c.image.sop_instance_uid in study.new - paired]
    lone = [c for c in fresh if not any(f.decided and f.concerns(c) for f in found)]
    settled = any(f.decided for f in found)

    refused = [_refusal(f, fresh) for f in found if f.ambiguous and any(map(f.concerns, fresh))]
    since = max(waiting.last_received_at for waiting in (study, *beside))
    if now - since >= policy.lone_view_timeout_s and (policy.lone_view == "refuse" or not lone):
        if lone:
            refused += _lone_refusals(lone, found, any(map(_is_lone, beside)))
        elif not candidates:
            refused.append(_nothing_usable(unusable))
        lone, settled = [], True

    cases = dict.fromkeys(_case(f.pair) for f in found if f.pair)
    made = [case for case in cases if {case.ap, case.lateral} & study.new]
    named = {uid for case in made for uid in (case.ap, case.lateral)}
    named |= {uid for refusal in refused for uid in (refusal.ap, refusal.lateral) if uid}
    waiting = {c.image.sop_instance_uid for c in lone}
    aside = [c for c in fresh if c.image.sop_instance_uid not in named | waiting]
    unused = [(c.image.sop_instance_uid, _why_unused(c, found)) for c in aside]
    if settled:
        unused += [
            (image.sop_instance_uid, image.refusal or Reason.UNKNOWN_VIEW.value)
            for image in unusable
            if image.sop_instance_uid in study.new
        ]
    if not (made or refused or unused):
        return None
    return Settlement(tuple(made), tuple(refused), tuple(unused))


def _sorted_out(study: WaitingStudy) -> tuple[list[Candidate[Instance]], list[Instance]]:
    """The images that can be part of a pair, and those that cannot."""
    candidates, unusable = [], []
    for image in study.instances:
        if image.refusal is not None or image.view is None:
            unusable.append(image)
            continue
        candidates.append(
            Candidate(
                image,
                (image.patient_key, image.study_instance_uid),
                View(image.view),
                Laterality(image.laterality) if image.laterality else None,
                datetime.fromisoformat(image.acquired_at) if image.acquired_at else None,
            )
        )
    return candidates, unusable


def _search(
    candidates: Sequence[Candidate[Instance]], unusable: Sequence[Instance]
) -> list[_Found]:
    """A pair, or why there is none, for each side that any image names."""
    passed_over = Counter(Reason(i.refusal) for i in unusable if i.refusal)
    sides: list[Laterality | None] = [*sorted(sides_named(*candidates))]
    found = []
    for side in sides or [None]:
        try:
            pair = choose_pair(candidates, side, passed_over, place="study")
            found.append(_Found(side, pair))
        except InputRefused as refusal:  # noqa: PERF203 - each side is judged alone
            found.append(_Found(side, refusal=refusal))
    return list(_told_apart(found))


def _told_apart(found: Sequence[_Found]) -> Iterator[_Found]:
    """No image that is silent on its side is read as the left and as the right hip."""
    silent = Counter(
        c.image.sop_instance_uid for f in found for c in f.pair or () if c.laterality is None
    )
    for one in found:
        if one.pair and any(silent[c.image.sop_instance_uid] > 1 for c in one.pair):
            refusal = InputRefused(
                Reason.AMBIGUOUS_PAIR,
                "A radiograph that does not say which hip it shows would be read as both.",
            )
            yield _Found(one.side, refusal=refusal)
        else:
            yield one


def _case(pair: tuple[Candidate[Instance], Candidate[Instance]]) -> NewCase:
    """A case of the side that the pair itself names; what it leaves open the predictor judges."""
    side = next(iter(sides_named(*pair)), None)
    ap, lateral = (candidate.image.sop_instance_uid for candidate in pair)
    return NewCase(ap, lateral, side.value if side else None)


def _lone_refusals(
    lone: Sequence[Candidate[Instance]], found: Sequence[_Found], other_patient: bool
) -> list[NewRefusal]:
    """Why nothing is read of images that waited long enough, once for each side."""
    missing = [f for f in found if not f.decided]
    if other_patient:
        refusal = InputRefused(
            Reason.DIFFERENT_PATIENTS,
            "Other images of this study name another patient; no pair is made of both.",
        )
        missing = [_Found(f.side, refusal=refusal) for f in missing]
    elif len(missing) > 1 and len({c.view for c in lone}) > 1:
        refusal = InputRefused(
            Reason.DIFFERENT_SIDES, "One radiograph shows the left hip, the other the right."
        )
        return [_refusal(_Found(None, refusal=refusal), lone)]
    return [_refusal(f, lone) for f in missing if any(map(f.concerns, lone))]


def _nothing_usable(unusable: Sequence[Instance]) -> NewRefusal:
    """A study of images none of which can be read is refused for what ails the newest."""
    newest = max(unusable, key=lambda image: image.received_at)
    return NewRefusal(
        newest.sop_instance_uid if newest.view == View.AP.value else None,
        newest.sop_instance_uid if newest.view == View.LATERAL.value else None,
        newest.laterality,
        newest.refusal or Reason.UNKNOWN_VIEW.value,
        f"None of the {len(unusable)} images of this study can be part of a pair.",
    )


def _refusal(found: _Found, images: Sequence[Candidate[Instance]]) -> NewRefusal:
    """A refusal that names the newest image of each view that it concerns."""
    newest = {
        c.view: c.image.sop_instance_uid
        for c in sorted(images, key=lambda c: c.image.received_at)
        if found.concerns(c)
    }
    assert found.refusal is not None
    side = found.side.value if found.side else None
    code, message = found.refusal.code.value, found.refusal.message
    return NewRefusal(newest.get(View.AP), newest.get(View.LATERAL), side, code, message)


def _why_unused(candidate: Candidate[Instance], found: Sequence[_Found]) -> str:
    for one in found:
        if one.concerns(candidate):
            return one.refusal.code.value if one.refusal else ANOTHER_PAIR
    return ANOTHER_PAIR


def _is_lone(study: WaitingStudy) -> bool:
    """Whether a study has images that could be part of a pair, and no pair."""
    candidates, unusable = _sorted_out(study)
    return bool(candidates) and not any(f.decided for f in _search(candidates, unusable))
