"""The peers of the latency benchmark give our own answers: equal inputs, equal outputs."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.pixels import get_decoder
from pydicom.uid import JPEG2000Lossless

from benchmarks.latency_inputs import SYNTAXES, Missing, encoded, simulated_pair
from benchmarks.peers import MissingPeer, Peer, end_to_end_peers, inference_peers, yardstick
from benchmarks.peers_end_to_end import IMAGECODECS, PYLIBJPEG, Chain
from benchmarks.peers_engines import (
    FOUR_SESSIONS,
    OPENVINO_BF16,
    OPENVINO_FP32,
    OPENVINO_INT8,
    ORT_FP32,
    ORT_INT8,
)
from benchmarks.peers_yardstick import SHAPE, resnet50
from hipnet_edge import Predictor, Radiograph, Study
from hipnet_edge.backends import Outputs
from hipnet_edge.bundle import Bundle
from hipnet_edge.preprocessing import preprocess_study

NAMES = ("probabilities", "member_probabilities", "maps", "novelty")
# FP32 differs by the order of sums; the quantised and BF16 networks by what the gate allows them.
EXACT, QUANTISED = (1e-4, 1e-3), (0.05, 1.0)


@pytest.fixture(scope="module")
def bundle():
    return Bundle.reference()


@pytest.fixture(scope="module")
def pair():
    return simulated_pair((700, 580))


def present(peers):
    (peer,) = peers
    if isinstance(peer, MissingPeer):
        pytest.skip(f"{peer.name}: {peer.reason}")
    return peer


def reference(bundle, radiographs):
    with Predictor(bundle, backend="onnxruntime", precision="fp32") as predictor:
        return predictor.backend.infer(radiographs)


@pytest.mark.parametrize(
    ("name", "precision", "tolerance"),
    [
        (FOUR_SESSIONS, "fp32", EXACT),
        (ORT_FP32, "fp32", EXACT),
        (ORT_INT8, "int8", QUANTISED),
        (OPENVINO_FP32, "fp32", EXACT),
        (OPENVINO_BF16, "bf16", QUANTISED),
        (OPENVINO_INT8, "int8", QUANTISED),
    ],
)
def test_inference_peers_compute_the_same_network(bundle, name, precision, tolerance):
    peer = present(inference_peers(bundle, threads=2, only=[name]))
    assert isinstance(peer, Peer)
    assert (peer.name, peer.precision) == (name, precision)
    assert all(peer.versions.values())
    radiographs = bundle.signature("fp32").test_pattern(3)
    expected, found = reference(bundle, radiographs), peer.run(radiographs)
    assert isinstance(found, Outputs)
    for output in NAMES:
        limit = tolerance[output == "novelty"]
        wanted, given = getattr(expected, output), getattr(found, output)
        assert given.shape == wanted.shape
        # A few cells of a map may differ by more in INT8.
        assert np.percentile(np.abs(given - wanted), 99) <= limit, output
    peer.close()


def test_a_name_that_is_none_is_an_error(bundle):
    with pytest.raises(ValueError, match="no peer 'caffe'"):
        inference_peers(bundle, only=["caffe"])


def test_what_is_not_installed_is_named(bundle, monkeypatch):
    monkeypatch.setattr("benchmarks.peers.find_spec", lambda module: None)
    missing = [
        *inference_peers(bundle, only=[OPENVINO_INT8, ORT_FP32]),
        *end_to_end_peers(bundle),
        yardstick(),
    ]
    assert [type(peer) for peer in missing] == [MissingPeer] * 5
    assert missing[1].reason == "openvino is not installed"


@pytest.fixture(scope="module", params=[PYLIBJPEG, IMAGECODECS])
def chain(bundle, request):
    peer = present(end_to_end_peers(bundle, threads=2, only=[request.param]))
    yield peer
    peer.close()


@pytest.fixture(scope="module")
def ours(bundle, pair):
    """Our own answer, from the uncompressed files."""
    study = Study(*(Radiograph.from_dicom(content) for content in encoded(pair, "raw")))
    radiographs = preprocess_study(study, bundle.manifest.input).radiographs
    return reference(bundle, radiographs[np.newaxis])


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_end_to_end_peers_give_our_answer_from_every_syntax(pair, chain, ours, syntax):
    try:
        files = encoded(pair, syntax)
    except Missing as missing:
        pytest.skip(str(missing))
    found = chain.run(files)
    for output in NAMES:
        given, wanted = getattr(found, output), getattr(ours, output)
        assert np.allclose(given, wanted, atol=1e-3, rtol=1e-3), output


@pytest.mark.parametrize("seed", [5, 10, 0])
def test_the_preprocessing_is_the_same_definition(bundle, seed):
    pair = simulated_pair((700, 580), seed)
    files = encoded(pair, "raw")
    chain = Chain(bundle, None, lambda dataset: dataset.pixel_array)
    study = Study(*(Radiograph.from_dicom(content) for content in files))
    ours = preprocess_study(study, bundle.manifest.input).radiographs
    theirs = chain.radiographs(files)
    assert theirs.shape == (1, *ours.shape)
    assert theirs.dtype == np.float32
    assert np.abs(theirs[0] - ours).max() < 1e-4
    chain.close()


def test_no_other_decoder_takes_pylibjpegs_place(bundle, pair):
    peer = present(end_to_end_peers(bundle, only=[PYLIBJPEG]))
    files = encoded(pair, "j2k")
    decoder = get_decoder(JPEG2000Lossless)
    decoder.remove_plugin("pylibjpeg")
    try:
        with pytest.raises(ValueError, match="pylibjpeg"):
            peer.run(files)
    finally:
        decoder.add_plugin("pylibjpeg", ("pydicom.pixels.decoders.pylibjpeg", "_decode_frame"))
    peer.run(files)
    peer.close()


def test_the_yardstick_is_a_resnet_50():
    model = resnet50()
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("Conv") == 53
    parameters = sum(int(np.prod(weight.dims)) for weight in model.graph.initializer)
    assert 25.4e6 < parameters < 25.6e6
    peer = yardstick(threads=2)
    if isinstance(peer, MissingPeer):
        pytest.skip(peer.reason)
    views = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    classes = peer.run(views)
    assert classes.shape == (2, 1000)
    assert np.isfinite(classes).all()
    assert np.abs(classes[0] - classes[1]).max() > 1e-3  # the views are told apart
    peer.close()
