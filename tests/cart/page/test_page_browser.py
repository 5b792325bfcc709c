"""The page in Debian's Chromium: keys, pictures, sizes, contrast; and nothing from outside."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import cv2
import numpy as np
import pytest
from cart_folder import CartFolder, served
from small_study import PATIENT_ID, dicom_bytes, pair, small_dicom

from hipnet_edge import Prediction, Predictor
from hipnet_edge.cart.records import State
from hipnet_edge.vocabulary import CAUSES, VIEWS
from hipnet_edge.wording import RESEARCH_USE

sync_api = pytest.importorskip("playwright.sync_api")
chromium = pytest.importorskip("chromium")
pytestmark = pytest.mark.skipif(
    not chromium.CHROMIUM.exists(), reason=f"chromium is not at {chromium.CHROMIUM}"
)

NAUGHTY = "<b>Bold</b>^<script>alert(1)</script>"
SIZES = ((1280, 800), (1024, 768))
AT = (0.7, 0.3)  # of the bright cells: down, across

# Contrast of every visible text with what lies behind it (WCAG 2.1, 1.4.3).
CONTRAST = """() => {
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    const [a, b] = [parse(getComputedStyle(element).color), behind(element)].map(light);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    found.push([ratio, walker.currentNode.data.trim()]);
  }
  return found;
}"""
# What has the focus, and whether that is seen: on itself or on the label around a hidden input.
FOCUSED = """() => {
  const { id, name, className } = document.activeElement;
  const seen = document.activeElement.closest("label") ?? document.activeElement;
  return [id || name || className || "", getComputedStyle(seen).outlineStyle === "solid"];
}"""
SMALL_TARGETS = """() => [...document.querySelectorAll("button, .button, .causes label, #opacity")]
  .filter((e) => e.checkVisibility() && e.id !== "skip")
  .map((e) => [e.textContent, e.getBoundingClientRect()])
  .filter(([, { width, height }]) => width < 44 || height < 44).map(([words]) => words)"""


VISIBLE = """[...document.querySelectorAll("#rows .open, #study-title, #empty h2")]
  .some((e) => e.checkVisibility())"""


def until(page: sync_api.Page, expression: str) -> None:
    """Wait for something to be true; Playwright's own way needs `eval`, which the page forbids."""
    ends = time.monotonic() + 20
    while not page.evaluate(expression):
        assert time.monotonic() < ends, expression
        time.sleep(0.02)


@dataclass
class Shown:
    """A browser page on a cart."""

    page: sync_api.Page
    address: str
    numbers: dict[str, int]

    def open(self, path: str = "/") -> None:
        self.page.goto("about:blank")
        self.page.goto(self.address + path)
        until(self.page, VISIBLE)
        self.page.wait_for_load_state("networkidle")

    def films(self) -> np.ndarray:
        """What is seen of the two films, once all their pictures are there."""
        until(self.page, "[...document.querySelectorAll('.stack img')].every((i) => i.complete)")
        png = self.page.locator(".pair").screenshot(animations="disabled")
        return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR).astype(int)


