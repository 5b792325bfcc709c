"""Radiographs of real patients: RG1, a chest, and RG3, a tibia, from pydicom-data."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_voi_lut

from hipnet_edge.radiograph import Anatomy, Finding, Radiograph
from hipnet_edge.vocabulary import Flag, Laterality, View


@pytest.mark.parametrize(("name", "shape"), [("RG1", (1955, 1841)), ("RG3", (1760, 1760))])
def test_uncompressed_equals_lossless_jpeg_2000(real_radiograph, name, shape):
    plain = Radiograph.from_dicom(real_radiograph(f"{name}_UNCR.dcm"))
    packed = Radiograph.from_dicom(real_radiograph(f"{name}_J2KR.dcm"))
    assert plain.shape == shape
    assert plain.pixel_sha256 == packed.pixel_sha256
    np.testing.assert_array_equal(plain.stored, packed.stored)
    np.testing.assert_array_equal(plain.grey_levels(), packed.grey_levels())
    assert Flag.LOSSY_COMPRESSION not in (*plain.flags, *packed.flags)


@pytest.mark.parametrize("name", ["RG1", "RG3"])
def test_uncompressed_equals_its_lossy_jpeg_2000_twin(real_radiograph, name):
    """UNCI was stored after the lossy compression of J2KI: decoding must give the same."""
    plain = Radiograph.from_dicom(real_radiograph(f"{name}_UNCI.dcm"))
    packed = Radiograph.from_dicom(real_radiograph(f"{name}_J2KI.dcm"))
    np.testing.assert_array_equal(plain.stored, packed.stored)
    assert Flag.LOSSY_COMPRESSION in plain.flags
    assert Flag.LOSSY_COMPRESSION in packed.flags


@pytest.mark.parametrize(("name", "bits"), [("RG1", 15), ("RG3", 10)])
def test_grey_levels_agree_with_pydicom(real_radiograph, name, bits):
    path = real_radiograph(f"{name}_UNCR.dcm")
    dataset = pydicom.dcmread(path)
    shown = apply_voi_lut(dataset.pixel_array, dataset) / (2**bits - 1)
    read = Radiograph.from_dicom(path)
    # MONOCHROME1: bone is white once inverted
    np.testing.assert_allclose(read.grey_levels(), 1 - shown, atol=2e-6)


def test_what_the_chest_says_of_itself(real_radiograph):
    chest = Radiograph.from_dicom(real_radiograph("RG1_UNCR.dcm"))
    assert chest.anatomy == Finding(Anatomy.OTHER, "BodyPartExamined (0018,0015)")
    assert chest.view == Finding(View.AP, "ViewPosition (0018,5101)")  # PA, frontal
    assert chest.laterality == Finding(None, "none")
    assert chest.pixel_spacing is None  # 0.000 is no spacing
    assert Flag.NO_PIXEL_SPACING in chest.flags
    grey = chest.grey_levels()
    spine, lung = grey[1000:1200, 850:950].mean(), grey[350:450, 450:600].mean()
    assert spine > lung + 0.1


def test_what_the_tibia_says_of_itself(real_radiograph):
    tibia = Radiograph.from_dicom(real_radiograph("RG3_UNCR.dcm"))
    # EXTREMITY says nothing, but the plate was read out as a lower leg.
    assert tibia.anatomy == Finding(
        Anatomy.OTHER, "AcquisitionDeviceProcessingDescription (0018,1400)"
    )
    assert tibia.view.value is View.AP
    assert tibia.laterality == Finding(Laterality.RIGHT, "Laterality (0020,0060)")
    assert tibia.patient_left == "left"  # R\F, and the marker in the picture reads backwards
    assert tibia.voi == "Window[0] LINEAR"
    grey = tibia.grey_levels()
    cortex, beside = grey[600, 800:820].mean(), grey[600, 480:600].mean()
    assert cortex > beside + 0.3


def test_the_tibia_without_its_words_says_nothing(real_radiograph):
    dataset = pydicom.dcmread(real_radiograph("RG3_UNCR.dcm"))
    for keyword in ("BodyPartExamined", "AcquisitionDeviceProcessingDescription"):
        del dataset[keyword]
    dataset.StudyDescription = ""
    assert Radiograph.from_dicom(dataset).anatomy == Finding(None, "none")
    stated = Radiograph.from_dicom(dataset, anatomy="hip")
    assert stated.anatomy == Finding(Anatomy.HIP, "operator")
    assert stated.overrides == {"anatomy": "hip"}
