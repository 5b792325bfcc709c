"""The table of docs/cart.md: which images are a pair, which wait, which are refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hipnet_edge.cart.assemble import ANOTHER_PAIR, settlement_for
from hipnet_edge.cart.records import Instance, NewCase, Settlement, WaitingStudy

REFUSE = SimpleNamespace(settle_s=2.0, lone_view="refuse", lone_view_timeout_s=900.0)
HOLD = SimpleNamespace(settle_s=2.0, lone_view="hold", lone_view_timeout_s=900.0)
CAME = 1000.0
SETTLED, LATE = CAME + 2.0, CAME + 900.0


def image(uid: str, view: str | None, side: str | None = "left", **more: Any) -> Instance:
    values = {
        "acquired_at": None,
        "refusal": None,
        "patient_key": "a",
        "received_at": CAME,
        **more,
    }
    return Instance(
        sop_instance_uid=uid,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.1.1",
        study_instance_uid="1.2.3",
        transfer_syntax="1.2.840.10008.1.2.1",
        file="aa/bb.dcm",
        sha256="bb",
        size=1,
        view=view,
        laterality=side,
        source="dicom:XRAY",
        **values,
    )


def waiting(*images: Instance, used: tuple[str, ...] = ()) -> WaitingStudy:
    new = frozenset(i.sop_instance_uid for i in images) - set(used)
    last = max(i.received_at for i in images)
    return WaitingStudy("1.2.3", images[0].patient_key, images, new, last)


def at(minute: int) -> str:
    return f"2026-01-01T10:{minute:02}:00"


AP, LATERAL = image("1", "ap"), image("2", "lateral")
RIGHT_LATERAL = image("3", "lateral", "right")
PELVIS = image("4", "ap", "both")
CHEST = image("9", None, None, refusal="not_a_hip")


def reasons(settlement: Settlement | None) -> list[tuple[str | None, str | None, str | None, str]]:
    assert settlement is not None
    return [(r.ap, r.lateral, r.laterality, r.reason) for r in settlement.refused]


def test_a_pair_is_taken_once_the_study_is_quiet():
    study = waiting(AP, LATERAL)
    assert settlement_for(study, SETTLED - 0.1, REFUSE) is None
    assert settlement_for(study, SETTLED, REFUSE) == Settlement((NewCase("1", "2", "left"),))


@pytest.mark.parametrize(
    ("images", "cases"),
    [
        ((PELVIS, LATERAL), [("4", "2", "left")]),
        ((PELVIS, LATERAL, RIGHT_LATERAL), [("4", "2", "left"), ("4", "3", "right")]),
        ((image("5", "ap", None), LATERAL), [("5", "2", "left")]),
        ((image("5", "ap", None), image("6", "lateral", None)), [("5", "6", None)]),
        ((PELVIS, image("6", "lateral", None)), [("4", "6", None)]),
        ((AP, LATERAL, CHEST), [("1", "2", "left")]),
    ],
)
def test_each_side_that_an_image_names_gives_a_case(images, cases):
    settlement = settlement_for(waiting(*images), SETTLED, REFUSE)
    assert settlement is not None
    assert [(c.ap, c.lateral, c.laterality) for c in settlement.cases] == cases
    assert not settlement.refused


def test_three_images_go_by_time_or_are_refused():
    ap = image("1", "ap", acquired_at=at(0))
    near, far = (image(u, "lateral", acquired_at=at(m)) for u, m in (("2", 5), ("3", 9)))
    settlement = settlement_for(waiting(ap, far, near), SETTLED, REFUSE)
    assert settlement == Settlement((NewCase("1", "2", "left"),), (), (("3", ANOTHER_PAIR),))
    twin = image("3", "lateral", acquired_at=at(5), received_at=CAME - 1)
    settlement = settlement_for(waiting(ap, near, twin), SETTLED, REFUSE)
    assert reasons(settlement) == [("1", "2", "left", "ambiguous_pair")]
    assert settlement.unused == (("3", "ambiguous_pair"),)
    assert not settlement.cases


def test_an_image_that_names_no_side_is_not_read_as_both_hips():
    silent = image("5", "ap", None)
    settlement = settlement_for(waiting(silent, LATERAL, RIGHT_LATERAL), SETTLED, REFUSE)
    assert reasons(settlement) == [
        ("5", "2", "left", "ambiguous_pair"),
        ("5", "3", "right", "ambiguous_pair"),
    ]


def test_a_lone_view_waits_and_is_then_refused_or_held():
    for lone, refused in (
        (AP, ("1", None, "left", "missing_view")),
        (LATERAL, (None, "2", "left", "missing_view")),
        (PELVIS, ("4", None, None, "missing_view")),
    ):
        assert settlement_for(waiting(lone), LATE - 0.1, REFUSE) is None
        assert reasons(settlement_for(waiting(lone), LATE, REFUSE)) == [refused]
        assert settlement_for(waiting(lone), LATE * 1e6, HOLD) is None


def test_a_pair_does_not_wait_for_the_other_hips_missing_view():
    study = waiting(AP, LATERAL, RIGHT_LATERAL)
    assert settlement_for(study, SETTLED, REFUSE) == Settlement((NewCase("1", "2", "left"),))
    study = waiting(AP, LATERAL, RIGHT_LATERAL, used=("1", "2"))
    assert settlement_for(study, SETTLED, REFUSE) is None
    assert reasons(settlement_for(study, LATE, REFUSE)) == [(None, "3", "right", "missing_view")]


def test_two_sides_are_no_pair():
    settlement = settlement_for(waiting(AP, RIGHT_LATERAL), LATE, REFUSE)
    assert reasons(settlement) == [("1", "3", None, "different_sides")]


@pytest.mark.parametrize(
    ("image_refusal", "reason"),
    [
        ("not_a_hip", "missing_view"),
        ("unknown_view", "missing_view"),
        ("conflicting_view", "conflicting_view"),
    ],
)
def test_images_with_a_refusal_never_pair(image_refusal, reason):
    unusable = image("9", "lateral", refusal=image_refusal)
    study = waiting(AP, unusable)
    assert settlement_for(study, SETTLED, REFUSE) is None
    settlement = settlement_for(study, LATE, REFUSE)
    assert reasons(settlement) == [("1", None, "left", reason)]
    assert settlement.unused == (("9", image_refusal),)


def test_a_study_without_any_hip_is_refused_even_where_lone_views_are_held():
    study = waiting(CHEST)
    assert settlement_for(study, LATE - 1, HOLD) is None
    settlement = settlement_for(study, LATE, HOLD)
    assert reasons(settlement) == [(None, None, None, "not_a_hip")]
    assert settlement.unused == (("9", "not_a_hip"),)


def test_a_late_image_makes_a_case_only_if_the_rule_chooses_another_pair():
    ap, first = image("1", "ap", acquired_at=at(0)), image("2", "lateral", acquired_at=at(5))
    for minute, expected in (
        (9, Settlement((), (), (("3", ANOTHER_PAIR),))),
        (1, Settlement((NewCase("1", "3", "left"),))),
    ):
        repeat = image("3", "lateral", acquired_at=at(minute))
        study = waiting(ap, first, repeat, used=("1", "2"))
        assert settlement_for(study, SETTLED, REFUSE) == expected
    # A lateral that comes after its AP was refused alone makes the pair after all.
    study = waiting(AP, LATERAL, used=("1",))
    assert settlement_for(study, SETTLED, REFUSE) == Settlement((NewCase("1", "2", "left"),))


def test_two_patients_under_one_study_never_pair():
    other = waiting(image("2", "lateral", patient_key="b", received_at=CAME + 5))
    study = waiting(AP)
    assert settlement_for(study, LATE, REFUSE, beside=[other]) is None
    later = LATE + 5
    assert reasons(settlement_for(study, later, REFUSE, beside=[other])) == [
        ("1", None, "left", "different_patients")
    ]
    assert reasons(settlement_for(other, later, REFUSE, beside=[study])) == [
        (None, "2", "left", "different_patients")
    ]
    complete = waiting(*(image(u, v, patient_key="b") for u, v in (("2", "lateral"), ("3", "ap"))))
    assert reasons(settlement_for(study, later, REFUSE, beside=[complete])) == [
        ("1", None, "left", "missing_view")
    ]
