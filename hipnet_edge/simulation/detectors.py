"""From the beam behind the patient to grey levels: scatter, blur, noise, then display or film.

A `Detector` is drawn once for both views of a study. What is worked out pixel by pixel is done in
strips of rows that stay in the processor's cache; what is smooth is worked out small and enlarged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import cv2
import numpy as np
from numpy.typing import NDArray

from .dimensions import Draws
from .solids import Array

_FOG, _BLACK = 0.2, 3.2
"""Density of unexposed and of fully exposed film."""
_STRIP = 48
_READ_NOISE = 25.0
"""Variance of the electronics' noise, in squared photons."""


@dataclass(frozen=True)
class Display:
    """The display processing of a digital system; rows of the table of dimensions.

    Attributes:
        bend: steepness of a sigmoid tone curve; 0 for a straight line.
    """

    edge_enhancement: float
    edge_radius: float
    range_compression: float
    below: float
    above: float
    bend: float

    def show(self, raw: Array, median: float, spacing: float, rng: np.random.Generator) -> Array:
        """Grey levels [rows, columns], about 0 to 1 with bone bright, of log attenuation `raw`.

        Args:
            raw: minus the logarithm of the signal; used up.
            median: of `raw` over the body.
            spacing: pixel size, mm.
            rng: not used here; scanned film has noise of its own.
        """
        slow = _slow_part(raw)
        compression = np.float32(self.range_compression)
        middle = median - self.range_compression * float(np.median(slow[raw_body(slow)]))
        smooth = _smoothed(raw, self.edge_radius / spacing)
        slow = _rounded(slow, raw.shape)
        # Taken together: compression and unsharp masking of what is left are both sums.
        gain = np.float32(1.0 + self.edge_enhancement)
        low = np.float32(middle - self.below)
        span = np.float32(1.0 / (self.below + self.above))
        for rows in _strips(raw):
            part = raw[rows]
            part *= gain
            part -= np.float32(self.edge_enhancement) * smooth[rows]
            part -= compression * slow[rows]
            part -= low
            part *= span
            if self.bend:
                _bend(part, self.bend)
        return raw


@dataclass(frozen=True)
class ScannedFilm:
    """Film with its characteristic curve (Hurter and Driffield), laid on a scanner.

    Attributes:
        gradient: density per decade of exposure in the middle of the curve.
        place: density behind the body's median.
        evened: part of the slow changes that a wedge in the beam takes away.
        scanned: highest density that the scanner tells apart.
        noise, streaks: standard deviation of density, per 0.16 mm pixel and between columns.
        dust: specks and fibres in a hundred square centimetres.
    """

    gradient: float
    place: float
    evened: float
    scanned: float
    noise: float
    streaks: float
    dust: float

    def show(self, raw: Array, median: float, spacing: float, rng: np.random.Generator) -> Array:
        """Grey levels as `Display.show`; film keeps more slow changes and has no sharpening."""
        slow = _slow_part(raw)
        median -= self.evened * float(np.median(slow[raw_body(slow)]))
        slow = _rounded(slow * np.float32(self.evened), raw.shape)
        span, shown = _BLACK - _FOG, self.scanned - _FOG
        steep = 4.0 * self.gradient / span / np.log(10.0)
        place = (self.place - _FOG) / span
        middle = median - np.log(1.0 / place - 1.0) / steep
        grain = _normal(rng, raw.shape)
        grain *= np.float32(self.noise * 0.16 / spacing / shown)
        grain += _streaks(rng, raw.shape[1], self.streaks / shown)
        grain += _dust(rng, raw.shape, self.dust * raw.size * spacing**2 / 1e4, spacing)
        for rows in _strips(raw):
            part = raw[rows]
            part -= slow[rows]
            part -= np.float32(middle)
            part *= np.float32(steep)
            np.exp(np.minimum(part, np.float32(40.0), out=part), out=part)
            part += np.float32(1.0)
            np.divide(np.float32(-span / shown), part, out=part)  # the film is a negative
            part += np.float32(1.0)
            part += grain[rows]
        return raw