@contextmanager
def watched(browser: sync_api.Browser, address: str) -> Iterator[sync_api.Page]:
    """A page that asks nobody else for anything, and has nothing to complain of."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    complaints: list[str] = []

    def on_request(request: sync_api.Request) -> None:
        if not request.url.startswith(address):
            complaints.append(f"asked {request.url}")

    def on_console(message: sync_api.ConsoleMessage) -> None:
        # What the page's own refusals (401, 422) look like there is the browser's business.
        if message.type in ("error", "warning") and "a status of 4" not in message.text:
            complaints.append(message.text)

    page.on("request", on_request)
    page.on("console", on_console)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append("a dialog"))
    page.set_default_timeout(20_000)
    yield page
    context.close()
    assert complaints == []


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with chromium.launched() as browser:
        yield browser


def one_cell_each(prediction: Prediction) -> Prediction:
    """Maps that are dark but for one cell: the same place on the film, another for each cause."""
    maps = {}
    for view in VIEWS:
        maps[view] = np.zeros_like(prediction.maps[view])
        _, h, w = maps[view].shape
        for index in range(len(CAUSES)):
            column = int(AT[1] * w) + 2 * index
            mirrored = prediction.inputs[view].mirrored
            maps[view][index, int(AT[0] * h), w - 1 - column if mirrored else column] = 1.0
    return replace(prediction, maps=maps)


@pytest.fixture(scope="module")
def looked_at(
    tmp_path_factory: pytest.TempPathFactory, predictor: Predictor
) -> Iterator[tuple[CartFolder, str, dict[str, int]]]:
    """A cart that these tests only look at: its page's address, and its studies by state."""
    cart = CartFolder(tmp_path_factory.mktemp("page") / "data")
    naughty = [small_dicom(view, 20, laterality="R", rows=640) for view in ("ap", "lateral")]
    for dataset in naughty:
        dataset.PatientName = NAUGHTY
    files = [dicom_bytes(dataset) for dataset in naughty]
    numbers = {
        "refused": cart.refused(pair(21)[0], reason="missing_view", message="No lateral came."),
        "failed": cart.failed(*pair(22)),
        "predicted": cart.predicted(predictor, *files, change=one_cell_each),
    }
    cart.bring(pair(23)[0])
    with served(cart) as address:
        yield cart, address, numbers
    cart.queue.close()


@pytest.fixture
def shown(browser, looked_at) -> Iterator[Shown]:
    _, address, numbers = looked_at
    with watched(browser, address) as page:
        yield Shown(page, address, numbers)


def test_the_keyboard_reaches_everything(shown):
    page, press = shown.page, shown.page.keyboard.press
    shown.open()
    numbers = shown.numbers
    press("ArrowDown")
    assert page.evaluate("document.activeElement.hash") == f"#/studies/{numbers['predicted']}"
    press("ArrowDown")
    assert page.evaluate("document.activeElement.hash") == f"#/studies/{numbers['failed']}"
    press("Home")
    press("Enter")
    page.wait_for_selector(".map")
    first = shown.films()

    def cause_shown() -> str:
        return page.locator(".map:not([hidden])").first.get_attribute("data-cause")

    other = 1 + (cause_shown() == CAUSES[0].value)
    press(str(other))
    assert cause_shown() == CAUSES[other - 1].value
    assert page.locator("[name=cause]:checked").get_attribute("value") == cause_shown()
    second = shown.films()
    assert np.abs(second - first).max() > 60
    press("[")
    press("[")
    assert page.locator("#opacity").input_value() == "50"
    fainter = shown.films()
    press("]")
    assert page.locator("#opacity-words").inner_text() == "60 %"
    press("h")
    bare = shown.films()
    assert page.locator("#hide").inner_text().startswith("Show the map")
    strong, faint = (np.abs(each - bare).max() for each in (second, fainter))
    assert faint == pytest.approx(strong * 50 / 70, abs=4)
    press("h")

    reached, unmarked = set(), set()
    for _ in range(20):
        press("Tab")
        name, marked = page.evaluate(FOCUSED)
        reached.add(name)
        if not marked:
            unmarked.add(name)
    assert unmarked <= {""}
    assert {"button back", "cause", "hide", "opacity", "study-side", "button primary"} <= reached
    press("Escape")
    page.wait_for_selector("#list:not([hidden])")
    assert page.evaluate("document.activeElement.hash") == f"#/studies/{numbers['predicted']}"
    assert page.locator("#study").inner_text() == ""


