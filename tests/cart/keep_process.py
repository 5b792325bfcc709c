"""A process that receives, reads and delivers without end, to be killed by test_survival.py.

    python keep_process.py DATA RUN [STUDIES]

Each step that is done is written to stdout after the method has returned: "admit UID", "assembled
STUDY", "predicted CASE", "sent CASE DESTINATION UID". With STUDIES it stops when all of those are
delivered.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from keep_made import KINDS, Kept, pair

from hipnet_edge.cart.queue import State


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def send(kept: Kept, sender: str, studies: int) -> None:
    for number in range(studies):
        study = f"{sender}.{number}"
        while kept.queue.counts()[State.ASSEMBLED] > 4:
            time.sleep(0.001)
        for at, view in enumerate(("ap", "lateral")):
            uid = f"{study}.{at}"
            kept.queue.admit(kept.image(uid, view, study))
            say("admit", uid)


def work(kept: Kept) -> int:
    """Take every waiting thing a step further; returns how many steps were made."""
    queue, steps = kept.queue, 0
    for study in queue.waiting_studies():
        settlement = pair(study)
        if settlement.cases and queue.settle(study, settlement):
            say("assembled", study.study_instance_uid)
            steps += 1
    for _ in range(3):
        case = queue.claim(time.time())
        if case is None:
            break
        queue.predicted(case.id, *kept.results(case.id), {"pacs": KINDS, "other": KINDS[:1]})
        say("predicted", case.id)
        steps += 1
    for destination in ("pacs", "other"):
        for delivery in queue.due(destination, time.time(), 10):
            queue.sent(delivery)
            say("sent", delivery.case_id, destination, delivery.object.sop_instance_uid)
            steps += 1
    kept.trail.flush()
    return steps


def main() -> None:
    data, run, *studies = sys.argv[1:]
    kept = Kept(Path(data), time.time)
    say("open")
    count = int(studies[0]) if studies else 10_000
    senders = [
        threading.Thread(target=send, args=(kept, f"1.{run}.{n}", count), daemon=True)
        for n in range(2)
    ]
    for sender in senders:
        sender.start()
    while not studies or any(s.is_alive() for s in senders):
        work(kept)
    while work(kept):
        pass
    kept.queue.close()


if __name__ == "__main__":
    main()
