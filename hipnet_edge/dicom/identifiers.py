"""UIDs that follow from what they name: the same content has the same one, other content another.

So a result that is made or sent again does not appear twice in an archive, and no archive can take
one result for another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydicom.uid import UID

if TYPE_CHECKING:
    from hipnet_edge.dicom.source import SourceImage
    from hipnet_edge.prediction import Prediction
    from hipnet_edge.vocabulary import Cause, View


def derived_uid(*parts: object) -> UID:
    """A UID under 2.25 derived from its parts: the same parts always give the same one."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return UID(f"2.25.{int.from_bytes(digest[:15], 'big')}")


@dataclass(frozen=True)
class ResultUids:
    """The UIDs of the objects of one result.

    Attributes:
        content: digest of everything that shapes the objects.
        hip: the study and the side, whoever reads it.
    """

    content: str
    hip: tuple[str, str]

    def series(self, kind: str) -> UID:
        """Of the series of a kind of objects: "report", "segmentation" or "capture"."""
        return derived_uid("result series", kind, self.content)

    def instance(self, kind: str) -> UID:
        """Of one object."""
        return derived_uid("result", kind, self.content)

    def tracking(self, finding: Cause | str) -> UID:
        """Of a finding in this hip; the same in report and maps, and whichever model looks."""
        return derived_uid("finding", getattr(finding, "value", finding), *self.hip)


def result_uids(
    prediction: Prediction, sources: Mapping[View, SourceImage], station_name: str | None
) -> ResultUids:
    """UIDs derived from all that shapes the objects.

    That is all of the result but its timings: the sources' UIDs, the digests of their pixels, how
    they were read (every pixel or not, box, side, overrides), package version, digests of the
    bundle and of a site's overlay, variant, backend with version, device and settings, every
    number and the maps; and what is copied from the headers.
    """
    shaping = prediction.to_dict(maps=False)
    del shaping["timings_ms"]
    shaping["station_name"] = station_name
    digest = hashlib.sha256(json.dumps(shaping, sort_keys=True).encode())
    for view, source in sources.items():
        digest.update(prediction.maps[view].astype("<f4").tobytes())
        digest.update(source.encoded())
    _, _, study, _ = next(iter(sources.values())).uids
    side = next(iter(prediction.inputs.values())).laterality.value
    return ResultUids(digest.hexdigest(), (study, side))
