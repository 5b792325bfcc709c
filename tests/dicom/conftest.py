"""One small study with its prediction and its objects."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom import Dataset
from result_files import Made, objects_of
from small_bundle import small_decision, small_manifest, small_model, write_bundle
from small_study import dicom_bytes, small_dicom

from hipnet_edge import Prediction, Predictor


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated bundle: all that a result can say is said."""
    model = small_model(novelty=True)
    manifest = {**small_manifest(model), "decision": small_decision()}
    return write_bundle(tmp_path_factory.mktemp("bundle") / "small", model, manifest)


@pytest.fixture(scope="session")
def predict(bundle: Path) -> Iterator[Callable[[Dataset, Dataset], Prediction]]:
    with Predictor(bundle, threads=1) as predictor:
        yield lambda ap, lateral: predictor.predict(dicom_bytes(ap), dicom_bytes(lateral))


@pytest.fixture(scope="session")
def make(predict: Callable[[Dataset, Dataset], Prediction]) -> Callable[[Dataset, Dataset], Made]:
    def made(ap: Dataset, lateral: Dataset) -> Made:
        prediction = predict(ap, lateral)
        return Made(ap, lateral, prediction, objects_of(prediction, ap, lateral))

    return made


@pytest.fixture(scope="session")
def made(make: Callable[[Dataset, Dataset], Made]) -> Made:
    return make(small_dicom("ap", 5, laterality="R"), small_dicom("lateral", 5, laterality="R"))


@pytest.fixture(scope="session")
def complaints() -> Callable[[bytes, Path], list[str]]:
    """What dciodvfy says of an object, but for what every private coding scheme brings."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy of dicom3tools is not installed")

    def of(content: bytes, folder: Path) -> list[str]:
        file = folder / "checked.dcm"
        file.write_bytes(content)
        command = ["dciodvfy", "-new", file]
        checked = subprocess.run(command, capture_output=True, text=True, check=False)
        private = ("<99HIPNET>", "CodingSchemeUID")
        return [
            line
            for line in checked.stderr.splitlines()
            if line.startswith("Error")
            or (line.startswith("Warning") and not any(word in line for word in private))
        ]

    return of
