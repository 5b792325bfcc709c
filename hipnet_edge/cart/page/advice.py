"""What a technician can do about a study that was not read, in one sentence for each reason.

What a reason means is said by the error's own message; `docs/errors-and-flags.md` lists the codes.
"""

from __future__ import annotations

from hipnet_edge.cart.admission import CONFLICT, INVALID_UID, NO_SPACE, QUEUE_FULL, UID_MISMATCH
from hipnet_edge.errors import Reason

_AGAIN = "Send the image again; if it is refused again, tell the PACS administrator."
_ANOTHER_IMAGE = "Send the radiograph itself as CR or DX for presentation, one image an object."
_HEADER = "Correct view, side and body part at the X-ray console and send the image again."
_BOTH_VIEWS = "Send one AP and one lateral radiograph of the same hip from the same study."
_NOTHING = "Nothing to do at the cart: tell the administrator the code."
_LATER = "Nothing was lost: the X-ray system sends again later; tell the administrator."

_WHAT_TO_DO: dict[str, str] = {
    **dict.fromkeys(
        (
            Reason.UNREADABLE_FILE.value,
            Reason.MISSING_IDENTIFIER.value,
            Reason.NOT_DICOM.value,
            Reason.CORRUPT_PIXELS.value,
            Reason.EMPTY_IMAGE.value,
            UID_MISMATCH,
            INVALID_UID,
        ),
        _AGAIN,
    ),
    **dict.fromkeys(
        (
            Reason.NOT_AN_IMAGE.value,
            Reason.TOO_LARGE.value,
            Reason.TOO_SMALL.value,
            Reason.UNSUPPORTED_TRANSFER_SYNTAX.value,
            Reason.UNSUPPORTED_PIXELS.value,
            Reason.WRONG_MODALITY.value,
            Reason.NOT_FOR_PRESENTATION.value,
            Reason.MULTI_FRAME.value,
        ),
        _ANOTHER_IMAGE,
    ),
    **dict.fromkeys(
        (
            Reason.NOT_A_HIP.value,
            Reason.WRONG_VIEW.value,
            Reason.UNKNOWN_VIEW.value,
            Reason.CONFLICTING_VIEW.value,
            Reason.CONFLICTING_LATERALITY.value,
            Reason.UNKNOWN_LATERALITY.value,
        ),
        _HEADER,
    ),
    **dict.fromkeys(
        (
            Reason.MISSING_VIEW.value,
            Reason.AMBIGUOUS_PAIR.value,
            Reason.DIFFERENT_PATIENTS.value,
            Reason.DIFFERENT_STUDIES.value,
            Reason.DIFFERENT_SIDES.value,
            Reason.SAME_IMAGE_TWICE.value,
            CONFLICT,
        ),
        _BOTH_VIEWS,
    ),
    **dict.fromkeys((NO_SPACE, QUEUE_FULL), _LATER),
}


def what_to_do(reason: str | None) -> str:
    """One sentence for the person at the cart; codes that nobody at the cart can mend say so."""
    return _WHAT_TO_DO.get(reason or "", _NOTHING)