def test_the_map_is_seen_where_it_belongs_at_any_size(shown):
    page = shown.page
    shown.open(f"/#/studies/{shown.numbers['predicted']}")
    page.wait_for_selector(".map")
    for width, height in SIZES:
        page.set_viewport_size({"width": width, "height": height})
        seen = shown.films()
        page.keyboard.press("h")
        difference = np.abs(seen - shown.films()).max(axis=2)
        page.keyboard.press("h")
        for stack in page.locator(".stack").all():
            film, laid = (stack.locator(f".{kind}").first for kind in ("film", "map:not([hidden])"))
            assert film.bounding_box() == laid.bounding_box()
            natural = "e => [e.naturalWidth, e.naturalHeight]"
            columns, rows = film.evaluate(natural)
            assert [columns, rows] == laid.evaluate(natural) == [400, 640]
            box, pair_box = film.bounding_box(), page.locator(".pair").bounding_box()
            scale = min(box["width"] / columns, box["height"] / rows)
            left = box["x"] - pair_box["x"] + (box["width"] - scale * columns) / 2
            top = box["y"] - pair_box["y"] + (box["height"] - scale * rows) / 2
            on_film = np.argwhere(
                difference[
                    int(top) : int(top + scale * rows), int(left) : int(left + scale * columns)
                ]
                > 40
            ).mean(axis=0)
            index = [c.value for c in CAUSES].index(laid.get_attribute("data-cause"))
            cell = scale * rows / 64
            expected = np.array([int(AT[0] * 64) + 0.5, int(AT[1] * 40) + 2 * index + 0.5]) * cell
            assert np.abs(on_film - expected).max() < 0.35 * cell, (on_film, expected)


@pytest.mark.parametrize("contrast", ["no-preference", "more"])
def test_sizes_targets_and_contrast(shown, contrast):
    page, numbers = shown.page, shown.numbers
    page.emulate_media(contrast=contrast)
    for path in ("/", *(f"/#/studies/{number}" for number in numbers.values())):
        shown.open(path)
        for width, height in SIZES:
            page.set_viewport_size({"width": width, "height": height})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate("document.documentElement.scrollHeight") <= height
            assert page.evaluate(SMALL_TARGETS) == []
        found = page.evaluate(CONTRAST)
        assert len(found) > 15
        assert [each for each in found if each[0] < (7 if contrast == "more" else 4.5)] == []
        assert page.get_by_text(RESEARCH_USE).is_visible()


def test_a_name_in_a_header_is_only_text(shown):
    shown.open(f"/#/studies/{shown.numbers['predicted']}")
    said = shown.page.locator(".patient").inner_text()
    assert "<b>Bold</b>, <script>alert(1)</script>" in said
    assert PATIENT_ID in said
    assert PATIENT_ID not in shown.page.url
    assert shown.page.locator(".patient script, .patient b").count() == 0


def test_retry_and_upload_by_hand(browser, make_cart):
    cart = make_cart()
    number = cart.failed(*pair(22))
    raw = small_dicom("ap", 24)
    raw.PresentationIntentType = "FOR PROCESSING"
    with served(cart) as address, watched(browser, address) as page:
        page.goto(address)
        page.get_by_role("button", name="Retry").click()
        page.wait_for_selector(".badge.assembled")
        assert cart.queue.case(number).state is State.ASSEMBLED
        page.set_input_files(
            "#files",
            [
                {"name": name, "mimeType": "application/dicom", "buffer": content}
                for name, content in (("lat.dcm", pair(25)[1]), ("raw.dcm", dicom_bytes(raw)))
            ],
        )
        page.wait_for_selector("#uploads .bad")
        said = page.locator("#uploads").inner_text()
        assert "✓ The image is kept." in said
        assert "FOR PROCESSING" in said
        until(page, "document.body.innerText.includes('Lateral arrived')")


def test_without_studies_the_page_says_what_to_do(browser, make_cart):
    cart = make_cart(receive={"ae_title": "CART7", "port": 11113})
    cart.not_ready.append("predictor")
    with served(cart) as address, watched(browser, address) as page:
        page.goto(address)
        page.wait_for_selector("#empty h2")
        assert "AE title CART7, port 11113" in page.locator("#empty").inner_text()
        assert page.locator("#ready").inner_text() == "! not ready: predictor"


def test_the_token_opens_the_page(browser, make_cart, tmp_path):
    file = tmp_path / "page.token"
    file.write_text("a token of the page")
    cart = make_cart(page={"token_file": file})
    with served(cart) as address, watched(browser, address) as page:
        page.goto(address)
        page.wait_for_selector("#login:not([hidden])")
        page.keyboard.type("a token of the page")
        page.keyboard.press("Enter")
        page.wait_for_selector("#empty h2")
        page.reload()
        page.wait_for_selector("#empty h2")
        assert page.evaluate("document.cookie") == ""
        page.get_by_role("button", name="Lock").click()
        page.wait_for_selector("#login:not([hidden])")