@dataclass(frozen=True)
class Detector:
    """Everything about how a site's films come to be; sizes are rows of the table of dimensions.

    Attributes:
        grid: pitch (mm) and modulation of residual lines of the anti-scatter grid, or None.
        processing: what follows the detector.
    """

    scatter: float
    blur: float
    photons: float
    column_gain: float
    grid: tuple[float, float] | None
    processing: Display | ScannedFilm

    @classmethod
    def draw(cls, draws: Draws) -> Detector:
        """A detector with its processing; nothing in it depends on the cause."""
        lines = draws.chance("grid_lines")
        grid = (draws("grid_pitch"), draws("grid_depth"))
        linear = draws.chance("linear_tone")
        bend = draws("tone_bend")
        display = Display(
            edge_enhancement=draws("edge_enhancement"),
            edge_radius=draws("edge_radius"),
            range_compression=draws("range_compression"),
            below=draws("window_below"),
            above=draws("window_above"),
            bend=0.0 if linear else bend,
        )
        film = ScannedFilm(
            gradient=draws("film_gradient"),
            place=draws("film_place"),
            evened=draws("film_evened"),
            scanned=draws("scanner_maximum"),
            noise=draws("scanner_noise"),
            streaks=draws("scanner_streaks"),
            dust=draws("dust"),
        )
        return cls(
            scatter=draws("scatter"),
            blur=draws("blur"),
            photons=draws("photons"),
            column_gain=draws("column_gain"),
            grid=grid if lines else None,
            processing=film if draws.chance("digitised_film") else display,
        )

    def grey(
        self,
        primary: Array,
        spacing: float,
        window: tuple[slice, slice],
        rng: np.random.Generator,
    ) -> Array:
        """Grey levels [rows, columns] of the beam's image, about 0 to 1 with bone bright.

        Args:
            primary: what passes, relative to the unattenuated beam.
            spacing: pixel size, mm.
            window: rows and columns that the collimator leaves open.
            rng: the noise's.
        """
        small = cv2.resize(primary, (64, 64), interpolation=cv2.INTER_AREA)
        glow = cv2.GaussianBlur(small, (0, 0), 5.0, borderType=cv2.BORDER_REFLECT)
        total = _rounded(np.asarray(glow, np.float32) * np.float32(self.scatter), primary.shape)
        total += primary
        behind_patient = float(np.quantile(total[window][::8, ::8], 0.35))
        photons = self.photons * (spacing / 0.16) ** 2 / max(behind_patient, 1e-6)
        noise = _normal(rng, primary.shape)
        gains = 1.0 + _streaks(rng, primary.shape[1], self.column_gain)
        gains *= self._grid_lines(rng, primary.shape[1], spacing)
        for rows in _strips(total):
            part = total[rows]
            spread = part * np.float32(1.0 / photons)
            spread += np.float32(_READ_NOISE / photons**2)
            np.sqrt(spread, out=spread)
            spread *= noise[rows]
            part += spread
        # The detector spreads light, not only edges: its noise is blurred with the image.
        total = np.asarray(cv2.GaussianBlur(total, (0, 0), self.blur / spacing), np.float32)
        for rows in _strips(total):
            part = total[rows]
            part *= gains
            np.maximum(part, np.float32(1.0 / photons), out=part)
            np.log(part, out=part)
            np.negative(part, out=part)
        sample = total[window][::9, ::9]
        body = sample[raw_body(sample)]
        median = float(np.median(body)) if body.size else 0.0
        return self.processing.show(total, median, spacing, rng)

    def _grid_lines(self, rng: np.random.Generator, columns: int, spacing: float) -> Array:
        start = rng.uniform(0.0, 2.0 * np.pi)
        if self.grid is None:
            return np.ones(columns, np.float32)
        pitch, depth = self.grid
        wave = np.sin(start + 2.0 * np.pi * spacing / pitch * np.arange(columns))
        return np.asarray(1.0 + depth * wave, np.float32)


def raw_body(raw: Array) -> NDArray[np.bool_]:
    """What of a log attenuation lies behind the body, not beside it or under the shutters."""
    return (raw > 1.2) & (raw < 9.0)


