"""A result and the bytes of its objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO

import pydicom
from pydicom import Dataset
from small_study import dicom_bytes

from hipnet_edge import Prediction
from hipnet_edge.dicom import result_objects


@dataclass(frozen=True)
class Made:
    """A study, what was predicted, and the objects by kind."""

    ap: Dataset
    lateral: Dataset
    prediction: Prediction
    files: Mapping[str, bytes]

    def __getitem__(self, kind: str) -> Dataset:
        return pydicom.dcmread(BytesIO(self.files[kind]))


def objects_of(prediction: Prediction, ap: Dataset, lateral: Dataset) -> Mapping[str, bytes]:
    made = result_objects(prediction, dicom_bytes(ap), dicom_bytes(lateral))
    return {result.kind: result.to_bytes() for result in made}
