"""The statistics of a validation against published examples, other libraries and definitions."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy", reason="SciPy (the evaluate extra) is not installed")

from small_cohort import sample_of, scored

from hipnet_edge.errors import UsageError
from hipnet_edge.evaluation import bootstrap, causes, planning
from hipnet_edge.evaluation.comparison import mcnemar
from hipnet_edge.evaluation.figure import (
    BOOTSTRAP,
    BOOTSTRAP_LOGIT,
    DELONG,
    NEWCOMBE,
    WILSON,
    WILSON_CLUSTERED,
)
from hipnet_edge.evaluation.intervals import (
    clopper_pearson,
    delong,
    effective_studies,
    newcombe_area,
    wilson,
)
from hipnet_edge.evaluation.sample import Sample

NEWCOMBE_1998 = {  # Statistics in Medicine 17:857, table I: Wilson without correction, exact
    (81, 263): ((0.2553, 0.3662), (0.2527, 0.3676)),
    (15, 148): ((0.0624, 0.1605), (0.0578, 0.1617)),
    (0, 20): ((0.0000, 0.1611), (0.0000, 0.1684)),
    (1, 29): ((0.0061, 0.1718), (0.0009, 0.1776)),
}


@pytest.mark.parametrize(("hits", "n"), NEWCOMBE_1998)
def test_proportions_are_those_of_newcombes_table(hits, n):
    score, exact = NEWCOMBE_1998[hits, n]
    assert wilson(hits, n) == pytest.approx(score, abs=5.1e-5)
    assert clopper_pearson(hits, n) == pytest.approx(exact, abs=5.1e-5)


def test_delong_is_that_of_a_reference_implementation():
    """The variance in the tests of Yandex Data School's implementation of Sun and Xu, 2014."""
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split

    data = datasets.load_iris()
    x, x_test, y, y_test = train_test_split(
        data.data, (data.target == 1).astype(int), test_size=0.8, random_state=42
    )
    scores = LogisticRegression(solver="lbfgs").fit(x, y).predict_proba(x_test)[:, 1]
    areas = delong(scores, y_test == 1)
    assert areas.covariance[0, 0] == pytest.approx(0.0015359814789736538, abs=1e-9)


def test_delongs_covariance_is_that_of_its_definition():
    random = np.random.default_rng(0)
    scores, true = random.integers(0, 9, (2, 70)) / 9.0, random.random(70) < 0.4  # many ties
    won = [
        (s[true][:, None] > s[~true]) + 0.5 * (s[true][:, None] == s[~true]) for s in scores
    ]  # Heaviside of every pair, DeLong et al. 1988, equations 2 to 6
    m, n = int(true.sum()), int((~true).sum())
    expected = np.cov([w.mean(axis=1) for w in won]) / m + np.cov([w.mean(axis=0) for w in won]) / n
    areas = delong(scores, true)
    assert areas.values == pytest.approx([w.mean() for w in won], abs=1e-12)
    assert areas.covariance == pytest.approx(expected, abs=1e-12)
    assert areas.p_of_difference() == pytest.approx(
        delong(scores[::-1], true).p_of_difference(), abs=1e-12
    )
    assert np.isnan(delong(scores[[0, 0]], true).p_of_difference())


def test_mcnemar_is_that_of_a_published_example():
    # Airway hyper-responsiveness before and after transplantation: Fagerland, Lydersen and Laake,
    # BMC Medical Research Methodology 2013, 13:91.
    assert mcnemar(1, 7) == pytest.approx(0.0703, abs=5e-5)
    assert mcnemar(0, 0) == 1.0


def test_an_area_without_an_error_keeps_an_interval_that_narrows():
    ends = [newcombe_area(1.0, n, 4 * n)[0] for n in (5, 20, 80, 320)]
    assert ends == sorted(ends)
    assert ends[0] < 0.85 < 0.95 < ends[2] < 1.0
    assert newcombe_area(1.0, 20, 80)[1] == 1.0
    low, high = newcombe_area(0.0, 20, 80)
    assert (low, high) == (0.0, pytest.approx(1.0 - ends[1], abs=1e-9))


