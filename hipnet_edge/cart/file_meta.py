"""The File Meta Information (PS3.10 7.1) that the cart writes in front of every image it keeps.

It follows from the image alone. So one data set is one file with one hash, whether it came over
the network, in a file of another writer or as an upload, and nothing else that a sender wrote
around it is kept.
"""

from __future__ import annotations

from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID

from hipnet_edge.dicom.identifiers import derived_uid

IMPLEMENTATION_UID = derived_uid("implementation", "hipnet_edge")
"""Implementation Class UID (PS3.7 D.3.3.2), of all versions; results carry the same."""
IMPLEMENTATION_NAME = "HIPNET"
"""Of all versions too: an image that is sent again after an update is still the same file."""


def file_head(sop_class: str, instance: str, transfer_syntax: str) -> bytes:
    """Preamble and File Meta Information of an image."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = UID(instance)
    meta.TransferSyntaxUID = UID(transfer_syntax)
    meta.ImplementationClassUID = IMPLEMENTATION_UID
    meta.ImplementationVersionName = IMPLEMENTATION_NAME
    head = DicomBytesIO()
    head.write(b"\0" * 128 + b"DICM")
    write_file_meta_info(head, meta)
    return head.getvalue()
