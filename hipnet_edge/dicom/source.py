"""The two radiographs of a result as far as its objects are filed beside them.

The runtime never reads who the patient is; what is written back must say it. Here, and only here,
the patient's and the study's attributes are read, to be copied as they stand.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from hipnet_edge.dicom_reader import read_dicom, text
from hipnet_edge.errors import InputRefused, Reason, UsageError
from hipnet_edge.input_limits import refusing
from hipnet_edge.vocabulary import VIEWS, View

if TYPE_CHECKING:
    from hipnet_edge.dicom_reader import DicomSource
    from hipnet_edge.prediction import Prediction

logger = logging.getLogger(__name__)

UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
"""What every object has, and what nothing can be filed beside without."""

COPIED = (
    "SpecificCharacterSet",
    # Patient (PS3.3 C.7.1.1)
    *("PatientName", "PatientID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence"),
    *("TypeOfPatientID", "PatientBirthDate", "PatientBirthTime", "PatientSex"),
    *("PatientBirthDateInAlternativeCalendar", "PatientDeathDateInAlternativeCalendar"),
    *("PatientAlternativeCalendar", "QualityControlSubject", "ReferencedPatientSequence"),
    *("OtherPatientIDsSequence", "OtherPatientNames", "EthnicGroup", "PatientComments"),
    *("GroupOfPatientsIdentificationSequence", "SourcePatientGroupIdentificationSequence"),
    *("ResponsiblePerson", "ResponsiblePersonRole", "ResponsibleOrganization"),
    *("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"),
    # General Study (C.7.2.1)
    *("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "StudyDescription"),
    *("AccessionNumber", "IssuerOfAccessionNumberSequence", "ReferencedStudySequence"),
    *("ReferringPhysicianName", "ReferringPhysicianIdentificationSequence"),
    *("ConsultingPhysicianName", "ConsultingPhysicianIdentificationSequence"),
    *("PhysiciansOfRecord", "PhysiciansOfRecordIdentificationSequence"),
    *("NameOfPhysiciansReadingStudy", "PhysiciansReadingStudyIdentificationSequence"),
    *("RequestingServiceCodeSequence", "ProcedureCodeSequence"),
    "ReasonForPerformedProcedureCodeSequence",
    # Patient Study (C.7.2.2)
    *("AdmittingDiagnosesDescription", "AdmittingDiagnosesCodeSequence", "PatientAge"),
    *("PatientSize", "PatientSizeCodeSequence", "PatientWeight", "PatientBodyMassIndex"),
    *("MedicalAlerts", "Allergies", "SmokingStatus", "PregnancyStatus", "LastMenstrualDate"),
    *("PatientState", "Occupation", "AdditionalPatientHistory", "ReasonForVisit"),
    *("ReasonForVisitCodeSequence", "AdmissionID", "IssuerOfAdmissionIDSequence"),
    *("ServiceEpisodeID", "IssuerOfServiceEpisodeIDSequence", "ServiceEpisodeDescription"),
    # Clinical Trial Subject and Study (C.7.1.3, C.7.2.3)
    *("ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName"),
    *("ClinicalTrialSiteID", "ClinicalTrialSiteName", "ClinicalTrialSubjectID"),
    *("ClinicalTrialSubjectReadingID", "ClinicalTrialTimePointID"),
    *("ClinicalTrialProtocolEthicsCommitteeName", "ClinicalTrialTimePointDescription"),
    *("ClinicalTrialProtocolEthicsCommitteeApprovalNumber", "ConsentForClinicalTrialUseSequence"),
)
"""Copied to every object as it stands, where the source has it."""

NEVER_ABSENT = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)
"""Those of `COPIED` that may be empty but must be there (type 2)."""

EQUIPMENT = (
    *("Manufacturer", "InstitutionName", "InstitutionAddress", "StationName"),
    *("InstitutionalDepartmentName", "ManufacturerModelName", "DeviceSerialNumber"),
    "SoftwareVersions",
)
"""What took the radiograph (General Equipment, C.7.5.1)."""

LOSSY = (
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)
"""Once lossy, always so, and all that is made of it (C.7.6.1.1.5)."""

_LOOKED_AT = ("Modality", "Rows", "Columns", "PatientOrientation", *LOSSY)
_UID = re.compile(r"[0-9][0-9.]{0,63}")


@dataclass(frozen=True, eq=False)
class SourceImage:
    """A radiograph that a result was made from."""

    view: View
    header: Dataset = field(repr=False)
    """`UIDS`, `COPIED`, `EQUIPMENT` and a few more; never shown, it names the patient."""

    @property
    def uids(self) -> tuple[str, str, str, str]:
        """The values of `UIDS`."""
        sop_class, instance, study, series = (text(self.header, keyword) for keyword in UIDS)
        return sop_class, instance, study, series

    def encoded(self) -> bytes:
        """The header as bytes, to be hashed."""
        buffer = DicomBytesIO()
        buffer.is_little_endian, buffer.is_implicit_VR = True, False
        write_dataset(buffer, self.header)
        return buffer.getvalue()

    def reference(self) -> Dataset:
        """Class and instance, as an item of a sequence of references (PS3.3 table 10-11)."""
        reference = Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID, _, _ = self.uids
        return reference


def read_sources(
    prediction: Prediction, ap: DicomSource, lateral: DicomSource
) -> Mapping[View, SourceImage]:
    """Read the radiographs' headers and check that the result was made from them.

    Raises:
        InputRefused: one cannot be read, or lacks a UID (`MISSING_IDENTIFIER`).
        UsageError: the prediction was made from others.
    """
    return {
        view: _read(prediction, view, source)
        for view, source in zip(VIEWS, (ap, lateral), strict=True)
    }


def _read(prediction: Prediction, view: View, source: DicomSource) -> SourceImage:
    wanted = (*UIDS, *COPIED, *EQUIPMENT, *_LOOKED_AT)
    read = read_dicom(source, wanted).header
    header = Dataset()
    for keyword in dict.fromkeys(wanted):
        try:
            if keyword in read:
                header[keyword] = read[keyword]
        except Exception:  # noqa: PERF203 - what can't be read can't be copied; pydicom raises anything
            logger.debug("%s of the %s radiograph cannot be read", keyword, view.label)
    with refusing(Reason.NOT_DICOM, "The header is damaged and cannot be read."):
        image = SourceImage(view, header)
        missing = [
            keyword
            for keyword, uid in zip(UIDS, image.uids, strict=True)
            if not _UID.fullmatch(uid)
        ]
    if missing:
        raise InputRefused(
            Reason.MISSING_IDENTIFIER,
            f"The {view.label} radiograph has no valid {missing[0]}: nothing can be filed "
            "beside it.",
        )
    record = prediction.inputs[view]
    if record.sop_instance_uid is None:
        raise UsageError("The prediction was not made from DICOM radiographs.")
    made_from = (record.sop_instance_uid, record.study_instance_uid)
    if made_from != (image.uids[1], image.uids[2]):
        raise UsageError(f"The prediction was made from another {view.label} radiograph.")
    shape = (header.get("Rows"), header.get("Columns"))
    if shape != record.shape:
        raise UsageError(f"The prediction was made from a {view.label} radiograph of another size.")
    return image
