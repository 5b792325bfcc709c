"""Studies, results and deliveries as lines that a person reads; the browser adds no words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from hipnet_edge.cart.page.advice import what_to_do
from hipnet_edge.cart.records import State

if TYPE_CHECKING:
    from hipnet_edge.cart.configuration import Configuration
    from hipnet_edge.cart.records import Case, Delivery, WaitingStudy

STATE_WORDS: dict[State, str] = {
    State.RECEIVED: "Received",
    State.ASSEMBLED: "Being read",
    State.PREDICTED: "Being sent",
    State.DELIVERED: "Delivered",
    State.REFUSED: "Refused",
    State.FAILED: "Failed",
}

_KIND_WORDS = {
    "report": "Structured report",
    "segmentation_ap": "Maps, AP",
    "segmentation_lateral": "Maps, lateral",
    "capture": "One-page picture",
}
_DELIVERY_WORDS = {"waiting": "waiting", "sent": "sent", "failed": "given up"}


def case_line(
    case: Case, configuration: Configuration, in_brief: Callable[[str], dict[str, object]]
) -> dict[str, object]:
    """A study of the queue: where it stands, and what was found or why nothing was."""
    words = STATE_WORDS[case.state]
    if case.state is State.DELIVERED and not configuration.destination:
        words = "Read"
    line: dict[str, object] = {
        "id": case.id,
        "state": case.state.value,
        "words": words,
        "time": case.updated_at,
        "side": case.laterality,
        "result": in_brief(case.prediction) if case.prediction else None,
        "problem": None,
    }
    if case.reason and case.state is not State.DELIVERED:
        line["problem"] = {
            "code": case.reason,
            "message": case.message or f"It ended with {case.reason.replace('_', ' ')}.",
            "advice": _advice(case),
            "attempts": case.attempts,
            "next_at": case.next_at if case.state is not State.REFUSED else None,
        }
    return line


def _advice(case: Case) -> str:
    if case.state is State.FAILED:
        return "Press Retry; if it fails again, tell the administrator the code."
    if case.state is State.REFUSED:
        return what_to_do(case.reason)
    return "It is tried again by itself."


def waiting_line(study: WaitingStudy) -> dict[str, object]:
    """Images that are no study yet: which ones there are."""
    new = [image for image in study.instances if image.sop_instance_uid in study.new]
    views = {image.view for image in new}
    if {"ap", "lateral"} <= views:
        arrived = "AP and lateral arrived; they are put together in a moment."
    elif "ap" in views:
        arrived = "AP arrived; waiting for the lateral."
    elif "lateral" in views:
        arrived = "Lateral arrived; waiting for the AP."
    else:
        arrived = "An image arrived that does not say which view it is."
    sides = {image.laterality for image in new} - {None, "both"}
    return {
        "id": None,
        "key": f"waiting-{min(image.sha256 for image in new)[:16]}" if new else "waiting",
        "state": State.RECEIVED.value,
        "words": STATE_WORDS[State.RECEIVED],
        "time": study.last_received_at,
        "side": next(iter(sides)) if len(sides) == 1 else None,
        "result": None,
        "problem": None,
        "arrived": arrived,
    }


def object_words(kind: str) -> dict[str, str]:
    """A kind of result object and its name."""
    return {"kind": kind, "words": _KIND_WORDS.get(kind, kind)}


def delivery_lines(deliveries: Sequence[Delivery]) -> list[dict[str, object]]:
    """How far each destination got, its objects one by one."""
    lines: dict[str, list[Delivery]] = {}
    for delivery in deliveries:
        lines.setdefault(delivery.destination, []).append(delivery)
    return [
        {
            "destination": destination,
            "sent": sum(delivery.state == "sent" for delivery in of),
            "of": len(of),
            "failed": any(delivery.state == "failed" for delivery in of),
            "objects": [
                {
                    "words": _KIND_WORDS.get(delivery.object.kind, delivery.object.kind),
                    "state": _DELIVERY_WORDS.get(delivery.state, delivery.state),
                    "attempts": delivery.attempts,
                    "reason": delivery.reason,
                }
                for delivery in of
            ],
        }
        for destination, of in lines.items()
    ]