def cloud(rng: np.random.Generator, shape: tuple[int, int], scales: tuple[float, ...]) -> Array:
    """Smooth noise of unit variance [rows, columns]: a sum of noises of several pixel scales."""
    part = max(1, int(min(scales) / 3.0))
    size = (-(-shape[0] // part), -(-shape[1] // part))
    total = np.zeros(size, np.float32)
    for scale in scales:
        knots = (max(int(shape[1] / scale), 3), max(int(shape[0] / scale), 3))
        grain = rng.standard_normal(knots[::-1]).astype(np.float32)
        total += cv2.resize(grain, size[::-1], interpolation=cv2.INTER_CUBIC)
    total /= max(float(total.std()), 1e-6)
    return enlarged(total, part, shape)


def enlarged(small: Array, times: int, shape: tuple[int, int]) -> Array:
    """An image `times` as large, cut to `shape`; pixels of both stand where they did."""
    if times == 1:
        return small[: shape[0], : shape[1]]
    size = (small.shape[1] * times, small.shape[0] * times)
    large = cv2.resize(small, size, interpolation=cv2.INTER_LINEAR)
    return np.asarray(large[: shape[0], : shape[1]], np.float32)


def _strips(image: Array) -> Iterator[slice]:
    for row in range(0, len(image), _STRIP):
        yield slice(row, row + _STRIP)


@cache
def _quantiles() -> Array:
    normal = NormalDist()
    return np.array([normal.inv_cdf((i + 0.5) / 65536) for i in range(65536)], np.float32)


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Standard normal noise through a table of its quantiles, four times faster than exact."""
    count = int(np.prod(shape))
    picked = np.frombuffer(rng.bytes(2 * count), np.uint16)
    return np.asarray(_quantiles()[picked].reshape(shape), np.float32)


def _streaks(rng: np.random.Generator, columns: int, spread: float) -> Array:
    return np.asarray(spread * rng.standard_normal(columns), np.float32)


def _slow_part(raw: Array) -> Array:
    """The slow changes of the log attenuation, small: [rows, 64]."""
    rows, columns = raw.shape
    size = (64, max(round(64 * rows / columns), 8))
    small = cv2.resize(raw, size, interpolation=cv2.INTER_AREA)
    capped = np.minimum(small, np.quantile(small, 0.9))
    slow = cv2.GaussianBlur(capped, (0, 0), 4.0, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(slow, np.float32)


def _rounded(small: Array, shape: tuple[int, ...]) -> Array:
    """A smooth image on a larger frame: rounded first, so that no facets show, then enlarged."""
    quarter = (max(shape[1] // 4, 1), max(shape[0] // 4, 1))
    rounded = cv2.resize(small, quarter, interpolation=cv2.INTER_CUBIC)
    large = cv2.resize(rounded, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(large, np.float32)


def _smoothed(image: Array, sigma: float) -> Array:
    """A Gaussian blur of `sigma` pixels, done on a smaller image where it is wide."""
    part = max(1, int(sigma / 2.5))
    if part == 1:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.float32)
    size = (max(image.shape[1] // part, 1), max(image.shape[0] // part, 1))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma / part)
    large = cv2.resize(small, image.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(large, np.float32)


def _bend(part: Array, bend: float) -> None:
    """A sigmoid through (0, 0) and (1, 1), in place."""
    low, high = 1.0 / (1.0 + np.exp(bend * 0.5)), 1.0 / (1.0 + np.exp(-bend * 0.5))
    part -= np.float32(0.5)
    part *= np.float32(-bend)
    np.exp(part, out=part)
    part += np.float32(1.0)
    np.divide(np.float32(1.0 / (high - low)), part, out=part)
    part -= np.float32(low / (high - low))


def _dust(rng: np.random.Generator, shape: tuple[int, ...], count: float, spacing: float) -> Array:
    """Specks and fibres: what dust (dark) and scratches (bright) add to the grey level."""
    fixed = 16.0  # cv2 draws at sixteenths of a pixel
    layers = np.zeros((2, *shape), np.uint8)
    for _ in range(int(rng.poisson(count))):
        sheet = layers[int(rng.random() < 0.3)]
        start = rng.uniform(0.0, 1.0, 2) * (shape[1], shape[0])
        run = rng.normal(0.0, 1.0 if rng.random() < 0.3 else 0.15, 2) / spacing
        ends = np.round((start + np.outer([0.0, 1.0], run)) * fixed).astype(int)
        shade = int(rng.uniform(60, 255))
        thick = max(1, round(rng.uniform(0.1, 0.3) / spacing))
        first, last = (int(ends[0, 0]), int(ends[0, 1])), (int(ends[1, 0]), int(ends[1, 1]))
        cv2.line(sheet, first, last, shade, thick, cv2.LINE_AA, 4)
    added = layers[1].astype(np.float32)
    added -= layers[0]
    added *= np.float32(0.25 / 255.0)
    return np.asarray(added, np.float32)
