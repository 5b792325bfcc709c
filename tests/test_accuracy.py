"""The figures of a bundle, on small cohorts whose answers are known beforehand."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn (the export extra) is not installed")
pytest.importorskip("scipy", reason="SciPy (the export extra) is not installed")

from scipy.stats import rankdata, spearmanr
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks import cause_figures, map_figures, risk_figures, smallest_sign
from benchmarks.outcome import Outcome, remembered
from benchmarks.view_comparison import view_comparison
from export import evaluate
from export.cohort import SOUND
from hipnet_edge.decision import Decision, SignOfFailure
from hipnet_edge.evaluation import bootstrap
from hipnet_edge.vocabulary import CAUSES, Cause

FRACTURE, PJI = CAUSES.index(Cause.PERIPROSTHETIC_FRACTURE), CAUSES.index(Cause.PJI)


def outcome_of(causes, probabilities=None, **table):
    """An outcome; without probabilities every cause is recognised at 0.8."""
    causes = np.asarray(causes)
    n = len(causes)
    if probabilities is None:
        probabilities = np.full((n, 5), 0.05)
        probabilities[np.arange(n), np.maximum(causes, 0)] = 0.8
    probabilities = np.asarray(probabilities, float)
    return Outcome(
        probabilities=probabilities,
        member_probabilities=np.repeat(probabilities[:, None], 4, axis=1),
        maps=np.zeros((n, 2, 5, 8, 5), np.float32),
        novelty=None,
        causes=causes,
        occupancy=np.zeros((n, 2, 8, 5), np.float32),
        table={name: np.asarray(column) for name, column in table.items()},
    )


def random_counts(n, rows=6):
    return np.vstack([np.ones(n), np.random.default_rng(1).integers(0, 4, (rows, n))])


def expanded(counts, *arrays):
    """The resample of one row as the list of studies that it stands for."""
    return [np.repeat(array, counts.astype(int)) for array in arrays]


def test_resamples_keep_the_size_of_every_stratum():
    strata = np.repeat([0, 1, 2], [5, 50, 20])
    counts = bootstrap.draw(strata, resamples=200)
    assert counts.shape == (201, 75)
    assert (counts[0] == 1).all()
    for stratum, size in enumerate([5, 50, 20]):
        assert (counts[:, strata == stratum].sum(axis=1) == size).all()
    assert (bootstrap.draw(strata, 200) == counts).all()
    assert counts[1:].std() == pytest.approx(1.0, abs=0.05)  # as of draws with replacement


def test_figures_over_counts_are_those_of_the_expanded_resamples():
    random = np.random.default_rng(0)
    scores = random.integers(0, 8, 60) / 8.0  # many ties
    values, positive = random.normal(size=60).round(1), random.random(60) < 0.4
    counts = random_counts(60)
    areas = bootstrap.auc(counts, scores, positive)
    ranks = bootstrap.midranks(counts, values)
    related = bootstrap.spearman(counts, scores, values)
    lowest = bootstrap.threshold_at(counts, scores, 0.9)
    for row, area, rank, rho, t in zip(counts, areas, ranks, related, lowest, strict=True):
        s, v, p = expanded(row, scores, values, positive)
        assert area == pytest.approx(roc_auc_score(p, s))
        assert rho == pytest.approx(spearmanr(s, v).statistic)
        assert expanded(row, rank)[0] == pytest.approx(rankdata(v))
        assert (s <= t).mean() >= 0.9 > (s < t).mean()


def test_average_precision_over_counts_is_that_of_the_expanded_resamples():
    random = np.random.default_rng(3)
    bins = random.integers(0, 10, (30, 40))
    positive = random.random((30, 40)) < bins / 12.0
    found, area = (np.zeros((30, 10)) for _ in range(2))
    for study in range(30):
        np.add.at(found[study], bins[study], positive[study])
        np.add.at(area[study], bins[study], 1.0)
    counts = random_counts(30)
    for row, value in zip(counts, bootstrap.average_precision(counts, found, area), strict=True):
        studies = np.repeat(np.arange(30), row.astype(int))
        expected = average_precision_score(positive[studies].ravel(), bins[studies].ravel())
        assert value == pytest.approx(expected)


def test_an_interval_holds_the_figure_and_narrows_with_studies():
    widths = []
    for n in (50, 5000):
        right = np.arange(n) % 10 > 0
        report = bootstrap.with_interval(bootstrap.mean(bootstrap.draw(np.zeros(n)), right))
        low, high = report["ci95"]
        assert report["value"] == 0.9
        assert low < 0.9 < high
        widths.append(high - low)
    assert widths[0] == pytest.approx(4 * 0.0424, rel=0.25)  # 2 * 1.96 * sqrt(0.09 / 50)
    assert widths[1] == pytest.approx(widths[0] / 10, rel=0.25)


def test_a_figure_without_a_value_is_none():
    assert bootstrap.with_interval(np.full(5, np.nan)) == {"value": None, "ci95": None}
    assert np.isnan(bootstrap.auc(np.ones((2, 3)), np.arange(3.0), np.ones(3, bool))).all()


def test_sound_studies_take_no_part_in_figures_about_causes():
    causes = np.array([0, 1, 2, 3, 4, 0, 1, 2, 3, 4])
    p = np.random.default_rng(0).dirichlet(np.ones(5), 10)
    with_sound = np.append(causes, [SOUND] * 5), np.vstack([p, np.full((5, 5), 0.2)])
    for figure in (
        evaluate.accuracy,
        evaluate.macro_auc,
        evaluate.negative_log_likelihood,
        evaluate.calibration_error,
    ):
        assert figure(with_sound[1], with_sound[0]) == pytest.approx(figure(p, causes))


def test_maps_of_sound_and_of_unmarked_studies_take_no_part():
    maps, occupancy = np.zeros((4, 2, 5, 8, 5), np.float32), np.zeros((4, 2, 8, 5), np.float32)
    causes = np.array([2, 2, SOUND, 1])
    maps[0, :, 2, 3, 3] = maps[1, :, 2, 7, 0] = maps[2, :, 4, 0, 0] = 0.9
    occupancy[:2, :, 3, 3] = 0.5
    occupancy[3] = np.nan
    result = evaluate.map_metrics(maps, occupancy, causes)
    assert result["views"] == 4
    assert result["pointing"] == 0.5
    nothing = evaluate.map_metrics(maps[2:], occupancy[2:], causes[2:])
    assert nothing["views"] == 0
    assert np.isnan(nothing["pointing"])


def test_the_peaks_of_maps_tell_failed_from_sound():
    maps = np.zeros((5, 2, 5, 8, 5), np.float32)
    maps[np.arange(5), 1, [0, 3, 1, 2, 4], 2, 2] = [0.1, 0.3, 0.2, 0.8, 0.9]
    causes = np.array([SOUND, SOUND, 1, 2, 4])
    assert evaluate.sign_auc(maps, causes) == pytest.approx(5 / 6)
    assert np.isnan(evaluate.sign_auc(maps[2:], causes[2:]))
    assert np.isnan(evaluate.sign_auc(maps[:2], causes[:2]))


def test_accuracy_confusion_and_one_against_rest():
    failed = outcome_of([0, 0, 0, 0, 1, 2, 3, 4] * 5)
    failed.probabilities[0] = [0.1, 0.6, 0.1, 0.1, 0.1]  # one infection called loosening
    counts = bootstrap.draw(failed.causes)
    told = cause_figures.told_apart(failed, counts)
    assert told["simulated_accuracy"]["value"] == round(39 / 40, 4)
    balanced = told["simulated_accuracy_if_causes_were_equally_frequent"]
    assert balanced["value"] == round((0.95 + 4) / 5, 4)
    assert told["simulated_auc_by_cause"]["dislocation"]["value"] == 1.0
    confusion = told["simulated_confusion_true_by_called"]["studies"]
    assert confusion[0] == [19, 1, 0, 0, 0]
    rest = cause_figures.one_against_rest(failed, counts, np.full(5, 0.5))
    assert rest["value"]["value"] == round((40 * 5 - 2) / 200, 4)  # wrong about two of the causes
    assert rest["by_leading_cause"]["value"] == 0.99
    assert rest["by_cause"]["pji"]["sensitivity"]["value"] == 0.95
    assert rest["by_cause"]["aseptic_loosening"]["specificity"]["value"] == round(34 / 35, 4)


def test_calibration_error_is_the_gap_between_claimed_and_right():
    failed = outcome_of([0] * 6 + [1] * 4, np.tile([0.8, 0.05, 0.05, 0.05, 0.05], (10, 1)))
    report = cause_figures.calibration(failed, bootstrap.draw(failed.causes))
    assert report["value"]["value"] == 0.2  # 0.8 claimed, 0.6 right
    assert report["reliability"] == [
        {"from": 0.8, "to": 0.8667, "studies": 10, "mean_confidence": 0.8, "accuracy": 0.6}
    ]
    assert evaluate.calibration_error(failed.probabilities, failed.causes) == pytest.approx(0.2)


def test_the_ensemble_is_compared_with_the_best_backbone_on_the_same_studies():
    random = np.random.default_rng(0)
    failed = outcome_of(np.arange(200) % 5)
    noise = random.dirichlet(np.ones(5), (200, 4))
    failed.member_probabilities[:] = noise
    failed.member_probabilities[:, 2] = 0.8 * noise[:, 2] + 0.2 * failed.probabilities
    names = ["a", "b", "c", "d"]
    counts = bootstrap.draw(failed.causes)
    report = cause_figures.against_single(failed, counts, names)
    assert report["best_single"] == "c"
    gain = report["macro_auc"]["value"] - report["by_backbone"]["c"]["macro_auc"]["value"]
    assert report["macro_auc_difference"]["value"] == pytest.approx(gain, abs=2e-4)
    assert report["macro_auc_difference"]["ci95"][0] > 0.0


def test_plausible_sets_are_those_of_the_runtime():
    decision = Decision(
        thresholds=dict.fromkeys(CAUSES, 0.5),
        coverage=0.9,
        conformal_threshold=0.7,
        novelty_threshold=1.0,
        sign_of_failure=None,
    )
    p = [[0.4, 0.35, 0.05, 0.1, 0.1], [0.9, 0.025, 0.025, 0.025, 0.025], [0.24, 0.19] + [0.19] * 3]
    failed = outcome_of([1, 1, 0], p)
    plausible = failed.plausible(decision)
    assert plausible.sum(axis=1).tolist() == [2, 1, 1]  # the leading one always belongs
    report = cause_figures.conformal(failed, np.ones((2, 3)), plausible)
    assert report["coverage"]["value"] == round(2 / 3, 4)
    assert report["mean_size"]["value"] == round(4 / 3, 4)
    assert report["studies_by_size"] == [0, 2, 1, 0, 0, 0]
    assert report["by_cause"]["aseptic_loosening"]["coverage"]["value"] == 0.5


def test_two_causes_at_once():
    p = [[0.5, 0.4, 0.04, 0.03, 0.03], [0.2, 0.1, 0.6, 0.05, 0.05], [0.2] * 5]
    both = outcome_of([0, 0, 1], p, also=["aseptic_loosening", "aseptic_loosening", ""])
    report = cause_figures.two_causes(both, np.asarray(p) > 0.15)
    assert report["studies"] == 2
    assert report["both_are_the_two_leading"]["value"] == 0.5
    assert report["leading_is_one_of_the_two"]["value"] == 0.5
    assert report["both_are_plausible"]["value"] == 0.5
    assert report["one_is_plausible"]["value"] == 1.0
    assert report["by_pair"]["aseptic_loosening + pji"]["probability_of_the_two_together"] == 0.6


def test_subgroups_are_counted_and_tiny_ones_left_out():
    flags = ["saturated;no_implant"] * 12 + [""] * 12
    failed = outcome_of([0] * 24, stem=["a"] * 20 + ["b"] * 4, flags=flags)
    failed.probabilities[:5] = [0.1, 0.6, 0.1, 0.1, 0.1]
    report = cause_figures.by_subgroup(failed)
    assert set(report) == {"stem", "implant_found"}
    assert report["implant_found"]["not in both views"] == bootstrap.part(7, 12)
    assert set(report["stem"]) == {"a"}
    assert report["stem"]["a"] == bootstrap.part(15, 20)


def sized_outcome(limit_mm, without=0):
    """400 fractures of 0 to 4 mm, seen from `limit_mm` on, and 400 others."""
    sizes = np.concatenate([np.linspace(0.01, 4.0, 400), np.zeros(without)])
    random = np.random.default_rng(0)
    seen = np.where(sizes > limit_mm, 0.9, 0.0)
    others = np.append(random.random(380) * 0.1, np.full(20, 0.5))  # 5 % above the threshold
    p = np.zeros((len(sizes) + 400, 5))
    p[:, FRACTURE] = np.concatenate([seen, others])
    causes = np.append(np.full(len(sizes), FRACTURE), [PJI] * 200 + [SOUND] * 200)
    return outcome_of(causes, p, sign_mm=np.append(sizes, np.zeros(400)).astype(str))


def test_the_smallest_sign_found_is_where_detection_sets_in():
    outcome = sized_outcome(limit_mm=1.5)
    report = smallest_sign.smallest_signs(outcome, bootstrap.draw(outcome.causes, 100))
    fracture = report["periprosthetic_fracture"]
    assert fracture["smallest_found_mm"]["value"] == pytest.approx(1.5, abs=0.03)
    low, high = fracture["smallest_found_mm"]["ci95"]
    assert 1.4 < low <= high < 1.6
    assert fracture["sensitivity_over_all"]["value"] == 0.625
    curve = dict(zip(fracture["curve"]["mm"], fracture["curve"]["sensitivity"], strict=True))
    assert curve[0.01] == 0.0
    assert curve[4.0] == 1.0
    assert [one["value"] for one in fracture["bins"]] == [0.0] * 3 + [1.0] * 5
    assert "dislocation" not in report


@pytest.mark.parametrize(("limit_mm", "sensitivity"), [(1.4, 1.0), (1.6, 0.0)])
def test_the_curve_is_read_at_the_aim(limit_mm, sensitivity):
    outcome = sized_outcome(limit_mm)
    report = smallest_sign.smallest_signs(outcome, bootstrap.draw(outcome.causes, 20))
    assert report["periprosthetic_fracture"]["aim_mm"] == 1.5
    assert report["periprosthetic_fracture"]["sensitivity_at_aim"]["value"] == sensitivity


@pytest.mark.parametrize("limit_mm", [-1.0, 3.95])
def test_a_smallest_sign_beyond_the_simulated_sizes_is_not_named(limit_mm):
    outcome = sized_outcome(limit_mm)
    report = smallest_sign.smallest_signs(outcome, bootstrap.draw(outcome.causes, 20))
    found = report["periprosthetic_fracture"]["smallest_found_mm"]
    if limit_mm < 0:
        assert found == {"value": 0.01, "ci95": found["ci95"], "every_simulated_size": True}
    else:  # a handful of large ones is no ground for a claim
        assert found == {"value": None, "ci95": [None, None], "every_simulated_size": False}


def test_studies_without_the_measured_sign_stand_apart(tmp_path):
    outcome = sized_outcome(limit_mm=1.5, without=50)
    report = smallest_sign.smallest_signs(outcome, bootstrap.draw(outcome.causes, 20))
    fracture = report["periprosthetic_fracture"]
    assert fracture["studies"] == 400
    assert fracture["without_this_sign"]["studies"] == 50
    assert fracture["without_this_sign"]["sensitivity"]["value"] == 0.0
    assert fracture["smallest_found_mm"]["value"] == pytest.approx(1.5, abs=0.03)
    pytest.importorskip("matplotlib", reason="matplotlib (the bench extra) is not installed")
    smallest_sign.plot(report, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def mapped(peaks, mm_per_pixel=0.5):
    """Fractures whose AP shows disease in row 4, column 2, and whose map peaks at given cells."""
    n = len(peaks)
    outcome = outcome_of(
        [FRACTURE] * n,
        ap_mm_per_pixel=np.full(n, mm_per_pixel),
        lateral_mm_per_pixel=np.full(n, mm_per_pixel),
    )
    outcome.occupancy[:, 0, 4, 2] = 0.25
    for i, (row, column) in enumerate(peaks):
        outcome.maps[i, 0, FRACTURE, row, column] = 0.9
    return outcome


@pytest.mark.parametrize(
    ("mm_per_pixel", "pointing"),
    [(0.5, 0.5), (0.4, 0.75), (0.8, 0.25)],  # a cell is 4, 3.2 or 6.4 mm wide
)
def test_pointing_is_measured_in_millimetres(mm_per_pixel, pointing):
    outcome = mapped([(4, 2), (4, 3), (5, 3), (7, 2)], mm_per_pixel)
    report = map_figures.map_figures(outcome, np.ones((3, 4)), 8)
    assert report["all"]["views"] == 4  # the lateral shows nothing
    assert report["all"]["pointing"]["value"] == pointing
    assert report["by_cause"]["periprosthetic_fracture"] == report["all"]


def test_chance_and_another_studys_peak_stand_beside_the_pointing():
    outcome = mapped([(4, 2), (0, 0)])
    every = map_figures.map_figures(outcome, np.ones((3, 2)), 8)["all"]
    assert every["pointing_by_a_peak_anywhere"]["value"] == 5 / 40  # the cell and its neighbours
    assert every["pointing"]["value"] == 0.5
    assert every["pointing_by_another_study_of_the_cause"]["value"] == 0.5


def test_average_precision_of_maps_and_its_ceiling():
    outcome = mapped([(4, 2), (4, 2)])
    every = map_figures.map_figures(outcome, np.ones((3, 2)), 8)["all"]
    assert every["cell_average_precision"]["value"] == 1.0
    # A quarter of the cell is diseased: of its pixels called, one in four is right.
    assert every["pixel_average_precision"]["value"] == 0.25
    assert every["pixel_average_precision_ceiling"]["value"] == 0.25


def test_pji_risk_within_and_over_all_studies():
    n = 100
    severity = np.tile(np.linspace(0.1, 1.0, n), 2)
    causes = np.repeat([PJI, FRACTURE], n)
    p = np.zeros((2 * n, 5))
    p[:n, PJI] = severity[:n]
    p[:, FRACTURE] = 1.0 - p[:, PJI]
    crp = severity.astype(str)
    crp[-1] = ""
    outcome = outcome_of(causes, p, severity=severity, crp=crp, esr=-severity)
    report = risk_figures.pji_risk(outcome, bootstrap.draw(causes, 50))
    assert report["within_pji"]["value"] == 1.0
    assert report["overall"]["value"] == 1.0  # severity of a fracture is none of infection
    assert report["crp"]["within_pji"]["value"] == 1.0
    assert report["esr"]["within_pji"]["value"] == -1.0
    # Half of the studies ordered, half tied, against two tied halves.
    ceiling = report["overall_ceiling_without_severity"]["value"]
    assert ceiling == pytest.approx((0.75 / 0.875) ** 0.5, abs=1e-3)


def test_sound_prostheses_are_told_from_failed_ones():
    causes = np.array([SOUND] * 4 + [0, 1, 2, 3, 4, 0])
    outcome = outcome_of(causes)
    sign = np.array([0.1, 0.2, 0.3, 0.6, 0.4, 0.9, 0.9, 0.9, 0.9, 0.9])
    report = risk_figures.sign_of_failure(outcome, bootstrap.draw(causes, 50), sign, 0.35)
    assert report["studies"] == {"sound": 4, "failed": 6}
    assert report["auroc"]["value"] == round(23 / 24, 4)
    assert report["sound_flagged"]["value"] == 0.75
    assert report["failed_flagged"]["value"] == 0.0
    assert SignOfFailure(1.0, 0.0, 0.5).probability(outcome.maps[0]) < 1e-5


def test_two_views_beat_one_where_each_tells_half():
    random = np.random.default_rng(0)

    def cohort(n):
        """The AP tells causes 0, 1 from the rest, the lateral 2, 3 from the rest."""
        causes = np.arange(n) % 5
        features = random.normal(size=(n, 2, 6)).astype(np.float32)
        for k, (view, channel) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
            features[causes == k, view, channel] += 4.0
        return {"one": features, "two": features + 0.1}, np.append(causes[:-5], [SOUND] * 5)

    fitted_on, fitted_causes = cohort(205)
    features, causes = cohort(305)
    report = view_comparison(fitted_on, fitted_causes, features, causes)
    assert report["studies"] == {"fitted_on": 200, "measured": 300}
    assert report["both"]["top1_accuracy"]["value"] > 0.9
    for view in ("ap", "lateral"):
        assert 0.5 < report[view]["top1_accuracy"]["value"] < 0.75  # two causes and a third
        assert report[f"both_less_{view}"]["macro_auc"]["ci95"][0] > 0.05


def test_answers_are_kept_for_the_same_key_only(tmp_path):
    made = []

    def make():
        made.append(len(made))
        return {"a": np.array(made)}

    file = tmp_path / "kept" / "answers.npz"
    assert remembered(file, {"bundle": "x"}, make)["a"].tolist() == [0]
    assert remembered(file, {"bundle": "x"}, make)["a"].tolist() == [0]
    assert remembered(file, {"bundle": "y"}, make)["a"].tolist() == [0, 1]
    assert remembered(None, {"bundle": "y"}, make)["a"].tolist() == [0, 1, 2]
