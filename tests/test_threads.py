"""One predictor, many threads: every result is that of its own study."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from small_bundle import write_bundle
from small_study import pair

from hipnet_edge import Predictor, Radiograph, Study, View

THREADS = 32


@pytest.mark.parametrize("engine_threads", [1, 2])
def test_thirty_two_threads_share_one_predictor(tmp_path, engine_threads):
    studies = [
        Study(*map(Radiograph.from_dicom, pair(seed, laterality=side, rows=120, columns=100)))
        for seed, side in zip(range(THREADS), itertools.cycle("LR"), strict=False)
    ]
    with Predictor(write_bundle(tmp_path / "bundle"), threads=engine_threads) as predictor:
        alone = [predictor.predict(study) for study in studies]
        gate = threading.Barrier(THREADS)

        def work(index: int) -> list[int]:
            gate.wait()
            wrong = []
            for step in range(3):
                chosen = (index + 7 * step) % THREADS
                result = predictor.predict(studies[chosen])
                named = [result.inputs[view].sop_instance_uid for view in View]
                if named != [f"1.2.3.{chosen}.1", f"1.2.3.{chosen}.2"] or result != alone[chosen]:
                    wrong.append(chosen)
            return wrong

        with ThreadPoolExecutor(THREADS) as pool:
            wrong = [index for found in pool.map(work, range(THREADS)) for index in found]
    assert wrong == []
    assert len({result.probabilities["pji"] for result in alone}) == THREADS
    assert len({result.inputs[View.AP].pixel_sha256 for result in alone}) == THREADS


def test_arrays_carry_their_own_digest_through_threads(tmp_path):
    import numpy as np

    def study(seed: int) -> Study:
        drawn = np.random.default_rng(seed).integers(0, 60000, (2, 3, 2), dtype=np.uint16)
        ap, lateral = np.kron(drawn, np.ones((1, 160, 200), np.uint16))
        stated = {"laterality": "left", "anatomy": "hip"}
        return Study(Radiograph.from_array(ap, **stated), Radiograph.from_array(lateral, **stated))

    studies = [study(seed) for seed in range(8)]
    with Predictor(write_bundle(tmp_path / "bundle"), threads=1) as predictor:
        alone = [predictor.predict(study) for study in studies]
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(predictor.predict, studies))
    assert together == alone
    for study, result in zip(studies, together, strict=True):
        assert result.inputs[View.AP].pixel_sha256 == study.ap.pixel_sha256
