"""What the page asks for: the list of studies, one study with everything about it, its pictures.

Handlers are plain functions that Starlette runs in threads: queue and store wait for the disk.
Every answer here may show a patient's study, so none is kept by the browser (`no-store`).
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, cast

from starlette.responses import JSONResponse, Response

from hipnet_edge import __version__
from hipnet_edge.cart.admission import allowed_modalities
from hipnet_edge.cart.page import pictures
from hipnet_edge.cart.page.access import Problem
from hipnet_edge.cart.page.headers import patient_of, report_lines
from hipnet_edge.cart.page.lines import (
    STATE_WORDS,
    case_line,
    delivery_lines,
    object_words,
    waiting_line,
)
from hipnet_edge.cart.page.predictions import Predictions, prediction_facts
from hipnet_edge.cart.records import State
from hipnet_edge.drawing import Picture
from hipnet_edge.errors import UsageError
from hipnet_edge.radiograph import Radiograph
from hipnet_edge.render import OPACITY
from hipnet_edge.vocabulary import CAUSES, VIEWS, Cause, View

if TYPE_CHECKING:
    from starlette.requests import Request

    from hipnet_edge.cart.page.backend import PageBackend
    from hipnet_edge.cart.records import Case, Instance
    from hipnet_edge.prediction import Prediction

_MOST_LISTED = 500
_LARGEST_ID = 2**63 - 1


class StudyApi:
    """The answers about studies of one cart."""

    def __init__(self, cart: PageBackend) -> None:
        self._cart = cart
        self._predictions = Predictions(cart.store)
        self._pictures = pictures.Pictures()

    def about(self, request: Request) -> Response:
        """What does not change while the cart runs."""
        configuration = self._cart.configuration
        return JSONResponse(
            {
                "station": configuration.service.station_name,
                "ae_title": configuration.receive.ae_title,
                "port": configuration.receive.port,
                "largest_mib": configuration.receive.max_object_mib,
                "version": __version__,
                "token": configuration.page.token_file is not None,
                "causes": [{"cause": cause.value, "label": cause.label} for cause in CAUSES],
                "opacity": OPACITY,
                "views": [{"view": view.value, "label": view.label} for view in VIEWS],
            }
        )

    def studies(self, request: Request) -> Response:
        """The list, newest first; 304 where the browser has it already."""
        state, limit = _list_arguments(request)
        queue, brief = self._cart.queue, self._predictions.in_brief
        waiting = []
        if state in (None, State.RECEIVED):
            waiting = [waiting_line(study) for study in queue.waiting_studies()]
        cases = queue.cases(state=state, limit=limit + 1)
        lines = waiting + [case_line(case, self._cart.configuration, brief) for case in cases]
        lines.sort(key=lambda line: cast(float, line["time"]), reverse=True)
        counts = queue.counts()
        body = {
            "not_ready": list(self._cart.not_ready()),
            "states": [
                {"state": known.value, "words": STATE_WORDS[known], "count": counts.get(known, 0)}
                for known in State
            ],
            "studies": lines[:limit],
            "more": len(lines) > limit,
        }
        content = json.dumps(body, separators=(",", ":")).encode()
        tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"etag": tag})
        return Response(content, media_type="application/json", headers={"etag": tag})

    def study(self, request: Request) -> Response:
        """Everything about one study but its pictures."""
        case = self._case(request)
        line = case_line(case, self._cart.configuration, self._predictions.in_brief)
        sources = self._sources(case)
        objects = self._cart.queue.objects(case.id)
        deliveries = self._cart.queue.deliveries(case.id)
        return JSONResponse(
            {
                **line,
                "patient": self._patient(sources),
                "views": [view.value for view in VIEWS if view in sources],
                "result": prediction_facts(self._prediction(case)) if case.prediction else None,
                "objects": [
                    {"sop": made.sop_instance_uid, **object_words(made.kind), "size": made.size}
                    for made in objects
                ],
                "deliveries": delivery_lines(deliveries),
            }
        )

    def film(self, request: Request) -> Response:
        """A radiograph as PNG."""
        view = _view(request)
        source = self._sources(self._case(request)).get(view)
        if source is None:
            raise Problem(404, "no_such_view", "The study has no such view.")
        name = ("film", source.file)
        return _png(self._pictures.get(name, lambda: pictures.draw_film(self._radiograph(source))))

    def heat(self, request: Request) -> Response:
        """A map as PNG with transparency, of the same size as its radiograph."""
        case, view, cause = self._case(request), _view(request), _cause(request)
        prediction = self._prediction(case)
        name = ("map", case.prediction, view, cause)
        return _png(self._pictures.get(name, lambda: pictures.draw_map(prediction, view, cause)))

    def result_page(self, request: Request) -> Response:
        """The one-page picture of the result as PNG."""
        case = self._case(request)
        prediction, sources = self._prediction(case), self._sources(case)

        def draw() -> Picture:
            films = {view: self._radiograph(source) for view, source in sources.items()}
            return pictures.draw_result(prediction, films)

        return _png(self._pictures.get(("page", case.prediction), draw))

    def scale(self, request: Request) -> Response:
        """The colours of the maps as PNG, from 0 at the left to 1."""
        return _png(self._pictures.get("scale", pictures.draw_scale))

    def report(self, request: Request) -> Response:
        """What the structured report says, line by line."""
        case = self._case(request)
        for made in self._cart.queue.objects(case.id):
            if made.kind == "report":
                return JSONResponse({"lines": report_lines(self._cart.store.read(made.file))})
        raise Problem(404, "no_report", "The study has no report.")

    def dicom_object(self, request: Request) -> Response:
        """One result object as a DICOM file."""
        case, wanted = self._case(request), request.path_params["sop"]
        for made in self._cart.queue.objects(case.id):
            if made.sop_instance_uid == wanted:
                name = f"{made.kind}_{case.id}.dcm"
                return Response(
                    self._cart.store.read(made.file),
                    media_type="application/dicom",
                    headers={"content-disposition": f'attachment; filename="{name}"'},
                )
        raise Problem(404, "no_such_object", "The study has no such object.")

    def retry(self, request: Request) -> Response:
        """Take a failed study up where it stopped."""
        case = self._case(request)
        if case.state is not State.FAILED:
            raise Problem(409, "not_failed", "Only a study that failed can be tried again.")
        self._cart.queue.retry(case.id)
        return JSONResponse({"state": self._case(request).state.value})

    def _case(self, request: Request) -> Case:
        number = cast(int, request.path_params["case"])
        try:
            return self._cart.queue.case(min(number, _LARGEST_ID))
        except UsageError:
            raise Problem(
                404, "no_such_study", "There is no such study on this cart, or no longer."
            ) from None

    def _sources(self, case: Case) -> dict[View, Instance]:
        """The radiographs of a case that are there; a refused one may lack a view."""
        uids = {View.AP: case.ap, View.LATERAL: case.lateral}
        found = {view: self._cart.queue.instance(uid) for view, uid in uids.items() if uid}
        return {view: instance for view, instance in found.items() if instance}

    def _patient(self, sources: dict[View, Instance]) -> dict[str, str] | None:
        if not self._cart.configuration.page.show_patient or not sources:
            return None
        return patient_of(self._cart.store.read(next(iter(sources.values())).file))

    def _prediction(self, case: Case) -> Prediction:
        if case.prediction is None:
            raise Problem(404, "no_result", "The study has no result.")
        return self._predictions.in_full(case.prediction)

    def _radiograph(self, source: Instance) -> Radiograph:
        allowed = allowed_modalities(self._cart.configuration.receive)
        content = self._cart.store.read(source.file)
        return Radiograph.from_dicom(content, allow_modalities=allowed)


def _list_arguments(request: Request) -> tuple[State | None, int]:
    """Which studies are asked for, and how many."""
    given, limit = request.query_params.get("state"), request.query_params.get("limit", "100")
    if given is not None and given not in {state.value for state in State}:
        raise Problem(400, "no_such_state", "There is no such state.")
    if not (limit.isascii() and limit.isdecimal() and 1 <= int(limit[:9]) <= _MOST_LISTED):
        raise Problem(400, "bad_limit", f"At most {_MOST_LISTED} studies are listed at once.")
    return None if given is None else State(given), int(limit)


def _view(request: Request) -> View:
    try:
        return View(request.path_params["view"])
    except ValueError:
        raise Problem(404, "no_such_view", "There is no such view.") from None


def _cause(request: Request) -> Cause:
    try:
        return Cause(request.path_params["cause"])
    except ValueError:
        raise Problem(404, "no_such_cause", "There is no such cause.") from None


def _png(content: bytes) -> Response:
    return Response(content, media_type="image/png")