def test_studies_of_one_patient_count_for_what_they_add():
    random = np.random.default_rng(0)
    alike = np.repeat(random.random(200) < 0.7, 3)
    patients = np.repeat(np.arange(200), 3)
    assert effective_studies(alike, patients) == pytest.approx(200, rel=0.02)
    unlike = random.random(600) < 0.7
    assert effective_studies(unlike, patients) == pytest.approx(600, rel=0.2)
    assert effective_studies(np.ones(600, bool), patients) == 200
    assert effective_studies(unlike, np.arange(600)) == 600


def test_a_patients_studies_are_drawn_together():
    strata, clusters = np.array([0, 0, 1, 1, 1, 2, 0]), np.array([0, 1, 2, 2, 3, 4, 4])
    counts = bootstrap.draw(strata, 400, clusters=clusters)
    assert (counts[:, 2] == counts[:, 3]).all()
    assert (counts[:, 5] == counts[:, 6]).all()
    assert (counts[:, 5] == 1).all()  # the only one with the rarest stratum is always there
    assert (counts[:, 0] + counts[:, 1] == 2).all()
    alone = bootstrap.draw(strata, 50, clusters=np.arange(7))
    assert (alone == bootstrap.draw(strata, 50)).all()


def test_figures_are_those_of_scikit_learn_and_scipy():
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    from scipy.stats import pearsonr

    made = scored(300, 3)
    counts, called = np.ones((3, 300)), made.p.argmax(axis=1)
    assert causes.balanced_accuracy(counts, called == made.causes, made.causes)[0] == pytest.approx(
        metrics.balanced_accuracy_score(made.causes, called)
    )
    true = made.causes == 2
    assert causes.f1(counts, made.p[:, 2] > 0.3, true)[0] == pytest.approx(
        metrics.f1_score(true, made.p[:, 2] > 0.3)
    )
    one_hot = np.eye(5)[made.causes]
    assert causes.brier(counts, made.p, made.causes)[0] == pytest.approx(
        5 * np.mean([metrics.brier_score_loss(one_hot[:, k], made.p[:, k]) for k in range(5)])
    )
    assert causes.auc_by_cause(counts, made.p, made.causes)[0].mean() == pytest.approx(
        metrics.roc_auc_score(made.causes, made.p, multi_class="ovr")
    )
    drawn = np.random.default_rng(1).integers(0, 4, (4, 300))
    for row, rho in zip(drawn, bootstrap.pearson(drawn, made.p[:, 0], made.p[:, 1]), strict=True):
        assert rho == pytest.approx(
            pearsonr(*(np.repeat(made.p[:, k], row) for k in (0, 1))).statistic
        )
    assert np.isnan(bootstrap.pearson(counts, np.ones(300), made.p[:, 1])).all()


def test_each_figure_says_how_its_interval_was_made():
    alone = causes.figures(sample_of(200, 0))
    assert alone["accuracy"].method == WILSON
    assert alone["auc"]["pji"].method == DELONG
    assert alone["macro_auc"].method == BOOTSTRAP_LOGIT
    assert alone["brier"].method == BOOTSTRAP
    assert causes.figures(sample_of(120, 0))["auc"]["pji"].method == NEWCOMBE  # 24 patients
    assert alone["accuracy"].also[BOOTSTRAP] == pytest.approx(alone["accuracy"].interval, abs=0.02)
    assert alone["auc"]["pji"].also[BOOTSTRAP] == pytest.approx(
        alone["auc"]["pji"].interval, abs=0.02
    )
    twice = causes.figures(sample_of(400, 0, per_patient=2))
    assert twice["accuracy"].method == WILSON_CLUSTERED
    assert twice["auc"]["pji"].method == BOOTSTRAP_LOGIT
    for figure in (*alone["auc"].values(), alone["macro_auc"], twice["macro_auc"]):
        low, high = figure.interval
        assert figure.value - low > high - figure.value  # the nearer to 1, the less room above


def test_copies_of_a_study_do_not_narrow_an_interval():
    made = scored(150, 5)
    one = Sample.of(made.p, made.causes, made.patients, {})
    three = Sample.of(*(np.repeat(x, 3, axis=0) for x in (made.p, made.causes, made.patients)), {})
    for name in ("accuracy", "macro_auc", "brier"):
        widths = [np.diff(causes.figures(s)[name].interval)[0] for s in (one, three)]
        assert widths[1] == pytest.approx(widths[0], rel=0.12), name
        assert causes.figures(one)[name].value == pytest.approx(causes.figures(three)[name].value)


