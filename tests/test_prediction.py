"""A prediction: what it says, that nobody can change it, and that JSON carries all of it."""

from __future__ import annotations

import copy
import json
import pickle
from importlib.resources import files

import jsonschema
import numpy as np
import pytest
from small_bundle import write_bundle
from small_study import BIRTH_DATE, PATIENT, PATIENT_ID, pair

from hipnet_edge import CAUSES, Cause, Flag, Laterality, Prediction, Predictor, UsageError, View


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    with Predictor(write_bundle(tmp_path_factory.mktemp("bundle")), threads=1) as predictor:
        yield predictor


@pytest.fixture(scope="module")
def prediction(predictor):
    return predictor.predict(*pair(1))


@pytest.fixture(scope="module")
def right(predictor):
    return predictor.predict(*pair(2, laterality="R"))


@pytest.fixture
def value(prediction):
    return json.loads(json.dumps(prediction.to_dict()))


@pytest.fixture(scope="module")
def schema():
    text = files("hipnet_edge").joinpath("prediction.schema.json").read_text("utf-8")
    return json.loads(text)


def test_what_it_says_fits_together(prediction):
    values = prediction.probabilities
    assert list(values) == list(CAUSES)
    assert sum(values.values()) == pytest.approx(1, abs=1e-12)
    assert prediction.leading_cause is max(values, key=values.get)
    assert prediction.pji_risk == values[Cause.PJI]
    assert list(prediction.member_probabilities) == ["first", "second", "third", "fourth"]
    members = np.array([list(m.values()) for m in prediction.member_probabilities.values()])
    np.testing.assert_allclose(members.mean(axis=0), list(values.values()), atol=1e-6)
    expected = 0.5 * np.abs(members - list(values.values())).sum(axis=1).mean()
    assert prediction.disagreement == pytest.approx(expected, abs=1e-12)
    assert 0 < prediction.disagreement < 1
    assert Flag.MODEL_TRAINED_ON_SIMULATION in prediction.flags


def test_it_names_its_inputs_and_no_patient(prediction):
    ap = prediction.inputs[View.AP]
    assert (ap.sop_instance_uid, ap.study_instance_uid) == ("1.2.3.1.1", "1.2.3.1")
    assert prediction.inputs[View.LATERAL].sop_instance_uid == "1.2.3.1.2"
    assert ap.laterality is Laterality.LEFT
    assert ap.shape == (480, 400)
    assert not ap.mirrored
    assert ap.pixel_spacing.source == "ImagerPixelSpacing"
    text = json.dumps(prediction.to_dict()) + repr(prediction) + str(prediction.inputs)
    for secret in (PATIENT, PATIENT_ID, BIRTH_DATE, "Doe"):
        assert secret not in text


def test_nobody_can_change_it(prediction):
    with pytest.raises(AttributeError):
        prediction.flags = ()
    with pytest.raises(TypeError):
        prediction.probabilities[Cause.PJI] = 0.0
    with pytest.raises(TypeError):
        prediction.provenance.settings["threads"] = 7
    with pytest.raises(ValueError, match="read-only"):
        prediction.maps[View.AP][0, 0, 0] = 0.0
    with pytest.raises(ValueError, match="read-only"):
        prediction.map_for(View.AP, Cause.PJI)[0, 0] = 0.0


def test_maps_by_view_and_cause(prediction):
    for view in View:
        assert prediction.maps[view].shape == (5, 64, 40)
        assert prediction.maps[view].dtype == np.float32
        for index, cause in enumerate(CAUSES):
            assert np.array_equal(prediction.map_for(view, cause), prediction.maps[view][index])
    assert np.array_equal(
        prediction.map_for("lateral", "dislocation"),
        prediction.map_for(View.LATERAL, Cause.DISLOCATION),
    )
    for view, cause in (("oblique", "pji"), ("ap", "gout")):
        with pytest.raises(UsageError):
            prediction.map_for(view, cause)


def test_maps_in_the_radiographs_own_pixels(prediction, right):
    for one, mirrored in ((prediction, False), (right, True)):
        assert one.inputs[View.AP].mirrored is mirrored
        full = one.map_for(View.AP, Cause.PJI, full_resolution=True)
        assert full.shape == (480, 400)
        assert full.dtype == np.float32
        small = one.map_for(View.AP, Cause.PJI)
        row, column = 20, 5
        here = one.inputs[View.AP].geometry.to_image([8 * column + 3.5, 8 * row + 3.5])
        x, y = (round(float(value)) for value in here)
        assert full[y, x] == pytest.approx(small[row, column], abs=0.02)


def test_json_and_back_is_exact(prediction, right, value):
    restored = Prediction.from_dict(value)
    assert restored == prediction
    assert restored.timings_ms == prediction.timings_ms
    assert restored.to_dict() == prediction.to_dict()
    assert restored != right
    full = restored.map_for(View.LATERAL, Cause.PJI, full_resolution=True)
    expected = prediction.map_for(View.LATERAL, Cause.PJI, full_resolution=True)
    assert np.array_equal(full, expected)


