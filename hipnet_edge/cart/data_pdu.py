"""P-DATA-TF read in place: an image arrives in thousands of them.

pynetdicom copies a PDU four times on its way to the data set and describes each of its fields in
objects; with the small PDUs of many X-ray systems that costs more than all the rest of reception.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, cast

from pynetdicom.pdu_primitives import P_DATA

if TYPE_CHECKING:
    from pynetdicom.association import Association

_P_DATA_TF = 0x04
_HEADER = 6
_ITEM = struct.Struct(">IB")


class DataPdu:
    """A P-DATA-TF (PS3.8 9.3.5) of which the values stay where they were received.

    Raises:
        ValueError: its items do not fill it exactly, or one of them is empty.
    """

    def __init__(self, pdu: bytearray) -> None:
        self.values: list[tuple[int, memoryview]] = []
        view, position = memoryview(pdu), _HEADER
        while position < len(view):
            length, context_id = _ITEM.unpack_from(view, position)
            end = position + 4 + length
            if length < 2 or end > len(view):
                raise ValueError("A presentation data value does not fit its PDU.")
            self.values.append((context_id, view[position + _ITEM.size : end]))
            position = end

    def to_primitive(self) -> P_DATA:
        """The values as pynetdicom's state machine hands them on."""
        primitive = P_DATA()
        primitive.presentation_data_value_list = []
        primitive.presentation_data_value_list.extend(cast("Any", self.values))
        return primitive


def read_in_place(association: Association) -> None:
    """Have an association read P-DATA-TF this way, and all other PDUs in pynetdicom's."""
    dul = association.dul
    decode = dul._decode_pdu

    def decode_pdu(received: bytearray) -> tuple[Any, str]:
        if received[0] == _P_DATA_TF:
            return DataPdu(received), "Evt10"
        return decode(received)

    dul._decode_pdu = decode_pdu  # type: ignore[method-assign,assignment]
