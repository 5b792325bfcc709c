"""The latency benchmark's radiographs: of the size asked for, readable, equal in all syntaxes."""

from __future__ import annotations

import io

import numpy as np
import pydicom
import pytest

from benchmarks.latency_inputs import SYNTAXES, Missing, encoded, simulated_pair
from hipnet_edge import Predictor, Radiograph, View

UIDS = {
    "raw": "1.2.840.10008.1.2.1",
    "rle": "1.2.840.10008.1.2.5",
    "jpeg_lossless": "1.2.840.10008.1.2.4.70",
    "jpeg_ls": "1.2.840.10008.1.2.4.80",
    "j2k": "1.2.840.10008.1.2.4.90",
    "htj2k": "1.2.840.10008.1.2.4.201",
}
SHAPE = (700, 580)


@pytest.fixture(scope="module")
def pair():
    return simulated_pair(SHAPE)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_syntax_holds_the_same_pixels(pair, syntax):
    try:
        files = encoded(pair, syntax)
    except Missing as missing:
        pytest.skip(str(missing))
    for content, view in zip(files, (pair.ap, pair.lateral), strict=True):
        radiograph = Radiograph.from_dicom(content)
        assert radiograph.shape == SHAPE
        stored = np.frombuffer(view.PixelData, "<u2").reshape(SHAPE)
        assert np.array_equal(radiograph.stored, stored)
        assert radiograph.sop_instance_uid == view.SOPInstanceUID
        header = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True)
        assert header.file_meta.TransferSyntaxUID == UIDS[syntax]
    if syntax not in ("raw", "rle"):  # the noise of a radiograph is too much for runs of bytes
        assert len(files[0]) < 0.6 * len(encoded(pair, "raw")[0])


def test_jpeg_2000_is_what_a_pacs_writes(pair):
    content, _ = encoded(pair, "j2k")
    size = content.index(b"\xff\x4f\xff\x51") + 2
    tile = content[size + 22 : size + 30]
    assert tile == content[size + 6 : size + 14]  # XTsiz, YTsiz: one tile, the whole image
    assert content[size + 40] == 13  # Ssiz: 14 bits
    style = content.index(b"\xff\x52") + 5
    progression, layers = content[style], content[style + 2]
    levels, width, height, _, wavelet = content[style + 4 : style + 9]
    assert (progression, layers, levels, width, height, wavelet) == (0, 1, 5, 4, 4, 1)


def test_the_prosthesis_is_found_and_read(pair):
    files = encoded(pair, "raw")
    with Predictor.reference(backend="onnxruntime", precision="fp32") as predictor:
        prediction = predictor.predict(*files)
    assert prediction.leading_cause.value == "pji"
    found = {flag.value for flag in prediction.flags}
    assert not found & {"NO_IMPLANT", "OUT_OF_DISTRIBUTION"}
    assert {view.view for view in prediction.inputs.values()} == {View.AP, View.LATERAL}


@pytest.mark.parametrize("shape", [(600, 700), (700, 400)])
def test_any_shape_is_cut_or_padded_without_resampling(shape):
    pair = simulated_pair(shape)
    assert pair.shape == shape
    rows = np.frombuffer(pair.ap.PixelData, "<u2").reshape(shape)
    assert np.unique(rows).size > 1000
    if shape[1] > shape[0]:  # a film is higher than wide: what is missing is dark, at both sides
        dark = rows.max() if pair.ap.PhotometricInterpretation == "MONOCHROME1" else 0
        assert (rows[:, [0, -1]] == dark).all()


def test_files_are_kept_where_asked_for_only(pair, tmp_path):
    first = encoded(pair, "rle", cache=tmp_path)
    kept = sorted(tmp_path.iterdir())
    assert len(kept) == 2
    assert {path.read_bytes() for path in kept} == set(first)
    assert encoded(pair, "rle", cache=tmp_path) == first
    other = simulated_pair(SHAPE, seed=10)
    assert encoded(other, "rle", cache=tmp_path) != first
    assert len(list(tmp_path.iterdir())) == 4


def test_a_film_of_the_pelvis_is_refused():
    with pytest.raises(ValueError, match="pelvis"):
        simulated_pair(SHAPE, seed=18)