def test_json_without_maps(prediction):
    value = json.loads(json.dumps(prediction.to_dict(maps=False)))
    assert "maps" not in value
    assert len(json.dumps(value)) < 6000
    restored = Prediction.from_dict(value)
    assert restored.probabilities == prediction.probabilities
    assert restored.to_dict() == value
    with pytest.raises(UsageError):
        restored.map_for(View.AP, Cause.PJI)


def test_json_keeps_to_its_schema(prediction, right, schema):
    jsonschema.Draft202012Validator.check_schema(schema)
    for one in (prediction.to_dict(), prediction.to_dict(maps=False), right.to_dict()):
        jsonschema.validate(one, schema, cls=jsonschema.Draft202012Validator)
    assert set(schema["properties"]) == {
        *("schema", "leading_cause", "probabilities", "pji_risk", "disagreement"),
        *("member_probabilities", "plausible_causes", "novelty", "sign_of_failure"),
        *("flags", "inputs", "timings_ms", "provenance", "maps"),
    }
    assert schema["properties"]["flags"]["items"]["enum"] == [flag.value for flag in Flag]


def test_it_can_be_pickled_and_copied(prediction):
    assert pickle.loads(pickle.dumps(prediction)) == prediction
    assert copy.deepcopy(prediction) == prediction


WRONG = {
    "schema": (2, ("schema",)),
    "leading_cause": ("gout", ("leading_cause",)),
    "probabilities.pji": (2.0, ("probabilities", "pji")),
    "probabilities.aseptic_loosening": ("high", ("probabilities", "aseptic_loosening")),
    "probabilities": ({"pji": 1.0}, ("probabilities",)),
    "pji_risk": (0.123456, ("pji_risk",)),
    "disagreement": (None, ("disagreement",)),
    "member_probabilities": ({}, ("member_probabilities",)),
    "plausible_causes": (["gout"], ("plausible_causes",)),
    "novelty": ("far", ("novelty",)),
    "sign_of_failure": (1.5, ("sign_of_failure",)),
    "flags": (["fine"], ("flags",)),
    "inputs.ap": (None, ("inputs", "ap")),
    "inputs.ap.view": ("lateral", ("inputs", "ap", "view")),
    "inputs.lateral.laterality": ("middle", ("inputs", "lateral", "laterality")),
    "inputs.ap.anatomy": (3, ("inputs", "ap", "anatomy")),
    "inputs.ap.pixel_sha256": ("abc", ("inputs", "ap", "pixel_sha256")),
    "inputs.ap.shape": ([480], ("inputs", "ap", "shape")),
    "inputs.ap.box": ([10, 10, 10, 20], ("inputs", "ap", "box")),
    "inputs.ap.mirrored": (0, ("inputs", "ap", "mirrored")),
    "inputs.ap.pixel_spacing.row_mm": (-1, ("inputs", "ap", "pixel_spacing", "row_mm")),
    "timings_ms.total": (-1.0, ("timings_ms", "total")),
    "provenance.backend": ("", ("provenance", "backend")),
    "provenance.overrides.view": (1, ("provenance", "overrides", "view")),
    "maps.ap.shape": ([5, 64, 41], ("maps", "ap", "shape")),
    "maps.lateral.data": ("!!", ("maps", "lateral", "data")),
    "maps.ap.encoding": ("png", ("maps", "ap", "encoding")),
    "maps.lateral": (None, ("maps", "lateral")),
}


@pytest.mark.parametrize("named", WRONG)
def test_what_is_wrong_is_named(value, named):
    wrong, path = WRONG[named]
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = wrong
    with pytest.raises(UsageError, match=named.rpartition(".")[0] or named):
        Prediction.from_dict(value)


def leaves(value, path=()):
    for key, inner in value.items():
        yield (*path, key)
        if isinstance(inner, dict):
            yield from leaves(inner, (*path, key))


def test_every_missing_or_unknown_field_is_refused(prediction, schema):
    free = {("maps",), ("timings_ms", "read"), ("timings_ms", "decode")}
    for path in leaves(prediction.to_dict()):
        if path in free or path[:2] in {("provenance", "settings"), ("provenance", "overrides")}:
            continue
        value = copy.deepcopy(prediction.to_dict())
        inner = value
        for key in path[:-1]:
            inner = inner[key]
        moved = inner.pop(path[-1])
        if path[0] == "member_probabilities" and len(path) == 2:
            continue  # names of backbones are free; what is missing shows in the disagreement
        with pytest.raises(UsageError):
            Prediction.from_dict(value)
        assert not jsonschema.Draft202012Validator(schema).is_valid(value)
        inner[path[-1]], inner["unknown"] = moved, 1
        with pytest.raises(UsageError):
            Prediction.from_dict(value)


@pytest.mark.parametrize("value", [None, [], "x", 3, {}, {1: 2}])
def test_what_is_no_prediction_at_all_is_refused(value):
    with pytest.raises(UsageError):
        Prediction.from_dict(value)


def test_a_few_bytes_do_not_unfold_into_gigabytes(value):
    import base64
    import zlib

    value["maps"]["ap"]["data"] = base64.b64encode(zlib.compress(bytes(50_000_000))).decode()
    with pytest.raises(UsageError, match=r"maps\.ap\.data"):
        Prediction.from_dict(value)
