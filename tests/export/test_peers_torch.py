"""PyTorch as a peer computes the bundle's network, with the bundle's weights."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch (the export extra) is not installed")
pytest.importorskip("sklearn", reason="scikit-learn (the export extra) is not installed")

from benchmarks.peers import MissingPeer, inference_peers
from benchmarks.peers_torch import EAGER
from hipnet_edge import Predictor
from hipnet_edge.bundle import Bundle


def test_eager_pytorch_gives_the_reference_answer():
    bundle = Bundle.reference()
    (peer,) = inference_peers(bundle, only=[EAGER])
    assert peer.precision == "fp32"
    radiographs = bundle.signature("fp32").test_pattern(3)
    with Predictor(bundle, backend="onnxruntime", precision="fp32") as predictor:
        expected = predictor.backend.infer(radiographs)
    found = peer.run(radiographs)
    for output in ("probabilities", "member_probabilities", "maps", "novelty"):
        given, wanted = getattr(found, output), getattr(expected, output)
        assert given.shape == wanted.shape
        assert np.allclose(given, wanted, atol=1e-4, rtol=1e-4), output
    peer.close()


def test_backbones_that_cannot_be_rebuilt_are_named():
    bundle = Bundle.reference()
    others = tuple(
        dataclasses.replace(backbone, name=f"my_{backbone.name}")
        for backbone in bundle.manifest.backbones
    )
    bundle.manifest = dataclasses.replace(bundle.manifest, backbones=others)
    (peer,) = inference_peers(bundle, only=[EAGER])
    assert isinstance(peer, MissingPeer)
    assert "my_resnet" in peer.reason
