"""Results as DICOM objects (extra `dicom`): a report, the maps of each view, a picture."""

from hipnet_edge.dicom.identifiers import derived_uid
from hipnet_edge.dicom.results import KINDS, ResultDataset, result_objects

__all__ = ["KINDS", "ResultDataset", "derived_uid", "result_objects"]
