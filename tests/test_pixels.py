"""Pixels decoded as far as they are asked for: JPEG 2000, HTJ2K at a part of their resolution."""

from __future__ import annotations

import struct

import cv2
import imagecodecs
import numpy as np
import pytest
from dicom_files import can_encode, encode, make_dicom
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGLSLossless,
)
from small_bundle import small_manifest, small_model, write_bundle

from hipnet_edge import (
    Bundle,
    InputRefused,
    Predictor,
    Radiograph,
    Reason,
    Study,
    UsageError,
    codestreams,
    openjpeg,
    survey,
)
from hipnet_edge.collimation import Box
from hipnet_edge.geometry import Geometry
from hipnet_edge.pixels import SHORTCUT, ReducedPixels, WholePixels
from hipnet_edge.preprocessing import InputSpec, preprocess_study
from hipnet_edge.render import render_page
from hipnet_edge.simulation import simulate_study
from hipnet_edge.verdict import Gate, ShortcutVerdict
from hipnet_edge.vocabulary import VIEWS, Cause

WINDOW = {"WindowCenter": 2048, "WindowWidth": 4096}
needs_openjpeg = pytest.mark.skipif(not openjpeg.available(), reason="no OpenJPEG library is found")
pytestmark = needs_openjpeg


def film(rows: int = 1920, columns: int = 800) -> np.ndarray:
    """12 bits, smooth with edges and noise."""
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    picture = 1800 + 900 * np.sin(y / 90) * np.cos(x / 70)
    picture[rows // 3 : rows // 2, columns // 3 : columns // 2] += 900
    picture += np.random.default_rng(0).normal(0, 20, picture.shape)
    return np.clip(picture, 0, 4095).astype(np.uint16)


@pytest.fixture(scope="module")
def stored() -> np.ndarray:
    return film()


@pytest.fixture(scope="module")
def reduced(stored) -> Radiograph:
    data = make_dicom(stored, transfer_syntax=JPEG2000Lossless, bits_stored=12, **WINDOW)
    return Radiograph.from_dicom(data, exact=False)


def codestream(values: np.ndarray, **options) -> bytes:
    given = {"level": 0, "reversible": True, "codecformat": "j2k", "bitspersample": 12, **options}
    return imagecodecs.jpeg2k_encode(values, **given)


@pytest.mark.parametrize("discard", [0, 1, 2, 3])
@pytest.mark.parametrize("region", [Box(501, 203, 1003, 605), Box(0, 0, 640, 800)])
def test_a_region_is_what_the_whole_has_there(stored, discard, region):
    stream = codestream(stored)
    whole = openjpeg.decode(stream, discard)
    step = 1 << discard
    there = whole[
        -(-region.top // step) : -(-region.bottom // step),
        -(-region.left // step) : -(-region.right // step),
    ]
    assert np.array_equal(openjpeg.decode(stream, discard, region), there)
    if discard == 0:
        assert np.array_equal(whole, stored)


@pytest.mark.skipif(not can_encode(HTJ2KLossless), reason="imagecodecs here has no HTJ2K encoder")
def test_both_codecs_store_the_same_small_images(stored):
    for discard in (1, 2):
        one, other = (
            openjpeg.decode(encode(stored, syntax, 12), discard)
            for syntax in (JPEG2000Lossless, HTJ2KLossless)
        )
        assert np.array_equal(np.clip(one, 0, 4095), np.clip(other, 0, 4095))


@pytest.mark.parametrize("cut", [20, 200, 0.5])
def test_a_stream_that_ends_early_is_no_image_or_a_reason_to_decode_the_whole(stored, cut):
    stream = codestream(stored[:256, :256])
    kept = int(len(stream) * cut) if cut < 1 else cut
    try:
        values = openjpeg.decode(stream[:kept], 1)
    except openjpeg.DecodingFailed:
        return
    assert values.shape == (128, 128)


def test_more_halvings_than_the_stream_has_are_refused(stored):
    with pytest.raises(openjpeg.DecodingFailed):
        openjpeg.decode(codestream(stored[:256, :256], resolutions=2), 3)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, HTJ2KLossless])
def test_a_slope_is_the_same_slope_at_every_resolution(syntax):
    """Where pixels of a smaller image lie in the full one: a shift by half a pixel would show."""
    if not can_encode(syntax):
        pytest.skip("imagecodecs here has no HTJ2K encoder")
    y, x = np.mgrid[:2560, :1200]
    slope = (y + x // 2).astype(np.uint16)
    data = make_dicom(slope, transfer_syntax=syntax, bits_stored=12, **WINDOW)
    image = Radiograph.from_dicom(data, exact=False)
    assert isinstance(image.pixels, ReducedPixels)
    for top, left, units in ((203, 101, 180), (300, 200, 300), (100, 77, 360)):
        box = Box(top, left, top + 5 * units, left + 3 * units)
        geometry = Geometry(image.shape, box, False, (480, 288))
        means = image.pixels.averaged(box, *geometry.edges(), lambda v: v.astype(np.float32))
        whole = cv2.resize(
            slope[box.slices].astype(np.float32), (288, 480), interpolation=cv2.INTER_AREA
        )
        assert np.abs(means - whole)[2:-2, 2:-2].max() < 0.6, units  # whole numbers, rounded down
    assert np.array_equal(image.pixels.coarse[1:-1, 1:-1], slope[::4, ::4][1:-1, 1:-1])


def test_means_are_those_of_all_pixels_where_nothing_is_left_out(reduced, stored):
    box = Box(400, 300, 640, 450)  # 480 x 300 from 240 x 150: not even all of them are needed
    rows, columns = np.linspace(400, 640, 25), np.linspace(300, 450, 16)
    means = reduced.pixels.averaged(box, rows, columns, lambda v: v.astype(np.float32))
    fine = reduced.pixels.averaged(
        box, np.linspace(400, 640, 241), np.linspace(300, 450, 151), lambda v: v.astype(np.float32)
    )
    assert np.array_equal(fine, stored[box.slices])
    blocks = stored[box.slices].reshape(24, 10, 15, 10).mean(axis=(1, 3))
    assert np.abs(means - blocks).mean() < 12  # noise of 20 a pixel


def test_what_is_averaged_stays_inside_what_is_seen(reduced):
    box, seen = Box(-100, -200, 1500, 800), Box(200, 100, 1500, 800)
    geometry = Geometry(reduced.shape, box, False, (512, 320))
    means = reduced.pixels.averaged(seen, *geometry.edges(), lambda v: np.ones(v.shape, np.float32))
    covered = geometry.covered(seen) > 0.5
    assert np.allclose(means[covered], 1.0)
    assert (means[:90] == 0).all()


def test_everything_is_there_when_it_is_asked_for(reduced, stored):
    assert np.array_equal(reduced.stored, stored)
    assert not reduced.stored.flags.writeable
    assert reduced.shape == stored.shape


def test_a_result_names_the_stream_where_it_cannot_name_the_pixels(reduced, stored):
    data = make_dicom(stored, transfer_syntax=JPEG2000Lossless, bits_stored=12, **WINDOW)
    exact = Radiograph.from_dicom(data)
    assert isinstance(exact.pixels, WholePixels)
    assert exact.pixel_sha256
    assert reduced.pixel_sha256 is None
    assert reduced.encoded_sha256 == exact.encoded_sha256
    plain = Radiograph.from_dicom(make_dicom(stored, bits_stored=12, **WINDOW), exact=False)
    assert plain.encoded_sha256 is None
    assert plain.pixel_sha256 == exact.pixel_sha256


@pytest.mark.parametrize("other", [JPEG2000Lossless, JPEGLSLossless])
def test_one_image_twice_is_refused_however_much_of_it_is_decoded(stored, reduced, other):
    options = {"transfer_syntax": other, "bits_stored": 12, "ViewPosition": "LL", **WINDOW}
    whole = Radiograph.from_dicom(make_dicom(stored, SOPInstanceUID="1.2.3.4", **options))
    with pytest.raises(InputRefused) as refusal:
        Study(reduced, whole)
    assert refusal.value.code is Reason.SAME_IMAGE_TWICE


@pytest.mark.parametrize(
    ("why", "options"),
    [
        ("no window: grey levels hang on the range of all pixels", {"WindowCenter": None}),
        ("padding is found in the stored values", {"PixelPaddingValue": 0}),
        ("a shutter hides pixels", {"ShutterShape": "RECTANGULAR"}),
        ("another transfer syntax", {"transfer_syntax": JPEGLSLossless}),
        ("uncompressed", {"transfer_syntax": ExplicitVRLittleEndian}),
        ("lossy: the gate saw reversible streams", {"transfer_syntax": JPEG2000}),
        ("lossy HTJ2K", {"transfer_syntax": HTJ2K}),
    ],
)
def test_what_the_shortcut_is_not_for_is_decoded_whole(stored, why, options):
    given = {"transfer_syntax": JPEG2000Lossless, "bits_stored": 12, **WINDOW, **options}
    if not can_encode(given["transfer_syntax"]):
        pytest.skip("imagecodecs here has no HTJ2K encoder")
    data = make_dicom(stored, **given)
    whole, shortcut = (Radiograph.from_dicom(data, exact=exact) for exact in (True, False))
    assert isinstance(shortcut.pixels, WholePixels), why
    assert shortcut.pixel_sha256 == whole.pixel_sha256
    assert np.array_equal(shortcut.grey_table.levels, whole.grey_table.levels)


def test_small_images_are_decoded_whole(stored):
    data = make_dicom(stored[:900], transfer_syntax=JPEG2000Lossless, bits_stored=12, **WINDOW)
    assert isinstance(Radiograph.from_dicom(data, exact=False).pixels, WholePixels)


def test_only_one_reversible_tile_from_the_origin_is_plain(stored):
    stream = bytes(codestream(stored[:256, :256]))
    assert codestreams.jpeg2000_coding(stream) == codestreams.Coding(5, True, False)
    tiled = stream[:24] + struct.pack(">2I", 128, 128) + stream[32:]
    shifted = stream[:16] + struct.pack(">2I", 1, 0) + stream[24:]
    lossy = bytes(codestream(stored[:256, :256], level=60, reversible=False))
    for other in (tiled, shifted, lossy):
        assert not codestreams.jpeg2000_coding(other).plain


def test_grey_levels_do_not_depend_on_the_shortcut(reduced, stored):
    data = make_dicom(stored, transfer_syntax=JPEG2000Lossless, bits_stored=12, **WINDOW)
    exact = Radiograph.from_dicom(data)
    assert np.array_equal(reduced.grey_table.levels, exact.grey_table.levels)
    assert reduced.flags == exact.flags


@pytest.fixture(scope="module")
def simulated():
    """One simulated study as JPEG 2000."""
    made = simulate_study(Cause.PJI, 4, pixel_spacing_mm=0.2)
    files = []
    for view in VIEWS:
        dataset = made.views[view].to_dataset()
        stream = codestream(dataset.pixel_array, bitspersample=14)
        files.append(
            make_dicom(
                dataset.pixel_array,
                transfer_syntax=JPEG2000Lossless,
                bits_stored=14,
                frame=stream,
                WindowCenter=dataset.WindowCenter,
                WindowWidth=dataset.WindowWidth,
                ViewPosition="AP" if view.value == "ap" else "LL",
                ImageLaterality=dataset.ImageLaterality,
                SOPInstanceUID=dataset.SOPInstanceUID,
            )
        )
    return tuple(files)


def test_the_network_sees_nearly_the_same(simulated):
    exact, shortcut = (
        preprocess_study(
            Study(*(Radiograph.from_dicom(file, exact=exact) for file in simulated)), InputSpec()
        )
        for exact in (True, False)
    )
    for view in VIEWS:
        one, other = exact.views[view], shortcut.views[view]
        assert one.flags == other.flags
        assert abs(one.geometry.box.top - other.geometry.box.top) <= 16
        assert one.geometry.mirrored == other.geometry.mirrored
    assert np.abs(exact.radiographs - shortcut.radiographs).mean() < 0.05
    assert not np.array_equal(exact.radiographs, shortcut.radiographs)


def test_a_film_whose_box_hangs_on_a_hair_is_decoded_whole(simulated, monkeypatch):
    monkeypatch.setattr(survey, "_STEADY", -1.0)  # no film is steady enough
    exact, shortcut = (
        Study(*(Radiograph.from_dicom(file, exact=exact) for file in simulated))
        for exact in (True, False)
    )
    prepared = preprocess_study(shortcut, InputSpec())
    assert np.array_equal(prepared.radiographs, preprocess_study(exact, InputSpec()).radiographs)
    assert all(shortcut.views[view].every_pixel for view in VIEWS)


def bundle_with(folder, passed: bool | None) -> Bundle:
    """The small test bundle with a verdict on the shortcut, or none."""
    verdicts = () if passed is None else (ShortcutVerdict(SHORTCUT, passed, 2000, "2026-11-27"),)
    gate = Gate(shortcuts=verdicts).to_dict()
    model = small_model()
    return Bundle.load(write_bundle(folder, model, {**small_manifest(model), "gate": gate}))


@pytest.mark.parametrize(
    ("passed", "exact", "used"),
    [(True, False, True), (True, True, False), (False, False, False), (None, False, False)],
)
def test_only_what_the_gate_passed_is_used(tmp_path, simulated, passed, exact, used):
    with Predictor(bundle_with(tmp_path, passed), threads=1, exact=exact) as predictor:
        result = predictor.predict(*simulated)
        whole = predictor.predict(*map(Radiograph.from_dicom, simulated))
    for view in VIEWS:
        assert result.inputs[view].every_pixel != used
        assert result.inputs[view].encoded_sha256 == whole.inputs[view].encoded_sha256
        assert whole.inputs[view].every_pixel  # a radiograph that was read before is exact
    assert type(result).from_dict(result.to_dict()) == result
    study = Study(*map(Radiograph.from_dicom, simulated))
    assert render_page(result, study).shape[2] == 3
    with pytest.raises(UsageError, match="another"):
        render_page(result, _other(study))


def _other(study: Study) -> Study:
    """The same study with one pixel changed."""
    changed = study.ap.stored.copy()
    changed[0, 0] ^= 1
    ap = Radiograph.from_array(changed, view="ap", laterality="left", anatomy="hip")
    lateral = Radiograph.from_array(
        study.lateral.stored, view="lateral", laterality="left", anatomy="hip"
    )
    return Study(ap, lateral)
