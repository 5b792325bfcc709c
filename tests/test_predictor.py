"""The predictor: two radiographs in, an answer out, again and again."""

from __future__ import annotations

import gc
import io
import json
import os
import tarfile
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from small_bundle import small_manifest, small_model, write_bundle
from small_study import dicom_bytes, pair, small_dicom

from hipnet_edge import (
    Bundle,
    BundleUnusable,
    EngineUnusable,
    Flag,
    InputRefused,
    Laterality,
    Predictor,
    Radiograph,
    Reason,
    Study,
    UsageError,
    View,
    __version__,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def predictor(folder):
    with Predictor(folder, threads=1) as predictor:
        yield predictor


@pytest.fixture(scope="module")
def study():
    return Study(*map(Radiograph.from_dicom, pair(1)))


def test_every_way_to_hand_over_a_study_gives_the_same_answer(predictor, study, tmp_path):
    ap, lateral = pair(1)
    expected = predictor.predict(study)
    (tmp_path / "a").write_bytes(ap)
    (tmp_path / "b.dcm").write_bytes(lateral)
    assert predictor.predict(ap, lateral) == expected
    assert predictor.predict(tmp_path / "a", str(tmp_path / "b.dcm")) == expected
    assert predictor.predict(small_dicom("ap", 1), small_dicom("lateral", 1)) == expected
    assert predictor.predict(Radiograph.from_dicom(ap), lateral) == expected


def test_the_same_input_twice_gives_the_same_answer(predictor, study):
    first, second = predictor.predict(study), predictor.predict(study)
    assert first == second
    one, two = first.to_dict(), second.to_dict()
    one.pop("timings_ms")
    two.pop("timings_ms")
    assert json.dumps(one) == json.dumps(two)
    assert first != predictor.predict(*pair(2))


def test_the_network_sees_what_preprocessing_made(predictor, study):
    from hipnet_edge.preprocessing import preprocess_study

    prepared = preprocess_study(study, predictor.bundle.manifest.input)
    outputs = predictor.backend.infer(prepared.radiographs[np.newaxis])
    prediction = predictor.predict(study)
    np.testing.assert_allclose(
        list(prediction.probabilities.values()), outputs.probabilities[0], atol=1e-6
    )
    assert np.array_equal(prediction.maps[View.LATERAL], outputs.maps[0, 1])


def test_ap_and_lateral_cannot_be_exchanged_unnoticed(predictor):
    ap, lateral = pair(1)
    with pytest.raises(InputRefused) as caught:
        predictor.predict(lateral, ap)
    assert caught.value.code is Reason.WRONG_VIEW


def test_the_place_says_the_view_where_the_header_is_silent(predictor):
    silent = []
    for view in ("ap", "lateral"):
        dataset = small_dicom(view, 1)
        dataset.ViewPosition = ""
        silent.append(dicom_bytes(dataset))
    record = predictor.predict(*silent).inputs[View.LATERAL]
    assert record.view is View.LATERAL
    assert "argument" in record.view_source


def test_what_the_operator_states_stands_in_the_result(predictor):
    silent = []
    for view in ("ap", "lateral"):
        dataset = small_dicom(view, 1)
        del dataset.ImageLaterality
        silent.append(dicom_bytes(dataset))
    with pytest.raises(InputRefused) as caught:
        predictor.predict(*silent)
    assert caught.value.code is Reason.UNKNOWN_LATERALITY
    prediction = predictor.predict(*silent, laterality=Laterality.RIGHT)
    assert prediction.inputs[View.AP].laterality is Laterality.RIGHT
    assert prediction.inputs[View.AP].mirrored
    assert Flag.OPERATOR_OVERRIDE in prediction.flags
    assert "right" in prediction.provenance.overrides.values()


def test_stages_are_timed(predictor, study):
    timed = predictor.predict(*pair(1)).timings_ms
    assert list(timed) == ["read", "decode", "preprocess", "inference", "total"]
    assert all(milliseconds > 0 for milliseconds in timed.values())
    assert sum(timed.values()) <= 2 * timed["total"]
    assert set(predictor.predict(study).timings_ms) == {"preprocess", "inference", "total"}


def test_two_views_are_read_at_once_where_there_are_threads(folder):
    ap, lateral = pair(1)
    with Predictor(folder, threads=2) as predictor:
        meet = threading.Barrier(2, timeout=20)  # breaks unless both are read together

        class Meeting(os.PathLike):
            def __init__(self, path):
                self.path = path

            def __fspath__(self):
                meet.wait()
                return str(self.path)

        for name, content in (("ap", ap), ("lateral", lateral)):
            (folder.parent / name).write_bytes(content)
        together = predictor.predict(*(Meeting(folder.parent / n) for n in ("ap", "lateral")))
        assert sum(together.timings_ms.values()) <= 2 * together.timings_ms["total"]
        assert together == predictor.predict(ap, lateral)


@pytest.mark.parametrize("threads", [1, 2])
def test_where_both_views_are_bad_the_ap_is_named(folder, threads):
    ap, lateral = pair(1)
    with Predictor(folder, threads=threads) as predictor:
        for first, second, code in (
            (b"junk", "/nowhere", Reason.NOT_DICOM),
            ("/nowhere", b"junk", Reason.UNREADABLE_FILE),
            (ap, b"junk", Reason.NOT_DICOM),
            (ap, ap, Reason.SAME_IMAGE_TWICE),
        ):
            with pytest.raises(InputRefused) as caught:
                predictor.predict(first, second)
            assert caught.value.code is code
        assert predictor.predict(ap, lateral).inputs[View.AP].sop_instance_uid == "1.2.3.1.1"


def test_one_archive_of_open_files_is_read_in_one_thread(folder):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for seed in range(6):
            for content in pair(seed):
                member = tarfile.TarInfo(f"{seed}-{len(tar.getmembers())}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    archive.seek(0)
    with tarfile.open(fileobj=archive) as tar, Predictor(folder, threads=2) as predictor:
        files = [tar.extractfile(member) for member in tar]
        answers = list(predictor.predict_stream(zip(files[::2], files[1::2], strict=True)))
        assert answers == [predictor.predict(*pair(seed)) for seed in range(6)]


def test_exact_stands_in_the_info_and_changes_no_uncompressed_study(folder, predictor):
    with Predictor(folder, threads=1, exact=True) as exact:
        assert exact.info()["exact"] is True
        assert exact.predict(*pair(1)) == predictor.predict(*pair(1))
    assert predictor.info()["exact"] is True  # this bundle's gate has passed no shortcut


def test_a_batch_answers_every_study_in_order(predictor, study):
    ap, lateral = pair(2)
    answers = predictor.predict_batch(iter([study, (lateral, ap), (ap, lateral), (ap, b"junk")]))
    assert answers[0] == predictor.predict(study)
    assert isinstance(answers[1], InputRefused)
    assert answers[1].code is Reason.WRONG_VIEW
    assert answers[2] == predictor.predict(ap, lateral)
    assert isinstance(answers[3], InputRefused)
    assert predictor.predict_batch([]) == []


def test_info_says_what_answers_here(predictor, folder, study):
    info = json.loads(json.dumps(predictor.info()))
    assert info["bundle"]["digest"] == Bundle.load(folder).digest
    assert info["backend"]["name"] == "onnxruntime"
    assert "fp32" in info["backend"]["reason"]
    assert info["load_ms"] > 0
    assert info["warm_up_ms"] > 0
    provenance = predictor.predict(study).provenance
    assert provenance.bundle_digest == info["bundle"]["digest"]
    assert provenance.package_version == info["package_version"] == __version__
    assert provenance.settings == info["backend"]["settings"]
    assert "Not for clinical use" in provenance.intended_use


def test_a_closed_predictor_says_so(folder, study):
    with Predictor(Bundle.load(folder), threads=1) as predictor:
        prediction = predictor.predict(study)
    for call in (
        lambda: predictor.predict(study),
        lambda: predictor.predict(b"", b""),
        lambda: predictor.predict_batch([study]),
        lambda: predictor.predict_stream([study]),
    ):
        with pytest.raises(UsageError) as caught:
            call()
        assert caught.value.code is Reason.CLOSED
    predictor.close()
    assert prediction.map_for(View.AP, "pji").max() <= 1


def test_wrong_calls_are_usage_errors(predictor, study):
    ap, _ = pair(1)
    for call in (
        lambda: predictor.predict(ap),
        lambda: predictor.predict(study, ap),
        lambda: predictor.predict(study, laterality=Laterality.LEFT),
        lambda: predictor.predict_batch([ap]),
        lambda: predictor.predict_batch([(ap,)]),
        lambda: predictor.predict_stream([], look_ahead=-1),
    ):
        with pytest.raises(UsageError):
            call()


@pytest.mark.parametrize("junk", [b"", b"junk", b"\0" * 132 + b"junk", "/nowhere/at/all"])
def test_what_cannot_be_read_is_refused(predictor, junk):
    _, lateral = pair(1)
    with pytest.raises(InputRefused):
        predictor.predict(junk, lateral)


def test_what_cannot_run_is_refused_when_loading(folder, tmp_path):
    with pytest.raises(BundleUnusable) as caught:
        Predictor(tmp_path / "nowhere")
    assert caught.value.code is Reason.BUNDLE_NOT_FOUND
    with pytest.raises(EngineUnusable):
        Predictor(folder, backend="abacus")
    with pytest.raises(EngineUnusable):
        Predictor(folder, precision="int3")
    manifest = small_manifest(small_model())
    manifest["input"]["rows"] = 256
    with pytest.raises(EngineUnusable, match="radiographs"):
        Predictor(write_bundle(tmp_path / "other", manifest=manifest))


def test_a_network_that_overflows_is_refused_in_the_warm_up(tmp_path):
    def change(model):
        for tensor in model.graph.initializer:
            if tensor.name == "mix":
                tensor.raw_data = np.full(200, np.inf, np.float32).tobytes()

    with pytest.raises(EngineUnusable) as caught:
        Predictor(write_bundle(tmp_path / "bundle", small_model(change=change)), threads=1)
    assert caught.value.code is Reason.NON_FINITE_OUTPUT


def resident_kib() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


@pytest.mark.alone
def test_memory_stays_flat_over_two_hundred_predictions(predictor):
    ap, lateral = pair(1, rows=120, columns=100)
    for _ in range(20):
        predictor.predict(ap, lateral)
    gc.collect()
    before = resident_kib()
    for _ in range(200):
        predictor.predict(ap, lateral)
    gc.collect()
    assert resident_kib() - before < 4 * 1024


def test_a_kept_result_holds_on_to_nothing_but_itself(predictor):
    study = Study(*map(Radiograph.from_dicom, pair(1, rows=120, columns=100)))
    kept = [predictor.predict(study)]
    # Traced, not resident: a result may well lie in memory that something else gave back.
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        kept += [predictor.predict(study) for _ in range(100)]
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Two stacks of maps of 50 KiB each and some words; the study's pixels would be 1,000 more.
    assert 100 * 100 < (after - before) / 1024 < 100 * 150
