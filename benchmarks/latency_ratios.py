"""The figures that the package is held to: what each is, what it should be, what it came to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.latency_statistics import Times, ratio_of_medians
from benchmarks.peers_end_to_end import PYLIBJPEG
from benchmarks.peers_engines import FOUR_SESSIONS
from benchmarks.peers_torch import EAGER
from benchmarks.peers_yardstick import NAME as YARDSTICK

OURS, OURS_EXACT = "ours", "ours-exact"
"""Our names among the contestants; with a precision added, `ours-fp32`, the same at another."""
ENOUGH_FOR_P99 = 1000
"""Predictions below which the 99th percentile over the median is not reported."""


@dataclass(frozen=True)
class Aim:
    """A figure with its aim.

    Attributes:
        key: in the report's `ratios`, or at its top.
        words: what is divided by what.
        target: to be reached from below or from above.
        at_least: from below; else the figure may be at most that.
    """

    key: str
    words: str
    target: float
    at_least: bool = True

    def reached(self, value: float) -> bool:
        """Whether a figure is good enough."""
        return value >= self.target if self.at_least else value <= self.target


_E2E = {
    "j2k": "JPEG 2000 lossless",
    "raw": "uncompressed",
    "rle": "RLE",
    "jpeg_lossless": "JPEG lossless",
    "jpeg_ls": "JPEG-LS",
    "htj2k": "HTJ2K",
}

RATIOS = (
    Aim("inference_vs_pytorch_eager", "Inference: PyTorch eager / ours", 5),
    Aim(
        "inference_vs_ort_fp32_four_sessions",
        "Inference: ONNX Runtime FP32, four sessions / ours",
        5,
    ),
    Aim("inference_vs_best_peer_int8", "Inference: best peer on the same INT8 network / ours", 1),
    Aim("yardstick_vs_ours", "ResNet-50 FP32, two 384 x 384 views / ours", 5),
    Aim("ours_over_floor", "Ours / the floor of this machine", 2, at_least=False),
    Aim("e2e_j2k", "End to end, JPEG 2000 lossless", 8),
    Aim("e2e_j2k_exact", "End to end, JPEG 2000 lossless, exact", 2),
    *(
        Aim(f"e2e_{name}", f"End to end, {words}, exact", 3)
        for name, words in _E2E.items()
        if name != "j2k"
    ),
    Aim("p99_over_p50", "99th percentile / median of 1,000 predictions", 1.5, at_least=False),
    Aim("stream_over_bound", "Stream / what the cores could do", 0.95),
)
BESIDE = (
    Aim("cold_start_s", "Start of the process to the first result, s", 0.8, at_least=False),
    Aim("rss_mib", "Resident memory, steady, MiB", 200, at_least=False),
)


class NotMeasured(Exception):
    """Why a figure has no value."""


@dataclass(frozen=True)
class Measured:
    """What the figures are made of.

    Attributes:
        inference: timings by contestant, [rounds, block].
        precision: of each contestant of `inference` and of `end_to_end`, by name.
        end_to_end: timings by transfer syntax and contestant, [rounds, 1].
        alone: the report of `latency_alone`.
        cold: the report of `latency_cold`.
        floor_ms: the shortest time this machine could need, None where it is not known.
        missing: why a contestant, a syntax or "floor" is not there, by name.
        seed: of the bootstrap.
    """

    inference: Mapping[str, Times]
    precision: Mapping[str, str]
    end_to_end: Mapping[str, Mapping[str, Times]]
    alone: Mapping[str, Any]
    cold: Mapping[str, Any]
    floor_ms: float | None
    missing: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0

    def of(self, times: Mapping[str, Times], numerator: str, denominator: str) -> dict[str, Any]:
        """A ratio of medians with what it was made of."""
        for name in (numerator, denominator):
            if name not in times:
                raise NotMeasured(self.why_not(name))
        above, below = times[numerator], times[denominator]
        return {
            **ratio_of_medians(above, below, self.seed).to_dict(),
            "numerator": numerator,
            "denominator": denominator,
        }

    def why_not(self, name: str) -> str:
        """The reason why something was not measured, named."""
        return f"{name}: {self.missing.get(name, 'was not asked for')}"


def figures(measured: Measured) -> dict[str, Any]:
    """The report's `ratios`, `cold_start_s`, `rss_mib`, and how each came about.

    Returns:
        `ratios` and the two beside them, None where not measured; `not_measured` has the reasons,
        `details` interval, parts, target and whether it was reached.
    """
    values: dict[str, float | None] = {}
    details: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    for aim in (*RATIOS, *BESIDE):
        try:
            found = _finder(aim.key)(measured)
        except NotMeasured as reason:
            values[aim.key], reasons[aim.key] = None, str(reason)
            continue
        values[aim.key] = found["value"]
        details[aim.key] = {**found, "target": aim.target, "reached": aim.reached(found["value"])}
    return {
        "ratios": {aim.key: values[aim.key] for aim in RATIOS},
        **{aim.key: values[aim.key] for aim in BESIDE},
        "not_measured": reasons,
        "details": details,
    }


def equal_precision(measured: Measured) -> list[dict[str, Any]]:
    """Every peer against ours at the peer's own precision, inference and end to end."""
    found = []
    places = {"inference": measured.inference, **measured.end_to_end}
    for place, times in places.items():
        ours = OURS if place == "inference" else OURS_EXACT
        for peer in times:
            precision = measured.precision.get(peer)
            if peer.startswith(OURS) or precision is None or peer == YARDSTICK:
                continue
            same = ours if measured.precision[ours] == precision else f"{ours}-{precision}"
            if same in times:
                ratio = measured.of(times, peer, same)
                found.append({"where": place, "precision": precision, **ratio})
    return found