def test_perfect_answers_are_not_certain():
    n = 60
    labels = np.arange(n) % 5
    p = np.full((n, 5), 0.05)
    p[np.arange(n), labels] = 0.8
    figures = causes.figures(Sample.of(p, labels, np.arange(n), {}))
    assert figures["accuracy"].value == figures["macro_auc"].value == 1.0
    assert figures["accuracy"].interval[0] == pytest.approx(wilson(60, 60)[0])
    assert figures["macro_auc"].method == figures["auc"]["pji"].method == NEWCOMBE
    assert 0.8 < figures["macro_auc"].interval[0] < 0.97


def test_few_patients_have_no_interval_and_an_absent_cause_no_figure():
    few = causes.figures(sample_of(20, 0))  # four patients for each cause
    assert few["macro_auc"].value is not None
    assert few["macro_auc"].interval is None
    assert "4 patients" in few["macro_auc"].note
    made = scored(100, 0)
    keep = made.causes != 2
    absent = causes.figures(Sample.of(made.p[keep], made.causes[keep], made.patients[keep], {}))
    for figure in (absent["macro_auc"], absent["balanced_accuracy"], absent["auc"]["dislocation"]):
        assert figure.value is None
        assert "dislocation" in figure.note
    assert absent["auc"]["pji"].interval is not None
    one = causes.figures(Sample.of(made.p[:30], made.causes[:30], np.zeros(30, int), {}))
    assert one["brier"].interval is None
    assert one["accuracy"].interval[1] - one["accuracy"].interval[0] > 0.5


@pytest.mark.parametrize("clustered", [False, True])
def test_intervals_hold_the_truth_as_often_as_they_say(clustered):
    """A lean look; the full one is benchmarks/results/interval_coverage.json."""
    truth = causes.auc_by_cause(
        np.ones((1, 60_000)), *((m := scored(60_000, 9, per_patient=1 + clustered)).p, m.causes)
    )[0].mean()
    held = 0
    for seed in range(100):
        made = scored(200, 1000 + seed, per_patient=1 + clustered)
        counts = bootstrap.draw(made.causes, 200, seed, clusters=made.patients)
        areas = causes.auc_by_cause(counts, made.p, made.causes).mean(axis=1)
        low, high = np.percentile(areas[1:], [2.5, 97.5])
        held += low <= truth <= high
    assert 88 <= held <= 99


def test_a_plan_is_enough_and_no_more():
    for expected, bound, power in ((0.95, 0.9, 0.8), (0.8, 0.7, 0.9)):
        least = planning.studies_for_proportion(expected, bound, power)
        for n, is_enough in ((least - 1, False), (least, True)):
            hits = np.random.default_rng(0).binomial(n, expected, 50_000)
            reached = np.array([wilson(h, n)[0] >= bound for h in range(n + 1)])[hits].mean()
            assert (reached >= power) == is_enough
            assert reached == pytest.approx(power, abs=0.1)
    plan = planning.plan("auc", 0.9, 0.8, 0.8, 0.25)
    random, enough = np.random.default_rng(1), 0
    gap = np.sqrt(2.0) * 1.2815515655446004  # two normal curves with an area of 0.9
    for _ in range(400):
        true = np.arange(plan.patients) < plan.positives
        enough += delong(random.normal(size=plan.patients) + gap * true, true).interval()[0] >= 0.8
    assert 0.75 <= enough / 400 <= 0.93
    more = planning.plan("sensitivity", 0.9, 0.8, 0.8, 0.1)
    assert more.positives == more.counted == planning.studies_for_proportion(0.9, 0.8, 0.8)
    assert more.patients >= 10 * more.counted - 10
    with pytest.raises(UsageError, match="has the cause"):
        planning.plan("auc", 0.9, 0.8, 0.8, None)
    with pytest.raises(UsageError, match="must be below"):
        planning.plan("accuracy", 0.8, 0.9, 0.8, None)
    with pytest.raises(UsageError, match="million"):
        planning.plan("accuracy", 0.9, 0.8999, 0.8, None)
