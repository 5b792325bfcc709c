"""What resolution is worth is read off small signs, and the comparison is paired."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn (the export extra) is not installed")
pytest.importorskip("scipy", reason="SciPy (the export extra) is not installed")

from benchmarks import resolution
from export.cohort import SOUND

N = 200


def made():
    """The sharp reader sees every sign from 1 mm, the blurred one from 3 mm; sizes 0 to 5 mm."""
    random = np.random.default_rng(0)
    causes = np.append(np.tile(np.arange(5), N), [SOUND] * N)
    sizes = np.append(np.tile(np.linspace(0.0, 5.0, N), (5, 1)).T.ravel(), np.zeros(N))
    answers = {}
    for name, limit in (("crop_full", 1.0), ("crop_half", 3.0)):
        p = random.random((6 * N, 5)) * 0.1
        seen = (causes >= 0) & (sizes >= limit)
        p[seen, causes[seen]] = 0.9
        answers[name] = p
    return answers, causes, sizes


def test_small_signs_tell_the_sizes_of_input_apart():
    answers, causes, sizes = made()
    pixels = {"crop_full": 0.5, "crop_half": 1.0}
    report = resolution.figures(answers, causes, sizes, pixels)
    wear = report["simulated_auc_by_size"]["polyethylene_wear"]
    assert wear["size"] == "eccentricity of the head"
    assert sum(one["studies"] for one in wear["bins"]) == N - 1  # one has no sign to measure
    second, last = wear["bins"][1], wear["bins"][-1]
    assert 1.0 <= second["mm"][0] < second["mm"][1] <= 2.1
    assert second["auc"]["crop_full"]["value"] == 1.0
    assert second["auc"]["crop_half"]["value"] == pytest.approx(0.5, abs=0.12)
    assert second["less_than_reference"]["crop_half"]["ci95"][0] > 0.2
    assert last["auc"]["crop_half"]["value"] == 1.0
    assert report["simulated_macro_auc_less_than_reference"]["crop_half"]["value"] > 0.1
    assert report["mm_per_network_pixel"] == pixels


def test_the_curves_are_drawn(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib (the bench extra) is not installed")
    answers, causes, sizes = made()
    report = resolution.figures(answers, causes, sizes, {"crop_full": 0.5, "crop_half": 1.0})
    resolution.plot(report, tmp_path / "resolution.png")
    assert (tmp_path / "resolution.png").read_bytes().startswith(b"\x89PNG")
