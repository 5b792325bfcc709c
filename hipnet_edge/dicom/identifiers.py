"""UIDs that follow from what they name: the same content has the same one, other content another.

So a result that is made or sent again does not appear twice in an archive, and no archive can take
one result for another.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from pydicom.uid import UID


def derived_uid(*parts: object) -> UID:
    """A UID under 2.25 derived from its parts: the same parts always give the same one."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return UID(f"2.25.{int.from_bytes(digest[:15], 'big')}")
