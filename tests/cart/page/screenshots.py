"""The pictures of the page in `docs/pictures`: `python tests/cart/page/screenshots.py [FOLDER]`.

Simulated studies, the reference bundle, Debian's Chromium.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from cart_folder import CartFolder, served
from chromium import launched
from PIL import Image
from playwright.sync_api import Page
from pydicom import Dataset

from hipnet_edge import Cause, Predictor
from hipnet_edge.simulation import simulate_study

PICTURES = Path(__file__).parents[3] / "docs" / "pictures"
_GREYS, _COLOURS = 64, 120


def dicom(cause: Cause | None, seed: int) -> tuple[bytes, bytes]:
    """A simulated study of a patient with a made-up name, as the bytes of DICOM files."""
    study = simulate_study(cause, seed)
    return _file(study.ap.to_dataset()), _file(study.lateral.to_dataset())


def _file(dataset: Dataset) -> bytes:
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def fill(cart: CartFolder, predictor: Predictor) -> int:
    """Studies in every state, the last one that of an infection; returns its number."""
    starts = time.time() - 5400
    steps: list[Callable[[], object]] = [
        lambda: cart.delivered(predictor, *dicom(Cause.ASEPTIC_LOOSENING, 11)),
        lambda: cart.delivered(predictor, *dicom(Cause.DISLOCATION, 13)),
        lambda: cart.refused(
            dicom(Cause.POLYETHYLENE_WEAR, 17)[0],
            reason="missing_view",
            message="No lateral radiograph came within 15 minutes of the AP.",
        ),
        lambda: cart.undeliverable(predictor, *dicom(Cause.PERIPROSTHETIC_FRACTURE, 19)),
        lambda: cart.failed(*dicom(Cause.PJI, 23)),
        lambda: cart.delivered(predictor, *dicom(None, 29)),
        lambda: cart.predicted(predictor, *dicom(Cause.POLYETHYLENE_WEAR, 31)),
        lambda: cart.delivered(predictor, *dicom(Cause.PJI, 4)),
        lambda: cart.assembled(*dicom(Cause.DISLOCATION, 37)),
    ]
    shown = 0
    for index, step in enumerate(steps):
        cart.now = lambda index=index: starts + 600 * index  # type: ignore[misc]
        number = step()
        shown = number if index == len(steps) - 2 else shown
    cart.bring(dicom(Cause.PJI, 41)[0])
    return int(str(shown))


def take(page: Page, path: Path) -> None:
    """A screenshot in few colours, so that the files stay small."""
    page.wait_for_load_state("networkidle")
    while not page.evaluate("[...document.images].every((i) => i.complete && i.naturalWidth)"):
        time.sleep(0.05)
    image = Image.open(BytesIO(page.screenshot())).convert("RGB")
    image.quantize(palette=_palette(image), dither=Image.Dither.NONE).save(path, optimize=True)


def _palette(image: Image.Image) -> Image.Image:
    """Colours chosen apart for what is grey and what is not: else the films take them all."""
    pixels = np.asarray(image).reshape(-1, 3)
    grey = np.ptp(pixels, axis=1) < 12
    chosen = [level for step in range(0, 256, 8) for level in (step,) * 3]
    for kind, count in ((grey, _GREYS), (~grey, _COLOURS)):
        part = Image.fromarray(pixels[kind][np.newaxis]).quantize(count)
        chosen += (part.getpalette() or [])[: 3 * count]
    palette = Image.new("P", (1, 1))
    palette.putpalette(chosen)
    return palette


def main(folder: Path) -> None:
    """Write the two pictures."""
    with (
        tempfile.TemporaryDirectory() as data,
        Predictor.reference(backend="onnxruntime", precision="fp32") as predictor,
    ):
        cart = CartFolder(Path(data) / "data", dicom=True)
        shown = fill(cart, predictor)
        with served(cart) as address, launched() as browser:
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.goto(address)
            page.wait_for_selector("#rows .open")
            take(page, folder / "cart_list.png")
            page.goto(f"{address}/#/studies/{shown}")
            page.wait_for_selector("#study .map")
            take(page, folder / "cart_study.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURES)
