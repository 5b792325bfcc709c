"""What the page's API answers, asked of a real queue, store and admission."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from cart_folder import CartFolder
from small_study import BIRTH_DATE, PATIENT, PATIENT_ID, dicom_bytes, pair, small_dicom
from starlette.testclient import TestClient

from hipnet_edge.cart.page.advice import what_to_do
from hipnet_edge.cart.page.app import make_app
from hipnet_edge.cart.page.lines import STATE_WORDS
from hipnet_edge.cart.records import State
from hipnet_edge.wording import FLAG_WORDS

HOME = "http://127.0.0.1:8080"
SAME = {"origin": HOME}


def client_of(cart: CartFolder) -> TestClient:
    return TestClient(make_app(cart.backend), base_url=HOME)


def decoded(png: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)


def test_the_list_tells_every_state_newest_first(make_cart, predictor):
    cart = make_cart()
    delivered = cart.delivered(predictor, *pair(1))
    refused = cart.refused(
        pair(2)[0], reason="missing_view", message="No lateral came within 15 minutes."
    )
    failed = cart.failed(*pair(3))
    predicted = cart.predicted(predictor, *pair(4, laterality="R"))
    assembled = cart.assembled(*pair(5))
    cart.bring(pair(6)[0])
    client = client_of(cart)

    answer = client.get("/api/studies").json()
    listed = answer["studies"]
    assert [s["id"] for s in listed] == [None, assembled, predicted, failed, refused, delivered]
    assert {s["state"]: s["count"] for s in answer["states"]} == dict.fromkeys(
        ("received", "assembled", "predicted", "delivered", "refused", "failed"), 1
    )
    assert [s["words"] for s in answer["states"]] == [STATE_WORDS[state] for state in State]
    waiting, _, sent, broken, no_pair, done = listed
    assert waiting["arrived"] == "AP arrived; waiting for the lateral."
    assert sent["side"] == "right"
    prediction = predictor.predict(*pair(1))
    assert done["result"]["leading"]["cause"] == prediction.leading_cause.value
    assert done["result"]["pji_risk"]["value"] == pytest.approx(prediction.pji_risk, abs=1e-6)
    assert done["result"]["flags"] == len(prediction.flags) > 0
    assert no_pair["problem"]["message"] == "No lateral came within 15 minutes."
    assert "one lateral" in no_pair["problem"]["advice"]
    assert broken["problem"]["code"] == "engine_failed"
    for state in ("received", "failed"):
        only = client.get("/api/studies", params={"state": state}).json()["studies"]
        assert [study["state"] for study in only] == [state]


def test_the_list_is_sent_again_only_when_it_changed(make_cart):
    cart = make_cart()
    client = client_of(cart)
    first = client.get("/api/studies")
    assert first.json()["studies"] == []
    asked = {"if-none-match": first.headers["etag"]}
    assert client.get("/api/studies", headers=asked).status_code == 304
    cart.assembled(*pair(1))
    changed = client.get("/api/studies", headers=asked)
    assert changed.status_code == 200
    assert len(changed.json()["studies"]) == 1
    cart.not_ready.append("predictor")
    asked = {"if-none-match": changed.headers["etag"]}
    assert client.get("/api/studies", headers=asked).json()["not_ready"] == ["predictor"]


def test_a_long_list_is_cut_and_says_so(make_cart):
    cart = make_cart()
    numbers = [cart.assembled(*pair(seed, rows=64, columns=64)) for seed in range(1, 5)]
    answer = client_of(cart).get("/api/studies", params={"limit": 3}).json()
    assert [study["id"] for study in answer["studies"]] == numbers[:0:-1]
    assert answer["more"]
    assert not client_of(cart).get("/api/studies", params={"limit": 4}).json()["more"]


@pytest.mark.parametrize("query", ["state=none", "limit=0", "limit=501", "limit=-1", "limit=x"])
def test_a_list_that_cannot_be_is_refused(make_cart, query):
    answer = client_of(make_cart()).get(f"/api/studies?{query}")
    assert answer.status_code == 400
    assert set(answer.json()) == {"code", "message"}


def test_a_study_with_everything_about_it(make_cart, predictor):
    cart = make_cart(destinations=("PACS", "BACKUP"), dicom=True)
    number = cart.predicted(predictor, *pair(7))
    first, *_ = deliveries = cart.queue.deliveries(number)
    cart.queue.delivery_postponed(first, "no_answer", 2e9)
    for delivery in deliveries:
        if delivery.destination == "BACKUP":
            cart.queue.sent(delivery)
    client = client_of(cart)
    study = client.get(f"/api/studies/{number}").json()
    prediction = predictor.predict(*pair(7))
    result = study["result"]
    assert [c["value"] for c in result["causes"]] == pytest.approx(
        list(prediction.probabilities.values()), abs=1e-6
    )
    assert [f["words"] for f in result["flags"]] == [FLAG_WORDS[f] for f in prediction.flags]
    assert result["provenance"]["Calibration"] == "the bundle's"
    assert result["provenance"]["Digest"] == prediction.provenance.bundle_digest[:12]
    assert study["views"] == ["ap", "lateral"]
    pacs, backup = study["deliveries"]
    assert (pacs["destination"], pacs["sent"], pacs["of"]) == ("PACS", 0, 4)
    assert pacs["objects"][0]["reason"] == "no_answer"
    assert (backup["sent"], backup["of"]) == (4, 4)

    report = client.get(f"/api/studies/{number}/report").json()["lines"]
    said = {line["value"] for line in report}
    assert {cause.label for cause in prediction.probabilities} <= said
    assert PATIENT not in json.dumps(report)
    page = decoded(client.get(f"/api/studies/{number}/page.png").content)
    assert page.shape == (1428, 1800, 3)
    for made in study["objects"]:
        sent = client.get(f"/api/studies/{number}/objects/{made['sop']}.dcm")
        assert sent.headers["content-type"] == "application/dicom"
        assert sent.content[128:132] == b"DICM"
        assert len(sent.content) == made["size"]


def test_the_patient_is_read_when_the_study_is_opened_and_lies_nowhere_else(make_cart, predictor):
    cart = make_cart()
    number = cart.delivered(predictor, *pair(8))
    client = client_of(cart)
    opened = client.get(f"/api/studies/{number}")
    assert opened.headers["cache-control"] == "no-store"
    assert opened.json()["patient"] == {
        "name": "Doe, Secret",
        "id": PATIENT_ID,
        "birth_date": "1955-04-13",
    }
    assert "Secret" not in client.get("/api/studies").text
    data = cart.configuration.service.data
    for path in data.glob("cart.sqlite3*"):
        content = path.read_bytes()
        for secret in ("Doe", PATIENT_ID, BIRTH_DATE):
            assert secret.encode() not in content, path.name


def test_the_patient_is_hidden_where_the_configuration_says_so(make_cart, predictor):
    cart = make_cart(page={"show_patient": False})
    number = cart.delivered(predictor, *pair(9))
    answer = client_of(cart).get(f"/api/studies/{number}")
    assert answer.json()["patient"] is None
    assert PATIENT_ID not in answer.text


def test_a_refused_study_shows_what_there_is_of_it(make_cart):
    cart = make_cart()
    number = cart.refused(pair(10)[0], reason="missing_view", message="No lateral came.")
    client = client_of(cart)
    study = client.get(f"/api/studies/{number}").json()
    assert study["views"] == ["ap"]
    assert study["result"] is None
    assert client.get(f"/api/studies/{number}/views/ap.png").status_code == 200
    for path in ("views/lateral.png", "maps/ap/pji.png", "page.png", "report"):
        assert client.get(f"/api/studies/{number}/{path}").status_code == 404, path


def test_a_failed_study_is_taken_up_again_and_no_other(make_cart, predictor):
    cart = make_cart()
    failed, undelivered = cart.failed(*pair(11)), cart.undeliverable(predictor, *pair(12))
    client = client_of(cart)
    for number, then in ((failed, State.ASSEMBLED), (undelivered, State.PREDICTED)):
        answer = client.post(f"/api/studies/{number}/retry", headers=SAME)
        assert answer.json() == {"state": then.value}
        assert cart.queue.case(number).state is then
        again = client.post(f"/api/studies/{number}/retry", headers=SAME)
        assert (again.status_code, again.json()["code"]) == (409, "not_failed")
    assert client.get(f"/api/studies/{failed}/retry").status_code == 405


NOWHERE = (
    "0",
    "99",
    "9" * 40,
    "x",
    "1/views/ap.dcm",
    "1/views/..%2fap.png",
    "1/maps/ap/none.png",
    "1/objects/1.2.3.dcm",
    "1/objects/..%2f..%2f..%2fsalt.dcm",
    "1/objects/%2e%2e%2fcart.sqlite3.dcm",
)


def test_what_is_not_there_is_not_found(make_cart, predictor):
    cart = make_cart()
    assert cart.delivered(predictor, *pair(13)) == 1
    client = client_of(cart)
    for path in NOWHERE:
        answer = client.get(f"/api/studies/{path}")
        assert answer.status_code == 404, path
        assert set(answer.json()) == {"code", "message"}


def test_health_readiness_and_metrics(make_cart):
    cart = make_cart()
    client = client_of(cart)
    assert client.get("/readyz").json() == {"ready": True, "not_ready": []}
    cart.not_ready.append("predictor")
    waiting = client.get("/readyz")
    assert (waiting.status_code, waiting.json()["not_ready"]) == (503, ["predictor"])
    assert client.get("/healthz").status_code == 200
    assert client.get("/metrics").text == "hipnet_edge_studies_total 1\n"


def test_uploads_are_admitted_or_refused_in_words(make_cart):
    cart = make_cart()
    client = client_of(cart)

    def bring(content: bytes) -> tuple[int, dict[str, str]]:
        answer = client.post("/api/upload", content=content, headers=SAME)
        return answer.status_code, answer.json()

    for content in pair(14):
        status, told = bring(content)
        assert (status, told["accepted"], told["code"]) == (200, True, "accepted")
    (waiting,) = cart.queue.waiting_studies()
    assert {image.source for image in waiting.instances} == {"upload"}

    raw = small_dicom("ap", 15)
    raw.PresentationIntentType = "FOR PROCESSING"
    status, told = bring(dicom_bytes(raw))
    assert (status, told["code"]) == (422, "not_for_presentation")
    assert told["advice"] == what_to_do("not_for_presentation")
    assert bring(b"no DICOM at all")[1]["code"] == "not_dicom"
    unknown = small_dicom("ap", 16)
    del unknown.ViewPosition
    status, told = bring(dicom_bytes(unknown))
    assert (status, told["code"]) == (200, "unknown_view")
    assert "X-ray console" in told["advice"]
    assert list(cart.store.incoming.iterdir()) == []


def test_an_upload_that_is_too_large_leaves_nothing_behind(make_cart):
    cart = make_cart(receive={"max_object_mib": 1})
    client = client_of(cart)
    declared = client.post("/api/upload", content=bytes(2**20 + 1), headers=SAME)
    streamed = client.post("/api/upload", content=(bytes(2**16) for _ in range(17)), headers=SAME)
    for answer in (declared, streamed):
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert list(cart.store.incoming.iterdir()) == []
    assert list(cart.store.names()) == []


def test_a_full_disk_is_said_as_such(make_cart):
    cart = make_cart(receive={"min_free_mib": 2**40})
    answer = client_of(cart).post("/api/upload", content=pair(17)[0], headers=SAME)
    assert (answer.status_code, answer.json()["code"]) == (503, "no_space")
    assert list(cart.store.incoming.iterdir()) == []


def test_a_disk_that_fails_is_said_as_such(make_cart, monkeypatch):
    cart = make_cart()

    def keep(content: object, suffix: str = "") -> None:
        raise OSError(28, "No space left on device", PATIENT)

    monkeypatch.setattr(cart.store, "keep", keep)
    answer = client_of(cart).post("/api/upload", content=pair(19)[0], headers=SAME)
    assert (answer.status_code, answer.json()["code"]) == (503, "disk_failed")
    assert PATIENT not in answer.text


def test_a_damaged_file_is_told_without_its_text(make_cart, predictor):
    cart = make_cart()
    number = cart.delivered(predictor, *pair(18))
    source = cart.queue.sources(cart.queue.case(number))[0]
    cart.store.path(source.file).write_bytes(b"damaged")
    answer = client_of(cart).get(f"/api/studies/{number}/views/ap.png")
    assert answer.status_code == 500
    assert set(answer.json()) == {"code", "message"}


def test_every_reason_of_a_refusal_has_its_advice():
    page = (Path(__file__).parents[3] / "docs" / "errors-and-flags.md").read_text()
    of_inputs = re.findall(r"^\| `([a-z_]+)` \|", page.split("\n## Bundle")[0], re.MULTILINE)
    assert len(of_inputs) > 20
    assert [code for code in of_inputs if what_to_do(code) == what_to_do("internal")] == []
