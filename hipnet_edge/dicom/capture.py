"""The one-page picture of a result as a Secondary Capture (PS3.3 A.8.1), for any viewer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import RLELossless, SecondaryCaptureImageStorage

from hipnet_edge.dicom import codes
from hipnet_edge.dicom.encoding import pack_picture
from hipnet_edge.vocabulary import VIEWS, View

if TYPE_CHECKING:
    from hipnet_edge.dicom.filing import Filing
    from hipnet_edge.study import Study


def capture(filing: Filing, study: Study) -> Dataset:
    """The page as `hipnet_edge.render` draws it, complete.

    Args:
        filing: the result.
        study: its radiographs with every pixel decoded.
    """
    from hipnet_edge.render import render_page

    page = render_page(filing.prediction, study)
    dataset = Dataset()
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.Modality = "OT"
    dataset.ConversionType = "WSD"
    dataset.DateOfSecondaryCapture = filing.made_at.strftime("%Y%m%d")
    dataset.TimeOfSecondaryCapture = filing.made_at.strftime("%H%M%S")
    dataset.Laterality = filing.prediction.inputs[View.AP].laterality.dicom
    dataset.PatientOrientation = ""
    dataset.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    dataset.BurnedInAnnotation = "YES"
    dataset.DerivationDescription = "Page of an automatic reading, see the report beside it"
    dataset.SourceImageSequence = []
    for view in VIEWS:
        reference = filing.sources[view].reference()
        reference.PurposeOfReferenceCodeSequence = [codes.item(codes.SOURCE_IMAGE)]
        dataset.SourceImageSequence.append(reference)
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = page.shape
    # By pixel although RLE keeps planes apart: Orthanc shows 9 small pages where it says by plane.
    dataset.PhotometricInterpretation, dataset.PlanarConfiguration = "RGB", 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    filing.lossy_history(dataset, *VIEWS)
    dataset.PixelData = encapsulate([pack_picture(page)])
    dataset["PixelData"].is_undefined_length = True
    return filing.complete(dataset, "capture", RLELossless)
