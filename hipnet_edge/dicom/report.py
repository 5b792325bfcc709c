"""The numbers of a result as a Comprehensive 3D SR that follows TID 1500 (PS3.16).

One measurement group (TID 1501) for each cause, with its probability; then one for the hip as a
whole, with what is said of the answer itself. Each names the algorithm (TID 4019), the hip joint
with its side, and both radiographs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage, ExplicitVRLittleEndian

from hipnet_edge.dicom import codes
from hipnet_edge.dicom.filing import MAKER, parameters
from hipnet_edge.dicom.identifiers import derived_uid
from hipnet_edge.vocabulary import CAUSES, Cause, View
from hipnet_edge.wording import FLAG_WORDS, RESEARCH_USE

if TYPE_CHECKING:
    from highdicom import sr
    from pydicom.sr.coding import Code

    from hipnet_edge.dicom.filing import Filing
    from hipnet_edge.prediction import Prediction


def report(filing: Filing) -> Dataset:
    """The report of a result, complete."""
    from highdicom import sr

    content = sr.MeasurementReport(
        observation_context=_observer(filing),
        procedure_reported=codes.PLAIN_RADIOGRAPHY,
        imaging_measurements=_groups(filing),
        title=codes.REPORT,
        language_of_content_item_and_descendants=sr.LanguageOfContentItemAndDescendants(
            sr.CodedConcept("en-US", "RFC5646", "English (United States)")
        ),
    )
    content[0].ContentSequence.append(
        sr.TextContentItem(
            name=codes.COMMENT,
            value=_comment(filing.prediction),
            relationship_type=sr.RelationshipTypeValues.CONTAINS,
        )
    )
    # highdicom's class for the document copies and searches the whole content several times.
    document = Dataset()
    for element in content[0]:
        document.add(element)
    document.SOPClassUID = Comprehensive3DSRStorage
    document.Modality = "SR"
    document.CompletionFlag, document.VerificationFlag = "COMPLETE", "UNVERIFIED"
    document.PreliminaryFlag = "PRELIMINARY"
    document.PerformedProcedureCodeSequence = []
    document.ReferencedPerformedProcedureStepSequence = []
    document.CurrentRequestedProcedureEvidenceSequence = [_evidence(filing)]
    return filing.complete(document, "report", ExplicitVRLittleEndian)


def _evidence(filing: Filing) -> Dataset:
    """Every radiograph that the report speaks of, by study and series (PS3.3 table C.17-3)."""
    by_series: dict[str, list[Dataset]] = {}
    for source in filing.sources.values():
        _, _, study, series = source.uids
        by_series.setdefault(series, []).append(source.reference())
    evidence = Dataset()
    evidence.StudyInstanceUID = study
    evidence.ReferencedSeriesSequence = []
    for series, references in by_series.items():
        one = Dataset()
        one.SeriesInstanceUID, one.ReferencedSOPSequence = series, references
        evidence.ReferencedSeriesSequence.append(one)
    return evidence


def _observer(filing: Filing) -> sr.ObservationContext:
    """The program with its bundle, as the device that observes (TID 1004)."""
    from highdicom import sr
    from pydicom.sr.codedict import codes as dictionary

    made_by = filing.prediction.provenance
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=derived_uid("observer", made_by.package_version, made_by.bundle_digest),
        name=MAKER,
        manufacturer_name=MAKER,
        model_name=MAKER,
        serial_number=made_by.bundle_digest,
    )
    observer = sr.ObserverContext(
        observer_type=sr.CodedConcept.from_code(dictionary.DCM.Device),
        observer_identifying_attributes=device,
    )
    return sr.ObservationContext(observer_device_context=observer)


def _groups(filing: Filing) -> list[sr.MeasurementsAndQualitativeEvaluations]:
    prediction = filing.prediction
    groups = []
    for cause in CAUSES:
        evaluations = []
        if prediction.plausible_causes:
            answer = codes.YES if cause in prediction.plausible_causes else codes.NO
            evaluations.append((codes.PLAUSIBLE, answer))
        measured = [(codes.PROBABILITY, prediction.probabilities[cause])]
        groups.append(_group(filing, cause, codes.CAUSES[cause], measured, evaluations))
    measured = [
        (name, value)
        for name, value in (
            (codes.PJI_RISK, prediction.pji_risk),
            (codes.DISAGREEMENT, prediction.disagreement),
            (codes.SIGN_OF_FAILURE, prediction.sign_of_failure),
            (codes.NOVELTY, prediction.novelty),
        )
        if value is not None
    ]
    flags = [(codes.FLAG, codes.of_flag(flag)) for flag in prediction.flags]
    groups.append(_group(filing, "failure", codes.ARTHROPLASTY_FAILURE, measured, flags))
    return groups


def _group(
    filing: Filing,
    tracked: Cause | str,
    finding: Code,
    measured: list[tuple[Code, float]],
    evaluations: list[tuple[Code, Code]],
) -> sr.MeasurementsAndQualitativeEvaluations:
    """One measurement group (TID 1501)."""
    from highdicom import sr

    prediction = filing.prediction
    made_by = prediction.provenance
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=filing.uids.tracking(tracked), identifier=tracking_identifier(filing, tracked)
        ),
        finding_type=finding,
        algorithm_id=sr.AlgorithmIdentification(
            name=MAKER,
            version=made_by.package_version,
            parameters=["; ".join(parameters(made_by))],
            family=codes.ARTIFICIAL_INTELLIGENCE,
            manufacturer=MAKER,
        ),
        finding_sites=[
            sr.FindingSite(
                anatomic_location=codes.HIP_JOINT,
                laterality=codes.SIDES[prediction.inputs[View.AP].laterality],
            )
        ],
        measurements=[
            sr.Measurement(name=name, value=float(value), unit=codes.NO_UNITS)
            for name, value in measured
        ],
        qualitative_evaluations=[
            sr.QualitativeEvaluation(name=name, value=value) for name, value in evaluations
        ],
        source_images=[
            sr.SourceImageForMeasurementGroup(source.uids[0], source.uids[1])
            for source in filing.sources.values()
        ],
    )


def tracking_identifier(filing: Filing, tracked: Cause | str) -> str:
    """The name of a finding in this hip, in report and maps."""
    name = tracked.label if isinstance(tracked, Cause) else "Hip as a whole"
    return f"{filing.prediction.inputs[View.AP].laterality.value} hip: {name}"


def _comment(prediction: Prediction) -> str:
    """What a reader must know, in sentences."""
    return "\r\n".join(
        [
            RESEARCH_USE,
            f"Intended use: {prediction.provenance.intended_use}",
            *(FLAG_WORDS[flag] for flag in prediction.flags),
        ]
    )
