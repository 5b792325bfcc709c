"""From what the network said of a study to the `Prediction`, with what the bundle adds to it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from hipnet_edge import __version__
from hipnet_edge.prediction import (
    InputRecord,
    Prediction,
    Provenance,
    distribution,
    view_maps,
)
from hipnet_edge.vocabulary import VIEWS, Flag, View

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hipnet_edge.backends import Choice, Outputs
    from hipnet_edge.bundle import Bundle
    from hipnet_edge.decision import Decision
    from hipnet_edge.overlay import Overlay
    from hipnet_edge.preprocessing import StudyInput
    from hipnet_edge.study import Study


def provenance_of(bundle: Bundle, choice: Choice, overlay: Overlay | None = None) -> Provenance:
    """What every result of a bundle on an engine says of its making."""
    manifest, backend = bundle.manifest, choice.backend
    return Provenance(
        package_version=__version__,
        bundle_name=manifest.name,
        bundle_version=manifest.version,
        bundle_digest=manifest.digest,
        overlay_digest=None if overlay is None else overlay.digest,
        variant=choice.variant,
        backend=backend.name,
        backend_version=backend.version,
        device=backend.device,
        settings=backend.settings,
        overrides={},
        intended_use=manifest.intended_use,
    )


def answer(
    bundle: Bundle,
    overlay: Overlay | None,
    provenance: Provenance,
    flags: Collection[Flag],
    study: Study,
    prepared: StudyInput,
    outputs: Outputs,
    timings_ms: Mapping[str, float],
) -> Prediction:
    """The result for one study.

    Args:
        bundle: that answered.
        overlay: the site's calibration in place of the bundle's, if there is one.
        provenance: what every result of its predictor says.
        flags: what every result of its engine must say.
        study: what was given.
        prepared: what the network saw of it.
        outputs: what the network said, for a batch of one.
        timings_ms: milliseconds by stage.
    """
    manifest, maps = bundle.manifest, outputs.maps[0]
    names = [backbone.name for backbone in manifest.backbones]
    decision, fused, members = _calibrated(bundle, overlay, outputs)
    probabilities = distribution(fused)
    novelty = None if outputs.novelty is None else float(outputs.novelty[0])
    curve = None if decision is None else decision.sign_of_failure
    sign_of_failure = None if curve is None else curve.probability(maps)
    found = set(prepared.flags) | set(flags) | _findings(decision, novelty, sign_of_failure)
    if study.overrides:
        found.add(Flag.OPERATOR_OVERRIDE)
    if manifest.simulated:
        found.add(Flag.MODEL_TRAINED_ON_SIMULATION)
    return Prediction(
        probabilities=probabilities,
        member_probabilities={
            name: distribution(member) for name, member in zip(names, members, strict=True)
        },
        maps=view_maps(maps),
        plausible_causes=() if decision is None else decision.plausible_causes(probabilities),
        novelty=novelty,
        sign_of_failure=sign_of_failure,
        flags=tuple(flag for flag in Flag if flag in found),
        inputs={view: _record(study, prepared, view) for view in VIEWS},
        timings_ms=timings_ms,
        provenance=replace(provenance, overrides=study.overrides),
    )


def _calibrated(
    bundle: Bundle, overlay: Overlay | None, outputs: Outputs
) -> tuple[Decision | None, NDArray[np.floating], NDArray[np.floating]]:
    """Calibration, the ensemble's probabilities [5] and its members' [4, 5]: the site's own first.

    An overlay is fitted for bundles with a calibration only, as what it leaves out is the bundle's.
    """
    decision, members = bundle.manifest.decision, outputs.member_probabilities[0]
    if overlay is None or decision is None:
        return decision, outputs.probabilities[0], members
    return overlay.decision(decision), *overlay.probabilities(bundle, members)


def _findings(
    decision: Decision | None, novelty: float | None, sign_of_failure: float | None
) -> set[Flag]:
    """What the bundle's calibration says of an answer, as flags."""
    found = set()
    if decision is None or decision.sign_of_failure is None:
        found.add(Flag.NOT_CALIBRATED)
    elif sign_of_failure is not None and sign_of_failure < decision.sign_of_failure.threshold:
        found.add(Flag.NO_SIGN_OF_FAILURE)
    if decision is not None and novelty is not None and novelty > decision.novelty_threshold:
        found.add(Flag.OUT_OF_DISTRIBUTION)
    return found


def _record(study: Study, prepared: StudyInput, view: View) -> InputRecord:
    radiograph = study.views[view]
    return InputRecord(
        view=view,
        view_source=radiograph.view.source,
        laterality=prepared.laterality,
        laterality_source=prepared.laterality_source,
        anatomy=radiograph.anatomy.value,
        anatomy_source=radiograph.anatomy.source,
        sop_instance_uid=radiograph.sop_instance_uid,
        study_instance_uid=radiograph.study_instance_uid,
        **radiograph.named_by,
        every_pixel=radiograph.every_pixel,
        pixel_spacing=radiograph.pixel_spacing,
        exposure=radiograph.exposure,
        voi=radiograph.voi,
        geometry=prepared.views[view].geometry,
    )
