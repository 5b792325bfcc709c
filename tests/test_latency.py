"""The latency benchmark: a real run in small follows its schema and leaves nothing out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from benchmarks.latency import measure
from benchmarks.latency_alone import STAGES
from benchmarks.latency_ratios import BESIDE, RATIOS
from benchmarks.latency_report import text
from benchmarks.latency_run import PEERS
from benchmarks.latency_settings import Settings
from export.provenance import write

ROOT = Path(__file__).parent.parent
SCHEMA = json.loads((ROOT / "benchmarks" / "latency.schema.json").read_text())
KEYS = [
    "inference_vs_pytorch_eager",
    "inference_vs_ort_fp32_four_sessions",
    "inference_vs_best_peer_int8",
    "yardstick_vs_ours",
    "ours_over_floor",
    *("e2e_j2k", "e2e_j2k_exact", "e2e_raw", "e2e_rle", "e2e_jpeg_lossless", "e2e_jpeg_ls"),
    *("e2e_htj2k", "p99_over_p50", "stream_over_bound"),
]
SMALL = {
    "syntaxes": ["raw"],
    "size": [640, 512],
    "rounds": 2,
    "block": 1,
    "e2e_rounds": 2,
    "e2e_untimed": 0,
    "warm_up": 1,
    "predictions": 5,
    "soak": 20,
    "starts": 1,
    "duration": 0.1,
    "streams": ["raw"],
    "equal_precision": False,
    "floor": False,
    "peers": ["ort-int8", "pydicom-imagecodecs"],
}


def latency(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command as a user calls it."""
    command = [sys.executable, "benchmarks/latency.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Path, str]:
    """A report of a run in small, and what the terminal shows of it."""
    out = tmp_path_factory.mktemp("latency") / "report.json"
    found = measure(Settings.from_dict(SMALL))
    write(found, out)
    return out, text(found)


@pytest.fixture(scope="module")
def report(run):
    return json.loads(run[0].read_text())


def test_the_report_follows_its_schema(report):
    jsonschema.validate(report, SCHEMA)
    assert list(report["ratios"]) == KEYS == list(SCHEMA["properties"]["ratios"]["properties"])


def test_every_figure_has_a_value_or_a_reason(report):
    for aim in (*RATIOS, *BESIDE):
        value = report["ratios"].get(aim.key, report.get(aim.key))
        assert (value is None) == (aim.key in report["not_measured"]), aim.key
        assert (value is None) != (aim.key in report["details"]), aim.key
        assert value is None or value > 0, aim.key


def test_every_peer_is_measured_or_named_as_missing(report):
    measured = {*report["inference"], *(n for one in report["end_to_end"].values() for n in one)}
    for name in PEERS:
        assert (name in measured) != (name in report["missing"]), name
    assert {"ort-int8", "pydicom-imagecodecs", "ours", "ours-exact"} <= measured
    assert report["missing"]["pytorch-eager"] == "left out of this run"


def test_stages_fit_into_the_total(report):
    stages = report["stages"]["raw"]
    parts = [stages[name]["p50"] for name in STAGES[:-2] if stages[name] is not None]
    assert 0 < sum(parts) <= 1.2 * stages["total"]["p50"]
    for name in STAGES:
        assert (stages[name] is None) == (f"stages.{name}" in report["not_measured"]), name


def test_a_start_is_later_than_its_parts_and_memory_was_seen(report):
    for start in ("first_start_with_empty_caches", "later_starts"):
        found = report["cold_start"][start]
        reached = [found[name] for name in found if name.startswith("to_") and "all" not in name]
        assert reached == sorted(reached)
        assert reached[0] > 0
    assert report["rss_mib"] > 50
    assert report["memory"]["device"] == {"value": None, "reason": "it computes on the CPU"}
    assert report["soak"]["predictions"] == SMALL["soak"]
    assert len(report["soak"]["rss_mib"]) == 20


def test_the_terminal_shows_each_figure_and_what_is_missing(run, report):
    for aim in (*RATIOS, *BESIDE):
        assert aim.words in run[1]
    for name in report["missing"]:
        assert f"not measured: {name}: " in run[1]


def test_two_reports_beside_each_other(run, report):
    shown = latency("--compare", run[0], run[0])
    assert shown.returncode == 0, shown.stderr
    (line,) = [line for line in shown.stdout.splitlines() if line.startswith("cold_start_s")]
    assert line.split()[-1] == "1.000"


def test_the_guard_lets_a_report_pass_itself_and_stops_one_that_fell_far(run, report, tmp_path):
    passed = latency("--check", run[0], "--report", run[0])
    assert passed.returncode == 0, passed.stdout + passed.stderr
    better = json.loads(run[0].read_text())
    better["ratios"]["inference_vs_best_peer_int8"] *= 20
    (tmp_path / "baseline.json").write_text(json.dumps(better))
    stopped = latency("--check", tmp_path / "baseline.json", "--report", run[0])
    assert stopped.returncode == 1
    assert "inference_vs_best_peer_int8 is " in stopped.stdout


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [("--size", "3000", "ROWSxCOLUMNS"), ("--peers", "nobody", "pytorch-eager")],
)
def test_what_makes_no_sense_is_refused_with_what_would(option, value, said):
    refused = latency(option, value)
    assert refused.returncode == 2
    assert said in refused.stderr
