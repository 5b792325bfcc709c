"""The main job with the reference bundle: real DICOM bytes in, the right answer out.

The same scene in every disguise a hospital gives it must get the same answer; what is no hip must
get none.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from dicom_files import HTJ2K_SYNTAXES, LOSSLESS, can_encode, make_dicom

from hipnet_edge import Cause, Flag, InputRefused, Laterality, Prediction, Predictor, Reason, View
from hipnet_edge.bundle import Bundle
from hipnet_edge.simulation import SimulatedStudy, simulate_study
from hipnet_edge.simulation.scene import compose

SPACING = 0.4
"""A coarse detector keeps the suite fast; the way of the data is the same."""
SIMULATED_BITS = 14


@pytest.fixture(scope="module")
def predictor():
    with Predictor.reference(threads=2) as predictor:
        yield predictor


@pytest.fixture(scope="module")
def study() -> SimulatedStudy:
    """A study that leaves the model in some doubt: a saturated answer would hide every change."""
    return simulate_study(Cause.ASEPTIC_LOOSENING, 12, pixel_spacing_mm=SPACING)


@pytest.fixture(scope="module")
def dislocation() -> SimulatedStudy:
    """A study with no doubt about it."""
    return simulate_study(Cause.DISLOCATION, 12, pixel_spacing_mm=SPACING)


def files(
    study: SimulatedStudy,
    *,
    bits: int = SIMULATED_BITS,
    both: dict[str, object] | None = None,
    ap: dict[str, object] | None = None,
    lateral: dict[str, object] | None = None,
    change: Callable[[np.ndarray], np.ndarray] | None = None,
) -> tuple[bytes, bytes]:
    """AP and lateral as DICOM bytes, with attributes of both or of one of them set or left out."""
    made = []
    for view, own in ((study.ap, ap), (study.lateral, lateral)):
        # Rounded down to fewer bits, or spread over more, as another detector would store it.
        shift = SIMULATED_BITS - bits
        stored = view.stored >> shift if shift >= 0 else view.stored << -shift
        attributes: dict[str, object] = {
            "SOPInstanceUID": f"1.2.3.{1 if view.view is View.AP else 2}",
            "ImageLaterality": view.laterality.dicom,
            "ViewPosition": "AP" if view.view is View.AP else "LL",
            "ImagerPixelSpacing": [SPACING, SPACING],
            "bits_stored": bits,
            **(both or {}),
            **(own or {}),
        }
        made.append(make_dicom(change(stored) if change else stored, **attributes))
    return made[0], made[1]


def largest_difference(one: Prediction, other: Prediction) -> float:
    return max(abs(one.probabilities[c] - other.probabilities[c]) for c in Cause)


def refusal(predictor: Predictor, *arguments: object, **options: object) -> Reason:
    with pytest.raises(InputRefused) as caught:
        predictor.predict(*arguments, **options)
    assert "\n" not in caught.value.message
    return caught.value.code


@pytest.fixture(scope="module")
def plain(predictor, study) -> Prediction:
    return predictor.predict(*files(study))


def test_the_answer_is_right_and_complete(plain):
    assert plain.leading_cause is Cause.ASEPTIC_LOOSENING
    assert plain.probabilities[Cause.ASEPTIC_LOOSENING] > 0.9
    assert all(0.0 < probability < 1.0 for probability in plain.probabilities.values())
    assert sum(plain.probabilities.values()) == pytest.approx(1.0, abs=1e-5)
    assert plain.pji_risk == plain.probabilities[Cause.PJI]
    assert Flag.MODEL_TRAINED_ON_SIMULATION in plain.flags
    assert plain.inputs[View.AP].sop_instance_uid == "1.2.3.1"
    assert plain.inputs[View.LATERAL].sop_instance_uid == "1.2.3.2"


def test_the_map_points_at_the_dislocated_head(predictor, dislocation):
    answer = predictor.predict(*files(dislocation))
    assert answer.leading_cause is Cause.DISLOCATION
    for view, simulated in dislocation.views.items():
        full = answer.map_for(view, Cause.DISLOCATION, full_resolution=True)
        assert full.shape == simulated.stored.shape
        row, column = np.unravel_index(full.argmax(), full.shape)
        reach = round(5.0 / SPACING)
        near = simulated.mask[
            max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1
        ]
        assert near.any(), f"{view.value}: the peak is more than 5 mm from the truth"


def test_the_demo_study_is_called_rightly(predictor):
    demo = simulate_study(Cause.PJI, 4)
    answer = predictor.predict(demo.ap.to_dataset(), demo.lateral.to_dataset())
    assert answer.leading_cause is Cause.PJI


@pytest.mark.parametrize("transfer_syntax", LOSSLESS, ids=lambda uid: uid.name)
def test_every_lossless_transfer_syntax_gives_the_same_answer(
    predictor, study, plain, transfer_syntax
):
    if not can_encode(transfer_syntax):
        pytest.skip("imagecodecs for Python 3.10 cannot encode HTJ2K")
    answer = predictor.predict(*files(study, both={"transfer_syntax": transfer_syntax}))
    assert largest_difference(answer, plain) <= 1e-6


@pytest.mark.skipif(not can_encode(HTJ2K_SYNTAXES[0]), reason="imagecodecs without HTJ2K")
def test_monochrome1_in_htj2k_gives_the_same_answer(predictor, study, plain):
    top = 2**SIMULATED_BITS - 1
    attributes = {"photometric": "MONOCHROME1", "transfer_syntax": HTJ2K_SYNTAXES[0]}
    inverted = files(study, both=attributes, change=lambda stored: top - stored)
    assert largest_difference(predictor.predict(*inverted), plain) <= 1e-6


@pytest.mark.parametrize("bits", [10, 11, 12, 13, 15, 16])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_every_bit_depth_gives_the_same_answer(predictor, study, plain, bits, photometric):
    def as_stored(stored: np.ndarray) -> np.ndarray:
        return stored if photometric == "MONOCHROME2" else 2**bits - 1 - stored

    answer = predictor.predict(
        *files(study, bits=bits, both={"photometric": photometric}, change=as_stored)
    )
    assert largest_difference(answer, plain) <= 2e-3


def test_padding_beside_the_image_gives_the_same_answer(predictor, study):
    """Padding beyond every real value, so that the stored grey values stay the same."""
    value = 2**SIMULATED_BITS
    roomy = {"bits_stored": SIMULATED_BITS + 1, "WindowCenter": 2**13, "WindowWidth": 2**14}

    def padded(stored: np.ndarray) -> np.ndarray:
        return np.pad(stored, ((0, 80), (40, 60)), constant_values=value)

    plain = predictor.predict(*files(study, both=roomy))
    answer = predictor.predict(*files(study, both={**roomy, "padding": value}, change=padded))
    assert largest_difference(answer, plain) <= 1e-6
    box, shifted = (r.inputs[View.AP].geometry.box for r in (plain, answer))
    assert (shifted.top, shifted.left) == (box.top, box.left + 40)


def test_a_silent_header_is_answered_by_position_and_operator(predictor, study, plain):
    silent = {"ViewPosition": "", "BodyPartExamined": "", "ImageLaterality": None}
    assert refusal(predictor, *files(study, both=silent)) is Reason.UNKNOWN_LATERALITY
    answer = predictor.predict(*files(study, both=silent), laterality=study.laterality)
    assert largest_difference(answer, plain) == 0.0
    assert answer.inputs[View.AP].view_source == "argument position"
    assert Flag.OPERATOR_OVERRIDE in answer.flags


def test_extremity_is_legal_for_a_hip(predictor, study, plain):
    answer = predictor.predict(*files(study, both={"BodyPartExamined": "EXTREMITY"}))
    assert largest_difference(answer, plain) == 0.0


def test_views_in_the_wrong_places_are_refused(predictor, study):
    ap, lateral = files(study)
    assert refusal(predictor, lateral, ap) is Reason.WRONG_VIEW
    assert refusal(predictor, ap, ap) is Reason.SAME_IMAGE_TWICE


def _bilateral(replaced: bool) -> SimulatedStudy:
    for seed in range(200):
        scene = compose(Cause.DISLOCATION, seed)
        if scene.bilateral and scene.other_hip_replaced is replaced:
            return simulate_study(Cause.DISLOCATION, seed, pixel_spacing_mm=SPACING)
    raise AssertionError("no such study among 200 seeds")


@pytest.fixture(scope="module")
def pelvis_both_replaced() -> SimulatedStudy:
    return _bilateral(replaced=True)


def test_on_a_bilateral_pelvis_the_lateral_names_the_side(predictor, pelvis_both_replaced):
    study = pelvis_both_replaced
    answer = predictor.predict(*files(study))
    assert Flag.CLIPPED_TO_SIDE in answer.flags
    assert answer.inputs[View.AP].laterality is study.laterality
    assert answer.leading_cause is Cause.DISLOCATION
    box, columns = answer.inputs[View.AP].geometry.box, study.ap.stored.shape[1]
    right_of_middle = (box.left + box.right) / 2 > columns / 2
    assert right_of_middle is (study.laterality is Laterality.LEFT)


def test_two_prostheses_and_no_side_named_are_refused(predictor, pelvis_both_replaced):
    unsaid = {"lateral": {"ImageLaterality": None}}
    code = refusal(predictor, *files(pelvis_both_replaced, **unsaid))
    assert code is Reason.UNKNOWN_LATERALITY


def test_one_prosthesis_on_a_bilateral_pelvis_names_its_side(predictor):
    study = _bilateral(replaced=False)
    answer = predictor.predict(*files(study, lateral={"ImageLaterality": None}))
    assert answer.inputs[View.AP].laterality is study.laterality


def test_collimation_on_three_sides_and_a_marker_over_the_bone(predictor, dislocation):
    white = 2**SIMULATED_BITS - 1

    def untidy(stored: np.ndarray) -> np.ndarray:
        rows, columns = stored.shape
        changed = stored.copy()
        changed[: rows // 25] = changed[:, : columns // 12] = white
        changed[:, -columns // 14 :] = white
        # A lead letter over the shaft, away from the head and the cup that make the diagnosis.
        letter = np.zeros(stored.shape, np.uint8)
        spot = (columns // 2 - 20, rows * 3 // 4)
        cv2.putText(letter, "L", spot, cv2.FONT_HERSHEY_SIMPLEX, 1.4, 255, 4)
        changed[letter > 0] = white
        return changed

    answer = predictor.predict(*files(dislocation, change=untidy))
    assert Flag.COLLIMATION_CROPPED in answer.flags
    assert answer.leading_cause is Cause.DISLOCATION


@pytest.mark.parametrize("name", ["RG1", "RG3"])
def test_other_bodies_are_refused_unless_overruled(predictor, study, real_radiograph, name):
    """Real radiographs, a chest and a tibia, in the place of the AP."""
    unsaid = {"StudyInstanceUID": None, "PatientID": None, "ImageLaterality": None}
    _, lateral = files(study, both=unsaid)
    path = real_radiograph(f"{name}_UNCR.dcm")
    assert refusal(predictor, path, lateral) is Reason.NOT_A_HIP

    from hipnet_edge import Radiograph

    said = {"view": "ap", "anatomy": "hip", "laterality": study.laterality.value}
    answer = predictor.predict(Radiograph.from_dicom(path, **said), lateral)
    assert answer.provenance.overrides["ap.anatomy"] == "hip"
    assert {Flag.OPERATOR_OVERRIDE, Flag.NO_IMPLANT} <= set(answer.flags)


def test_a_tibia_without_its_words_is_refused_by_its_pixels(predictor, study, real_radiograph):
    dataset = pydicom.dcmread(real_radiograph("RG3_UNCR.dcm"))
    kept = {"PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
            "PixelRepresentation", "SamplesPerPixel", "PhotometricInterpretation", "Modality",
            "SOPClassUID", "SOPInstanceUID"}  # fmt: skip
    for element in list(dataset):
        if element.keyword not in kept:
            del dataset[element.tag]
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    _, lateral = files(study)
    assert refusal(predictor, buffer.getvalue(), lateral) is Reason.NOT_A_HIP


def test_training_and_runtime_see_the_same_bits(tmp_path):
    """The network's input as the training cohort stores it, and as a written file gives it."""
    from export.cohort import make_study
    from export.cohort_studies import SimulatedSource
    from hipnet_edge import Study
    from hipnet_edge.preprocessing import preprocess_study
    from hipnet_edge.simulation import write_study
    from hipnet_edge.simulation.cohort import plan
    from hipnet_edge.simulation.dimensions import Site

    spec = Bundle.reference().manifest.input
    (planned,) = plan(Site.DEVELOPMENT, 1, 77, causes=[Cause.ASEPTIC_LOOSENING])
    pictures, _ = make_study(SimulatedSource([planned], SPACING), 0, spec)
    trained_on = pictures[""].radiographs
    paths = write_study(planned.simulate(SPACING), tmp_path)
    assert Path(paths["ap"]).exists()
    read = preprocess_study(Study.from_directory(tmp_path), spec)
    assert trained_on.dtype == read.radiographs.dtype == np.float32
    np.testing.assert_array_equal(trained_on, read.radiographs)


def test_thirty_two_threads_never_mix_up_their_results(predictor):
    studies = [
        files(
            simulate_study(cause, seed, pixel_spacing_mm=1.0),
            both={"StudyInstanceUID": f"1.2.{seed}", "ImagerPixelSpacing": [1.0, 1.0]},
        )
        for seed, cause in enumerate([*Cause, *Cause][:8], start=40)
    ]
    alone = [predictor.predict(*pair) for pair in studies]
    assert len({tuple(answer.probabilities.values()) for answer in alone}) == len(alone)
    work = [(index % len(studies)) for index in range(48)]
    with ThreadPoolExecutor(32) as pool:
        together = list(pool.map(lambda index: predictor.predict(*studies[index]), work))
    for index, answer in zip(work, together, strict=True):
        assert answer.probabilities == alone[index].probabilities
        assert answer.inputs == alone[index].inputs
        for view in View:
            np.testing.assert_array_equal(answer.maps[view], alone[index].maps[view])
