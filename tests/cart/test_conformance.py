"""The Conformance Statement's tables are the code's."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from pydicom.uid import UID

from hipnet_edge.cart import commitment, door, file_meta, receive
from hipnet_edge.cart.settings import Receive
from hipnet_edge.cart.sop_classes import (
    PREFERRED_SYNTAXES,
    STORAGE_COMMITMENT,
    STORAGE_COMMITMENT_INSTANCE,
    VERIFICATION,
    storage_classes,
)

PAGE = (Path(__file__).parents[2] / "docs" / "conformance.md").read_text()
RECEIVER = Receive.model_validate({"any_caller": True})
ALL = RECEIVER.model_copy(update={"secondary_capture": True})


def _rows(heading: str, columns: int) -> list[list[str]]:
    """The cells of all tables under a heading, without their first rows."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in re.findall(r"^\|.*\|$", section, re.MULTILINE)
    ]
    return [row for row in rows if len(row) == columns and not set(row[0]) <= set("- ")]


def test_sop_classes() -> None:
    listed = {row[1].strip("`"): row for row in _rows("Overview", 4)[1:]}
    for uid, row in listed.items():
        assert row[0] == UID(uid).name.removesuffix(" SOP Class")
    provided = {uid for uid, row in listed.items() if row[3] == "yes"}
    on_request = {uid for uid, row in listed.items() if row[3] == "on request"}
    assert provided == {VERIFICATION, *storage_classes(RECEIVER)}
    assert provided | on_request == {VERIFICATION, STORAGE_COMMITMENT, *storage_classes(ALL)}
    used = {uid for uid, row in listed.items() if row[2] == "yes"}
    assert used == {row[1].strip("`") for row in _rows("AE specifications: DELIVER", 3)[1:]}


def test_transfer_syntaxes_in_their_order() -> None:
    rows = [row for row in _rows("AE specifications: RECEIVE", 2) if row[1].startswith("`1.2.840")]
    listed = [(name, uid.strip("`")) for name, uid in rows if "Application" not in name]
    assert [uid for _, uid in listed] == list(PREFERRED_SYNTAXES)
    assert [name for name, _ in listed] == [UID(uid).name for uid in PREFERRED_SYNTAXES]


def test_statuses_and_their_reasons() -> None:
    listed = {
        int(row[0].strip("`"), 16): set(re.findall(r"`(\w+)`", row[2]))
        for row in _rows("AE specifications: RECEIVE", 3)[1:]
    }
    expected = defaultdict(set, {receive.SUCCESS: set(), receive.CANNOT_UNDERSTAND: {"not_dicom"}})
    for reason, status in receive.STATUSES.items():
        expected[status].add(reason)
    assert listed == expected
    assert all(len(reason) <= 64 for reason in receive.STATUSES)


def test_storage_commitment() -> None:
    heading = "AE specifications: RECEIVE, storage commitment"
    statuses = _rows(heading, 3)[1:]
    listed = {
        reason: int(row[0].strip("`"), 16)
        for row in statuses
        for reason in re.findall(r"`(\w+)`", row[2])
    }
    assert listed == commitment.REFUSALS
    assert int(statuses[0][0].strip("`"), 16) == commitment.SUCCESS
    reasons = [int(row[0].strip("`"), 16) for row in _rows(heading, 2)[1:]]
    assert tuple(reasons) == commitment.FAILURES
    assert f"`{STORAGE_COMMITMENT_INSTANCE}`" in PAGE
    assert f"{commitment.MAX_REFERENCES:,} images" in PAGE
    assert f"{commitment.MAX_WAITING} requests" in PAGE


def test_figures_and_identifiers() -> None:
    assert f"`{file_meta.IMPLEMENTATION_UID}`" in PAGE
    assert receive.IMPLEMENTATION_VERSION.startswith("HIPNET_")
    assert f"{RECEIVER.max_pdu_bytes // 1024**2} MiB (`max_pdu_bytes`)" in PAGE
    assert f"{RECEIVER.max_associations} (`max_associations`)" in PAGE
    assert f"`idle_timeout_s` ({RECEIVER.idle_timeout_s:g} s)" in PAGE
    assert f"`max_object_mib` ({RECEIVER.max_object_mib})" in PAGE
    assert f"{door.MAX_REQUEST_BYTES // 1024} KiB" in PAGE
    assert PAGE.count(f"{receive._GIVES_WAY_S:g} s") >= 2
    assert f"port {RECEIVER.port} unless" in PAGE
