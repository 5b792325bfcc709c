"""The predictions of the store as the page needs them: one in full, many in brief."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING

from hipnet_edge.prediction import Prediction
from hipnet_edge.vocabulary import CAUSES, Cause, Flag
from hipnet_edge.wording import FLAG_WORDS, in_words

if TYPE_CHECKING:
    from hipnet_edge.cart.store import ObjectStore

_IN_FULL, _IN_BRIEF = 8, 2000


class Predictions:
    """Reads predictions; the latest are kept, as what is named by its content never changes."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.in_full = lru_cache(_IN_FULL)(self._in_full)
        self.in_brief = lru_cache(_IN_BRIEF)(self._in_brief)

    def _in_full(self, name: str) -> Prediction:
        """The prediction in a file of the store."""
        return Prediction.from_dict(json.loads(self._store.read(name)))

    def _in_brief(self, name: str) -> dict[str, object]:
        """What a line of the list says of it; its maps are not unpacked for that."""
        stored = json.loads(self._store.read(name))
        leading = Cause(stored["leading_cause"])
        return {
            "leading": probability_of(leading, stored["probabilities"][leading.value]),
            "pji_risk": number(stored["pji_risk"]),
            "flags": len(stored["flags"]),
        }


def number(value: float) -> dict[str, object]:
    """A probability as a number and in words."""
    return {"value": round(value, 6), "words": in_words(value)}


def probability_of(cause: Cause, value: float) -> dict[str, object]:
    """A cause with its probability."""
    return {"cause": cause.value, "label": cause.label, **number(value)}


def prediction_facts(prediction: Prediction) -> dict[str, object]:
    """All that a prediction says but its maps, in the words a person reads."""
    made_by = prediction.provenance
    sign = prediction.sign_of_failure
    return {
        "leading": prediction.leading_cause.value,
        "causes": [
            {
                **probability_of(cause, prediction.probabilities[cause]),
                "plausible": cause in prediction.plausible_causes,
            }
            for cause in CAUSES
        ],
        "calibrated": bool(prediction.plausible_causes),
        "pji_risk": number(prediction.pji_risk),
        "disagreement": number(prediction.disagreement),
        "sign_of_failure": None if sign is None else number(sign),
        "novelty": None if prediction.novelty is None else round(prediction.novelty, 2),
        "flags": [flag_words(flag) for flag in prediction.flags],
        "maps": bool(prediction.maps),
        "provenance": {
            "Bundle": f"{made_by.bundle_name} {made_by.bundle_version}",
            "Digest": made_by.bundle_digest[:12],
            "Variant": made_by.variant,
            "Calibration": f"this site's, overlay {made_by.overlay_digest[:12]}"
            if made_by.overlay_digest
            else "the bundle's",
            "Engine": f"{made_by.backend} {made_by.backend_version} on {made_by.device}",
            "Package": f"hipnet-edge {made_by.package_version}",
            "Time to answer": f"{prediction.timings_ms['total']:.0f} ms",
            "Stated by the operator": ", ".join(
                f"{name}: {value}" for name, value in made_by.overrides.items()
            )
            or "nothing",
            "Intended use": made_by.intended_use,
        },
    }


def flag_words(flag: Flag) -> dict[str, str]:
    """A flag and its sentence."""
    return {"flag": flag.value, "words": FLAG_WORDS[flag]}
