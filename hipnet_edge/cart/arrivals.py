"""How images come into the queue, and cases are made of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable
from dataclasses import astuple

from hipnet_edge.cart.listing import INSTANCE_COLUMNS
from hipnet_edge.cart.records import (
    Admitted,
    Instance,
    NewCase,
    NewRefusal,
    Settlement,
    State,
    WaitingStudy,
)
from hipnet_edge.cart.transitions import Transitions


class Arrivals(Transitions):
    """The queue up to where cases are assembled; see `queue.Queue`."""

    def admit(self, instance: Instance) -> Admitted:
        """Take an image whose file is kept.

        Raises:
            Fault: its file is not there; keep it again.
        """
        with self.database.transaction() as connection:
            there = connection.execute(
                "SELECT sha256, "
                "EXISTS (SELECT 1 FROM cases WHERE assembled AND (ap = :uid OR lateral = :uid)) "
                "FROM instances WHERE sop_instance_uid = :uid",
                {"uid": instance.sop_instance_uid},
            ).fetchone()
            if there is None:
                admitted = Admitted.NEW
            elif there[0] == instance.sha256:
                admitted = Admitted.DUPLICATE
            else:
                admitted = Admitted.CONFLICT if there[1] else Admitted.REPLACED
            if admitted in (Admitted.NEW, Admitted.REPLACED):
                self._require_file(instance.file)
                self._undo_refusals(connection, [instance.sop_instance_uid])
                _insert_instance(connection, instance)
            self._tell(
                connection,
                f"instance_{admitted.value}",
                sop=self._pseudonym(instance.sop_instance_uid),
                study=self._pseudonym(instance.study_instance_uid),
                patient=instance.patient_key,
                sha256=instance.sha256,
                source=instance.source,
            )
        return admitted

    def settle(self, study: WaitingStudy, settlement: Settlement) -> bool:
        """Make cases and refusals of a waiting study's images; what it names waits no longer.

        An image that the settlement does not name goes on waiting. A pair that is a case already
        is not made again. A case or refusal takes the place of the assembler's earlier refusals of
        the same images: a lateral that comes late is no longer missing.

        Returns:
            False if the study is not as it was when it was asked for: nothing was done then.
        """
        with self.database.transaction() as connection:
            now = self._clock()
            if not _is_current(connection, study):
                return False
            entries: tuple[NewCase | NewRefusal, ...] = (*settlement.cases, *settlement.refused)
            named = _images(entries)
            there = {entry: _case_of(connection, study, entry) for entry in entries}
            new = [entry for entry in there if there[entry] is None]
            self._undo_refusals(connection, _images(new), keep=there.values())
            for entry in new:
                self._insert_case(connection, study, entry, now)
            reasons = {**dict.fromkeys(named), **dict(settlement.unused)}
            for uid in sorted(study.new & reasons.keys()):
                connection.execute(
                    "UPDATE instances SET settled_at = ?, unused = ? WHERE sop_instance_uid = ?",
                    (now, reasons[uid], uid),
                )
                if reasons[uid] is not None:
                    sop = self._pseudonym(uid)
                    self._tell(connection, "instance_unused", sop=sop, reason=reasons[uid])
        return True

    def _insert_case(
        self,
        connection: sqlite3.Connection,
        study: WaitingStudy,
        entry: NewCase | NewRefusal,
        now: float,
    ) -> None:
        refusal = entry if isinstance(entry, NewRefusal) else None
        state = State.ASSEMBLED if refusal is None else State.REFUSED
        reason = None if refusal is None else refusal.reason
        case_id = connection.execute(
            "INSERT INTO cases (study_instance_uid, patient_key, laterality, ap, lateral, state, "
            "reason, message, next_at, created_at, updated_at, assembled) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(study.study_instance_uid, study.patient_key, entry.laterality),
                *(entry.ap, entry.lateral, state.value, reason),
                *(None if refusal is None else refusal.message, now, now, now, refusal is None),
            ),
        ).lastrowid
        if reason is not None:
            self._count_refusal(connection, reason)
        self._tell(
            connection,
            f"case_{state.value}",
            case=case_id,
            state_from=State.RECEIVED.value,
            study=self._pseudonym(study.study_instance_uid),
            patient=study.patient_key,
            ap=entry.ap and self._pseudonym(entry.ap),
            lateral=entry.lateral and self._pseudonym(entry.lateral),
            laterality=entry.laterality,
            reason=reason,
        )

    def _undo_refusals(
        self,
        connection: sqlite3.Connection,
        uids: Iterable[str],
        keep: Collection[int | None] = (),
    ) -> None:
        """Take back what the assembler refused of these images, but for the cases to keep."""
        for uid in uids:
            undone = connection.execute(
                "SELECT id, reason, created_at FROM cases "
                "WHERE NOT assembled AND (ap = ? OR lateral = ?)",
                (uid, uid),
            ).fetchall()
            for case_id, reason, created_at in undone:
                if case_id not in keep:
                    connection.execute("DELETE FROM cases WHERE id = ?", (case_id,))
                    self._take_refusal_back(connection, created_at, reason)
                    self._tell(connection, "refusal_undone", case=case_id)


def _images(entries: Iterable[NewCase | NewRefusal]) -> list[str]:
    """The SOP instance UIDs that these name, each once."""
    return list(dict.fromkeys(u for e in entries for u in (e.ap, e.lateral) if u is not None))


def _is_current(connection: sqlite3.Connection, study: WaitingStudy) -> bool:
    """Whether exactly these images are there, in these versions, and these of them wait."""
    rows = connection.execute(
        "SELECT sop_instance_uid, sha256, settled_at IS NULL FROM instances "
        "WHERE study_instance_uid = ? AND patient_key = ?",
        (study.study_instance_uid, study.patient_key),
    )
    return {tuple(row) for row in rows} == {
        (i.sop_instance_uid, i.sha256, i.sop_instance_uid in study.new) for i in study.instances
    }


def _case_of(
    connection: sqlite3.Connection, study: WaitingStudy, entry: NewCase | NewRefusal
) -> int | None:
    """The number of the case that this is already.

    A pair that the assembler once refused is none: it can be made a case.
    """
    row = connection.execute(
        "SELECT id FROM cases WHERE ap IS ? AND lateral IS ? AND laterality IS ? "
        "AND study_instance_uid = ? AND patient_key = ? AND (assembled OR ?)",
        (
            *(entry.ap, entry.lateral, entry.laterality),
            *(study.study_instance_uid, study.patient_key, isinstance(entry, NewRefusal)),
        ),
    ).fetchone()
    return None if row is None else int(row[0])


def _insert_instance(connection: sqlite3.Connection, instance: Instance) -> None:
    connection.execute(
        f"INSERT OR REPLACE INTO instances ({INSTANCE_COLUMNS}) VALUES ({', '.join('?' * 14)})",
        astuple(instance),
    )