def _finder(key: str) -> Callable[[Measured], dict[str, Any]]:
    """What makes a figure of what was measured."""
    if key.startswith("e2e_"):
        return lambda measured: _end_to_end(measured, key)
    return _FINDERS[key]


def _end_to_end(measured: Measured, key: str) -> dict[str, Any]:
    syntax = key.removeprefix("e2e_").removesuffix("_exact")
    if syntax not in measured.end_to_end:
        raise NotMeasured(measured.why_not(syntax))
    return measured.of(
        measured.end_to_end[syntax], PYLIBJPEG, OURS if key == "e2e_j2k" else OURS_EXACT
    )


def _best_int8(measured: Measured) -> dict[str, Any]:
    """Against the fastest of the peers that run the same INT8 network."""
    rivals = [
        measured.of(measured.inference, name, OURS)
        for name in measured.inference
        if measured.precision.get(name) == "int8" and not name.startswith(OURS)
    ]
    if not rivals:
        raise NotMeasured("no peer on the INT8 network was measured")
    return min(rivals, key=lambda ratio: float(ratio["value"]))


def _over_floor(measured: Measured) -> dict[str, Any]:
    if measured.floor_ms is None:
        raise NotMeasured(measured.why_not("floor"))
    floor = measured.inference[OURS] * 0 + measured.floor_ms
    found = measured.of({OURS: measured.inference[OURS], "floor": floor}, OURS, "floor")
    return {**found, "floor_ms": round(measured.floor_ms, 4)}


def _tail(measured: Measured) -> dict[str, Any]:
    tail = measured.alone["tail"]
    if tail["n"] < ENOUGH_FOR_P99:
        raise NotMeasured(
            f"{tail['n']} predictions were made, and it takes {ENOUGH_FOR_P99:,} to tell"
        )
    return {**tail["p99_over_p50"], "predictions": tail["n"]}


def _stream(measured: Measured) -> dict[str, Any]:
    """The worst of the streams."""
    streams = {
        name: found["over_bound"]
        for name, found in measured.alone["throughput"]["stream"].items()
        if found is not None
    }
    if not streams:
        raise NotMeasured("the predictor has no stream, or none was asked for")
    worst = min(streams, key=lambda name: float(streams[name]))
    return {"value": streams[worst], "ci95": None, "transfer_syntax": worst, "all": streams}


def _cold_start(measured: Measured) -> dict[str, Any]:
    later = measured.cold["later_starts"]
    return {"value": later["to_first_result_s"], "ci95": None, "starts": later["starts"]}


def _resident(measured: Measured) -> dict[str, Any]:
    value = measured.alone["memory"]["resident_mib"]["steady"]
    if value is None:
        raise NotMeasured("the operating system does not say what is resident")
    return {"value": value, "ci95": None}


_FINDERS: Mapping[str, Callable[[Measured], dict[str, Any]]] = {
    "inference_vs_pytorch_eager": lambda found: found.of(found.inference, EAGER, OURS),
    "inference_vs_ort_fp32_four_sessions": lambda found: found.of(
        found.inference, FOUR_SESSIONS, OURS
    ),
    "inference_vs_best_peer_int8": _best_int8,
    "yardstick_vs_ours": lambda found: found.of(found.inference, YARDSTICK, OURS),
    "ours_over_floor": _over_floor,
    "p99_over_p50": _tail,
    "stream_over_bound": _stream,
    "cold_start_s": _cold_start,
    "rss_mib": _resident,
}
