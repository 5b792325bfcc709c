"""Reading goes wrong for one study, for the engine, for the process: the others are read."""

from __future__ import annotations

import time

from flowing import Setup, finished, running, study, wait_for
from small_study import dicom_bytes, small_dicom

from hipnet_edge.cart.records import State
from hipnet_edge.errors import Reason


def admit(cart, *files: bytes) -> None:
    for file in files:
        assert cart.admission.admit(file, source="upload").accepted


def test_what_the_predictor_refuses_is_refused_with_its_reason(tmp_path, bundle):
    setup = Setup(tmp_path, bundle)
    with running(setup, setup.configuration(page=False)) as cart:
        ap = small_dicom("ap", 1, rows=320, columns=240)
        ap.PixelData = bytes(len(ap.PixelData))  # every pixel the same
        admit(cart, dicom_bytes(ap), study(1)[1], *study(2))
        wait_for(lambda: finished(cart.queue))
        (refused,) = cart.queue.cases(state=State.REFUSED)
        (delivered,) = cart.queue.cases(state=State.DELIVERED)
    assert refused.reason == Reason.EMPTY_IMAGE.value
    assert (refused.study_instance_uid, delivered.study_instance_uid) == ("1.2.3.1", "1.2.3.2")


def test_a_study_that_cannot_be_read_does_not_keep_the_others(tmp_path, bundle):
    setup = Setup(tmp_path, bundle)
    with running(setup, setup.configuration(page=False)) as cart:
        poison, good = study(1), study(2)
        admit(cart, *poison)
        (waiting,) = cart.queue.waiting_studies()
        cart.store.path(waiting.instances[0].file).write_bytes(b"damaged")
        admit(cart, *good)
        wait_for(lambda: cart.queue.counts()[State.DELIVERED] == 1)
        (case,) = cart.queue.cases(state=State.ASSEMBLED)
        assert (case.study_instance_uid, case.reason) == ("1.2.3.1", Reason.INTERNAL.value)
        assert case.next_at > time.time() - 1
        admit(cart, *poison)  # sent again, the file is whole again
        wait_for(lambda: cart.queue.counts()[State.DELIVERED] == 2)


def test_a_broken_engine_is_loaded_anew_and_no_study_pays_for_it(tmp_path, bundle):
    setup = Setup(tmp_path, bundle)
    with running(setup, setup.configuration(page=False)) as cart:
        broken = cart.predictor
        broken.backend.close()
        admit(cart, *study(1))
        wait_for(lambda: not cart.engine.ready, 10)
        assert cart.not_ready() == ["predictor"]
        wait_for(lambda: finished(cart.queue), 30)
        (case,) = cart.queue.cases(state=State.DELIVERED)
        assert case.attempts == 1
        assert cart.ready()
        assert cart.predictor is not broken


def test_what_was_begun_goes_on_after_a_restart(tmp_path, bundle):
    setup = Setup(tmp_path, bundle)
    configuration = setup.configuration(page=False)
    with running(setup, configuration) as cart:
        admit(cart, *study(1), *study(2, ["ap"]))
    # Stopped at once: whatever was under way is there, and was charged with nothing.
    with running(setup, configuration) as cart:
        admit(cart, *study(2, ["lateral"]))
        wait_for(lambda: cart.queue.counts()[State.DELIVERED] == 2)
        assert not cart.queue.cases(state=State.REFUSED)
