"""The latency benchmark's arithmetic: statistics, orders, figures, the guard, the page."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from benchmarks.latency_compare import check
from benchmarks.latency_interleave import Contestant, interleaved, orders
from benchmarks.latency_noise import Watch
from benchmarks.latency_plots import parts_of
from benchmarks.latency_ratios import RATIOS, Measured, equal_precision, figures
from benchmarks.latency_settings import QUICK, Settings
from benchmarks.latency_statistics import percentile_ratio, ratio_of_medians, summary
from benchmarks.page_tables import between
from benchmarks.performance_page import PAGE, tables


def test_a_summary_is_numpys_of_the_same_timings():
    times = np.random.default_rng(1).gamma(4.0, 5.0, (50, 7))
    found = summary(times)
    for name, share in (("p50", 50), ("p90", 90), ("p95", 95), ("p99", 99), ("max", 100)):
        assert found[name] == pytest.approx(np.percentile(times, share), abs=1e-4)
    assert found["cv"] == pytest.approx(times.std(ddof=1) / times.mean(), abs=1e-4)
    assert found["n"] == 350
    assert summary(np.array([3.0]))["cv"] is None


def test_a_ratio_of_medians_has_an_interval_around_the_truth():
    draw = np.random.default_rng(2)
    slow, fast = 30 + draw.exponential(2.0, (60, 3)), 10 + draw.exponential(1.0, (60, 3))
    ratio = ratio_of_medians(slow, fast)
    assert ratio.value == pytest.approx(np.median(slow) / np.median(fast))
    truth = (30 + 2 * np.log(2)) / (10 + np.log(2))
    assert ratio.low < truth < ratio.high
    assert ratio.high - ratio.low < 0.3
    assert ratio == ratio_of_medians(slow, fast)


def test_what_slows_whole_rounds_does_not_widen_a_ratio():
    slowed = np.random.default_rng(3).uniform(1.0, 3.0, (40, 1))
    ratio = ratio_of_medians(20.0 * slowed, 10.0 * slowed)
    assert ratio.low == pytest.approx(2.0)
    assert ratio.high == pytest.approx(2.0)
    with pytest.raises(ValueError, match="rounds"):
        ratio_of_medians(slowed, slowed[:-1])


def test_the_tail_over_the_median():
    times = np.concatenate([np.full(985, 10.0), np.full(15, 30.0)])
    assert percentile_ratio(times, 99, 50).value == pytest.approx(3.0)


def test_every_contestant_has_one_turn_a_round_in_an_order_drawn_anew():
    drawn = orders(4, 50, seed=5)
    assert all(sorted(order) == [0, 1, 2, 3] for order in drawn)
    assert len({tuple(order) for order in drawn}) > 10
    assert drawn == orders(4, 50, seed=5) != orders(4, 50, seed=6)


def test_calls_are_interleaved_as_drawn_with_untimed_ones_first():
    called: list[str] = []
    contestants = [Contestant(name, lambda name=name: called.append(name)) for name in "ab"]
    times = interleaved(contestants, 6, block=2, seed=9, warm_up=1, untimed=1)
    assert {name: taken.shape for name, taken in times.items()} == {"a": (6, 2), "b": (6, 2)}
    expected = [name for order in orders(2, 6, 9) for index in order for name in 3 * "ab"[index]]
    assert called == ["a", "b", *expected]


def test_a_comparison_out_of_time_makes_two_rounds():
    times = interleaved([Contestant("a", list)], 50, longest_s=0.0, warm_up=0)
    assert times["a"].shape == (2, 1)


def test_a_machine_whose_loop_jumps_is_not_quiet():
    loops = [1.0] * 8 + [2.0] * 4
    watched = Watch(loops, None).report()
    assert not watched["quiet"]
    assert "2.00 times its median" in watched["reason"]
    assert watched["steal"]["value"] is None
    assert Watch([1.0] * 12, None).report()["quiet"]


def test_settings_survive_json_and_quick_changes_only_what_there_is():
    settings = Settings(**QUICK)
    assert Settings.from_dict(settings.to_dict()) == settings
    assert settings.wanted(("pytorch-compile", "ort-fp32")) == ["ort-fp32"]
    assert Settings(peers=()).wanted(("ort-fp32",)) == []


def of_length(milliseconds: float) -> np.ndarray:
    return np.full((4, 1), milliseconds)


def measured(**changed: object) -> Measured:
    """What a run on a quiet machine might have given."""
    parts = {
        "inference": {
            name: of_length(ms)
            for name, ms in (
                ("ours", 20), ("ours-fp32", 50), ("pytorch-eager", 140), ("ort-int8", 30),
                ("openvino-int8", 21), ("ort-fp32-four-sessions", 200), ("resnet50-fp32", 210),
            )
        },
        "precision": {"ours": "int8", "ours-fp32": "fp32", "ours-exact": "int8",
                      "pytorch-eager": "fp32", "ort-int8": "int8", "openvino-int8": "int8",
                      "ort-fp32-four-sessions": "fp32", "pydicom-pylibjpeg": "fp32"},
        "end_to_end": {
            "j2k": {"ours": of_length(100), "ours-exact": of_length(400),
                    "pydicom-pylibjpeg": of_length(1000)},
            "raw": {"ours-exact": of_length(50), "pydicom-pylibjpeg": of_length(250)},
        },
        "alone": {
            "tail": {"n": 1000, "p99_over_p50": {"value": 1.2, "ci95": [1.1, 1.3]}},
            "throughput": {"stream": {"raw": {"over_bound": 0.97}, "j2k": {"over_bound": 0.93}}},
            "memory": {"resident_mib": {"steady": 150.0}},
        },
        "cold": {"later_starts": {"to_first_result_s": 0.5, "starts": 10}},
        "floor_ms": 12.0,
        "missing": {"htj2k": "no encoder for HTJ2K is installed"},
    }  # fmt: skip
    return Measured(**{**parts, **changed})


def test_each_figure_is_what_its_name_says():
    found = figures(measured())
    assert found["ratios"] == {
        **dict.fromkeys(("e2e_rle", "e2e_jpeg_lossless", "e2e_jpeg_ls", "e2e_htj2k")),
        "inference_vs_pytorch_eager": 7.0,
        "inference_vs_ort_fp32_four_sessions": 10.0,
        "inference_vs_best_peer_int8": 1.05,
        "yardstick_vs_ours": 10.5,
        "ours_over_floor": pytest.approx(20 / 12, abs=1e-4),
        "e2e_j2k": 10.0,
        "e2e_j2k_exact": 2.5,
        "e2e_raw": 5.0,
        "p99_over_p50": 1.2,
        "stream_over_bound": 0.93,
    }
    assert (found["cold_start_s"], found["rss_mib"]) == (0.5, 150.0)
    assert found["details"]["inference_vs_best_peer_int8"]["numerator"] == "openvino-int8"
    assert found["details"]["stream_over_bound"]["transfer_syntax"] == "j2k"
    assert not found["details"]["stream_over_bound"]["reached"]
    assert found["details"]["e2e_raw"]["reached"]


def test_what_is_missing_is_null_with_its_reason():
    tail = {**measured().alone, "tail": {"n": 999}}
    found = figures(measured(inference={"ours": of_length(20)}, alone=tail, floor_ms=None))
    assert found["ratios"]["inference_vs_pytorch_eager"] is None
    assert found["not_measured"]["e2e_htj2k"] == "htj2k: no encoder for HTJ2K is installed"
    assert found["not_measured"]["inference_vs_pytorch_eager"].startswith("pytorch-eager: ")
    assert "999" in found["not_measured"]["p99_over_p50"]
    assert found["ratios"]["ours_over_floor"] is None


def test_a_ratio_at_equal_precision_takes_ours_at_the_peers():
    rows = {(row["where"], row["numerator"]): row for row in equal_precision(measured())}
    eager = rows["inference", "pytorch-eager"]
    assert (eager["denominator"], eager["value"]) == ("ours-fp32", 2.8)
    assert rows["inference", "ort-int8"]["denominator"] == "ours"
    assert ("raw", "pydicom-pylibjpeg") not in rows  # ours-exact-fp32 was not measured


def report(**noise: object) -> dict:
    return {
        **figures(measured()),
        "machine": {"architecture": "x86_64", "instructions": {"value": {"avx2": True}}},
        "configuration": {"variant": "cpu-int8", "backend": {"name": "engine", "version": "1.0"}},
        "noise": {"quiet": True, "reason": None, **noise},
    }


def changed(report: dict, key: str, factor: float) -> dict:
    """The report with one ratio and its interval multiplied."""
    other = copy.deepcopy(report)
    other["ratios"][key] *= factor
    ends = other["details"][key]["ci95"]
    other["details"][key]["ci95"] = ends and [end * factor for end in ends]
    return other


@pytest.mark.parametrize(
    "key", [aim.key for aim in RATIOS if figures(measured())["ratios"][aim.key] is not None]
)
def test_the_guard_stops_each_ratio_that_fell_far_and_no_other(key):
    worse = 0.5 if next(aim for aim in RATIOS if aim.key == key).at_least else 2.0
    failed = check(changed(report(), key, worse), report()).failed
    assert [sentence.split()[0] for sentence in failed] == [key]
    assert not check(changed(report(), key, 1 / worse), report()).failed
    assert not check(changed(report(), key, worse**0.5), report()).failed


def test_a_noisy_machine_is_said_and_fails_only_beyond_what_noise_explains():
    noisy = report(quiet=False, reason="other processes had 40% of the processors")
    assert not check(changed(noisy, "e2e_raw", 0.5), report()).failed
    assert check(changed(noisy, "e2e_raw", 0.2), report()).failed
    assert "too noisy" in check(noisy, report()).said[0]


def test_the_guard_compares_nothing_with_another_processor_and_says_so():
    other = changed(report(), "e2e_raw", 0.1)
    other["machine"]["instructions"] = {"value": {"avx2": False}}
    verdict = check(other, report())
    assert verdict.compared == 0
    assert not verdict.failed
    assert "instructions" in verdict.said[0]


def test_another_variant_is_compared_unless_another_engine_chose_it():
    slower = changed(report(), "e2e_raw", 0.1)
    slower["configuration"]["variant"] = "fp32"
    assert check(slower, report()).failed
    slower["configuration"]["backend"] = {"name": "engine", "version": "1.1"}
    assert not check(slower, report()).failed


def test_a_guard_with_nothing_to_compare_fails():
    bare = report()
    bare["ratios"] = dict.fromkeys(bare["ratios"])
    bare["not_measured"] = dict.fromkeys(bare["ratios"], "not installed")
    verdict = check(bare, report())
    assert verdict.failed
    assert any("e2e_raw was not measured (not installed)" in line for line in verdict.said)


def test_a_bar_is_as_long_as_the_total():
    stages = {name: {"p50": ms} for name, ms in (("read", 2.0), ("inference", 5.0), ("total", 9.0))}
    assert parts_of(stages) == {"read": 2.0, "inference": 5.0, "other": 2.0}


def test_the_tables_of_the_page_are_those_of_the_results():
    text = PAGE.read_text()
    for name, content in tables().items():
        assert between(text, name).strip() == content, name
