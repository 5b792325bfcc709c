"""The disease-probability maps of one view as a fractional segmentation (PS3.3 A.51).

One frame and one segment for each cause, in the radiograph's own pixels, so that a viewer lays
them over it although no radiograph has a frame of reference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import DigitalXRayImageStorageForPresentation, RLELossless

from hipnet_edge.dicom import codes
from hipnet_edge.dicom.encoding import pack_part
from hipnet_edge.dicom.filing import MAKER, NOT_FOR_CLINICAL_USE, parameters
from hipnet_edge.dicom.report import tracking_identifier
from hipnet_edge.dicom.source import NEVER_ABSENT, UIDS
from hipnet_edge.vocabulary import CAUSES, Cause, View

if TYPE_CHECKING:
    from highdicom import seg

    from hipnet_edge.dicom.filing import Filing
    from hipnet_edge.dicom.source import SourceImage

LEVELS = 255
"""Maximum Fractional Value (0062,000E): this stands for a probability of 1."""

COLOURS = {
    Cause.PJI: (55.0, 70.0, 50.0),
    Cause.ASEPTIC_LOOSENING: (80.0, 0.0, 75.0),
    Cause.DISLOCATION: (60.0, -5.0, -45.0),
    Cause.PERIPROSTHETIC_FRACTURE: (70.0, -60.0, 45.0),
    Cause.POLYETHYLENE_WEAR: (60.0, 60.0, -40.0),
}
"""Recommended colours in CIELab: red, yellow, blue, green, magenta."""


def segmentation(filing: Filing, view: View) -> Dataset:
    """The five maps over one radiograph, complete."""
    from highdicom import seg

    source, made_by = filing.sources[view], filing.prediction.provenance
    # highdicom makes all but the pixels: its way to them takes seconds for frames of this size.
    stand_in = _stand_in(source)
    dataset: Dataset = seg.Segmentation(
        source_images=[stand_in],
        pixel_array=np.zeros((1, 1, 1, len(CAUSES)), np.float32),
        segmentation_type=seg.SegmentationTypeValues.FRACTIONAL,
        fractional_type=seg.SegmentationFractionalTypeValues.PROBABILITY,
        max_fractional_value=LEVELS,
        segment_descriptions=[_segment(filing, cause) for cause in CAUSES],
        series_instance_uid=filing.uids.series("segmentation"),
        series_number=1,
        sop_instance_uid=filing.uids.instance(f"segmentation_{view.value}"),
        instance_number=1,
        manufacturer=MAKER,
        manufacturer_model_name=MAKER,
        software_versions=made_by.package_version,
        device_serial_number=made_by.bundle_digest,
        omit_empty_frames=False,
        content_label="HIPNET_MAPS",
        content_description=f"Disease-probability maps, {NOT_FOR_CLINICAL_USE.lower()}",
    )
    for element in dataset.iterall():
        if element.keyword == "ReferencedSOPClassUID":
            element.value = source.uids[0]
    dataset.Rows, dataset.Columns = filing.prediction.inputs[view].shape
    # Without a frame of reference this alone says how it lies (type 2C in PS3.3 C.7.6.1).
    dataset.PatientOrientation = source.header.get("PatientOrientation") or ""
    filing.lossy_history(dataset, view)
    dataset.PixelData = encapsulate(_frames(filing, view))
    dataset["PixelData"].is_undefined_length = True
    return filing.complete(dataset, f"segmentation_{view.value}", RLELossless)


def _stand_in(source: SourceImage) -> Dataset:
    """The radiograph as highdicom needs it: one pixel, no patient, its UIDs, and a class it knows.

    Of some classes it asks for what no radiograph has, or knows nothing of them.
    """
    stand_in = Dataset()
    for keyword, uid in zip(UIDS, source.uids, strict=True):
        setattr(stand_in, keyword, uid)
    stand_in.SOPClassUID = DigitalXRayImageStorageForPresentation
    for keyword in NEVER_ABSENT:
        setattr(stand_in, keyword, "")
    stand_in.Rows = stand_in.Columns = 1
    return stand_in


def _segment(filing: Filing, cause: Cause) -> seg.SegmentDescription:
    from highdicom import AlgorithmIdentificationSequence, seg
    from highdicom.color import CIELabColor

    made_by = filing.prediction.provenance
    described = seg.SegmentDescription(
        segment_number=CAUSES.index(cause) + 1,
        segment_label=cause.label,
        segmented_property_category=codes.ABNORMAL_STRUCTURE,
        segmented_property_type=codes.CAUSES[cause],
        algorithm_type=seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name=MAKER,
            family=codes.ARTIFICIAL_INTELLIGENCE,
            version=made_by.package_version,
            source=MAKER,
        ),
        tracking_uid=filing.uids.tracking(cause),
        tracking_id=tracking_identifier(filing, cause),
        anatomic_regions=[codes.HIP_JOINT],
        display_color=CIELabColor(*COLOURS[cause]),
    )
    side = codes.SIDES[filing.prediction.inputs[View.AP].laterality]
    described.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [codes.item(side)]
    described.SegmentationAlgorithmIdentificationSequence[0].AlgorithmParameters = "; ".join(
        parameters(made_by)
    )
    return described


def _frames(filing: Filing, view: View) -> list[bytes]:
    """The maps as 8-bit frames in the radiograph's pixels, encoded."""
    geometry = filing.prediction.inputs[view].geometry
    black = pack_part(np.zeros((1, 1), np.uint8), (0, 0), geometry.image_shape)
    frames = []
    for cells in filing.prediction.maps[view]:
        if cells.max() * LEVELS < 0.5:  # as most are: not one pixel would differ from 0
            frames.append(black)
            continue
        seen, part = geometry.map_in_box(cells)
        levels = np.asarray(cv2.convertScaleAbs(part, alpha=LEVELS), np.uint8)
        frames.append(pack_part(levels, (seen.top, seen.left), geometry.image_shape))
    return frames
