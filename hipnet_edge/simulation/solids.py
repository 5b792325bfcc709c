"""Two kinds of solid, and how long a ray stays inside them: tubes and ellipsoids.

Frames: every solid lives in the millimetre frame of its group (pelvis or femur) of a *left* hip:
x towards the patient's left (lateral), y towards the back, z towards the head. A `Pose` carries a
group into the frame of one view, where y is depth along the beam, x runs to the image's right and
z up. A right hip is the mirror image, made once at the end.

A chord image is computed on a grid as fine as its solid needs and then laid over the detector;
that keeps soft tissue cheap and metal sharp.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Points = NDArray[np.float64]
Cut = Callable[[Points], Points]
"""Weight in [0, 1] of the material at points [..., 3] of the group's frame: a fracture, a saw."""

ANGLES: Points = np.linspace(0.0, 2.0 * np.pi, 48, endpoint=False)
"""Directions of a tube's cross-section: 0 lateral, pi/2 anterior, pi medial, 3 pi/2 posterior."""


_DEPTHS = np.polynomial.legendre.leggauss(12)
"""Where along a chord a cut is asked for, and with which weight (Gauss-Legendre on -1 .. 1)."""


def rotation(axis: str, degrees: float) -> Points:
    """The rotation matrix [3, 3] about one axis of the frame."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = -s, s
    return matrix


@dataclass(frozen=True)
class Pose:
    """A rigid motion from a group's frame into a view's frame: `rotation @ p + shift`."""

    rotation: Points = field(default_factory=lambda: np.eye(3))
    shift: Points = field(default_factory=lambda: np.zeros(3))

    def apply(self, points: Points) -> Points:
        """Points [..., 3] of the group in the view's frame."""
        return np.asarray(points @ self.rotation.T + self.shift)

    def undo(self, points: Points) -> Points:
        """Points [..., 3] of the view in the group's frame."""
        return np.asarray((points - self.shift) @ self.rotation)


@dataclass(frozen=True)
class Beam:
    """A point source over a flat detector; detector coordinates (u right, v down) in mm.

    Attributes:
        source_to_detector: focal spot to detector, mm.
        object_to_detector: the frame's origin to the detector, mm.
        origin_uv: where the frame's origin falls on the detector, mm.
        centre_uv: where the central ray falls on the detector, mm.
    """

    source_to_detector: float
    object_to_detector: float
    origin_uv: tuple[float, float]
    centre_uv: tuple[float, float]

    @property
    def source(self) -> Points:
        """The focal spot in the view's frame."""
        magnification = self.source_to_detector / self.source_to_object
        u = (self.centre_uv[0] - self.origin_uv[0]) / magnification
        v = (self.centre_uv[1] - self.origin_uv[1]) / magnification
        return np.array([u, -self.source_to_object, -v])

    @property
    def source_to_object(self) -> float:
        """Focal spot to the frame's origin, mm."""
        return self.source_to_detector - self.object_to_detector

    def magnification(self, points: Points) -> Points:
        """How much larger than life things at `points` [..., 3] appear."""
        return self.source_to_detector / (self.source_to_object + points[..., 1])

    def project(self, points: Points) -> Points:
        """Detector coordinates [..., 2] in mm of points [..., 3] in the view's frame."""
        source, scale = self.source, self.magnification(points)
        u = self.centre_uv[0] + scale * (points[..., 0] - source[0])
        v = self.centre_uv[1] - scale * (points[..., 2] - source[2])
        return np.stack([u, v], axis=-1)

    def on_detector(self, uv: Points) -> Points:
        """Points [..., 3] in the view's frame of detector coordinates [..., 2]."""
        source = self.source
        x = source[0] + (uv[..., 0] - self.centre_uv[0])
        z = source[2] - (uv[..., 1] - self.centre_uv[1])
        return np.stack([x, np.full_like(x, self.object_to_detector), z], axis=-1)


@dataclass(frozen=True)
class Patch:
    """A chord image (mm of material) on its own grid.

    Attributes:
        chords: float32 [rows, columns], mm.
        to_detector: 2 x 3 affine from grid coordinates (column, row) to detector mm.
    """

    chords: Array
    to_detector: Points

    def lay(self, shape: tuple[int, int], spacing: float) -> tuple[slice, slice, Array] | None:
        """The patch on a detector of `shape` pixels of `spacing` mm: rows, columns, chords."""
        height, width = self.chords.shape
        corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]], float)
        uv = corners @ self.to_detector.T / spacing
        low = np.maximum(np.floor(uv.min(0)).astype(int), 0)
        high = np.minimum(np.ceil(uv.max(0)).astype(int) + 1, shape[::-1])
        if np.any(high <= low):
            return None
        matrix = self.to_detector.copy()
        matrix[:, 2] -= (low + 0.5) * spacing
        matrix /= spacing
        size = (int(high[0] - low[0]), int(high[1] - low[1]))
        laid = cv2.warpAffine(self.chords, matrix, size, flags=cv2.INTER_LINEAR)
        return slice(low[1], high[1]), slice(low[0], high[0]), np.asarray(laid, np.float32)


def _unit(vectors: Points) -> Points:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


@dataclass(frozen=True)
class Tube:
    """A generalised cylinder: a centreline and a radius for each direction along it.

    Attributes:
        nodes: centreline [K, 3], mm.
        radii: [K, len(ANGLES)], mm.
        cut: weight of the material at points of the group's frame, or None.
        detail: grid spacing of the chord image across the tube, mm.
        step: spacing of the outlines along the tube, mm.
        softness: standard deviation of a Gaussian that makes the edge ill-defined, mm.
    """

    nodes: Points
    radii: Points
    cut: Cut | None = None
    detail: float = 0.3
    step: float = 1.0
    softness: float = 0.0

    def project(self, pose: Pose, beam: Beam) -> Patch:
        """The chord image of the tube in one view."""
        nodes = pose.apply(self.nodes)
        uv = beam.project(nodes)
        run = uv[-1] - uv[0]
        along = _unit(run) if np.linalg.norm(run) > 1e-3 else np.array([0.0, 1.0])
        across = np.array([-along[1], along[0]])
        p = np.maximum.accumulate((uv - uv[0]) @ along)
        in_plane = np.array([across[0], 0.0, -across[1]])
        tangents = _unit(np.gradient(nodes, axis=0))
        crosswise = np.abs(tangents @ pose.rotation[:, 0]).mean() > 0.85
        reference = pose.rotation[:, 2 if crosswise else 0]
        first = _unit(reference - tangents * (tangents @ reference)[:, None])
        second = np.cross(tangents, first)
        ring = np.cos(ANGLES)[:, None] * first[:, None] + np.sin(ANGLES)[:, None] * second[:, None]
        contour = self.radii[..., None] * ring
        scale = beam.magnification(nodes)
        q_contour = (uv - uv[0]) @ across
        q_contour = q_contour[:, None] + scale[:, None] * (contour @ in_plane)
        oblique = 1.0 / np.sqrt(np.clip(1.0 - tangents[:, 1] ** 2, 0.25, 1.0))

        margin = 2.0 + 4.0 * self.softness
        q_grid = np.arange(q_contour.min() - margin, q_contour.max() + margin, self.detail)
        # Cross-sections change slowly along a tube: outline at every step, interpolate between.
        step = min(self.step, 0.25 * (p[-1] - p[0]) + self.detail)
        p_coarse = np.arange(p[0], p[-1] + step, step)
        near, far, inside = _outline(
            _resample(q_contour, p, p_coarse), _resample(contour[..., 1], p, p_coarse), q_grid
        )
        half = np.where(inside, (far - near) * 0.5, 0.0) * _resample(oblique, p, p_coarse)[:, None]
        if self.cut is None:
            p_grid, chords = p_coarse, 2.0 * half
        else:
            p_grid = np.arange(p[0], p[-1] + self.detail, self.detail)
            q_centre = (uv - uv[0]) @ across

            def weigh(rows: Points, near: Points, far: Points) -> Points:
                """Mean weight of the cut through the depth [len(rows), len(q_grid)]."""
                lateral = q_grid[None, :] - _resample(q_centre, p, rows)[:, None]
                lateral = lateral / _resample(scale, p, rows)[:, None]
                base = _resample(nodes, p, rows)[:, None, :] + lateral[..., None] * in_plane
                total = np.zeros_like(near)
                for part, weight in zip(*_DEPTHS, strict=True):
                    points = base.copy()
                    points[..., 1] += near + (far - near) * 0.5 * (1.0 + part)
                    total += 0.5 * weight * self.cut(pose.undo(points))  # type: ignore[misc]
                return total

            # Most rows are wholly kept or wholly gone; only those near the cut need every point.
            coarse = weigh(p_coarse[::2], near[::2], far[::2])
            lowest = _resample(coarse.min(1), p_coarse[::2], p_grid)
            highest = _resample(coarse.max(1), p_coarse[::2], p_grid)
            half, near, far = (_resample(x, p_coarse, p_grid) for x in (half, near, far))
            kept = np.where(lowest > 0.999, 1.0, 0.0)[:, None] * np.ones_like(half)
            mixed = (lowest <= 0.999) & (highest >= 0.001)
            if mixed.any():
                kept[mixed] = weigh(p_grid[mixed], near[mixed], far[mixed])
            chords = 2.0 * half * kept
        image = chords.astype(np.float32)
        step = float(p_grid[1] - p_grid[0])
        if self.softness:
            sigma = self.softness / self.detail
            image = np.asarray(cv2.GaussianBlur(image, (0, 0), sigma, sigmaY=self.softness / step))
        origin = uv[0] + (p_grid[0] - p[0]) * along + q_grid[0] * across
        return Patch(image, np.column_stack([across * self.detail, along * step, origin]))


def _resample(values: Points, at: Points, to: Points) -> Points:
    """Rows of `values` given at positions `at`, linearly interpolated at positions `to`."""
    index = np.interp(to, at, np.arange(len(at)))
    low = np.minimum(index.astype(int), len(at) - 2)
    weight = (index - low).reshape(-1, *[1] * (values.ndim - 1))
    return np.asarray(values[low] * (1 - weight) + values[low + 1] * weight)


def _outline(q_rows: Points, y_rows: Points, q_grid: Points) -> tuple[Points, Points, Points]:
    """Near and far depth [rows, len(q_grid)] of each row's closed contour, and what is inside."""
    near = np.empty((len(q_rows), len(q_grid)))
    far = np.empty_like(near)
    for row, (q, y) in enumerate(zip(q_rows, y_rows, strict=True)):
        top, bottom = int(q.argmax()), int(q.argmin())
        up = np.arange(bottom, top + (len(q) if top < bottom else 0) + 1) % len(q)
        down = np.arange(top, bottom + (len(q) if bottom < top else 0) + 1) % len(q)
        one = np.interp(q_grid, np.maximum.accumulate(q[up]), y[up])
        two = np.interp(q_grid, np.maximum.accumulate(q[down][::-1]), y[down][::-1])
        near[row], far[row] = np.minimum(one, two), np.maximum(one, two)
    inside = (q_grid >= q_rows.min(1)[:, None]) & (q_grid <= q_rows.max(1)[:, None])
    return near, far, inside


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid, possibly cut by planes (a hemispherical cup is a sphere and one plane).

    Attributes:
        centre: [3], mm.
        axes: [3, 3]; row i is the i-th semi-axis, mm.
        planes: (normal, offset) pairs; what has `normal @ (p - centre) > offset` is cut away.
        detail, softness: as for `Tube`.
    """

    centre: Points
    axes: Points
    planes: tuple[tuple[Points, float], ...] = ()
    detail: float = 0.5
    softness: float = 0.0

    def project(self, pose: Pose, beam: Beam) -> Patch:
        """The chord image of the ellipsoid in one view."""
        centre = pose.apply(self.centre)
        axes = self.axes @ pose.rotation.T
        reach = np.linalg.norm(axes, axis=0) * beam.magnification(centre) * 1.1
        middle = beam.project(centre)
        margin = 2.0 + 4.0 * self.softness
        u = np.arange(middle[0] - reach[0] - margin, middle[0] + reach[0] + margin, self.detail)
        v = np.arange(middle[1] - reach[2] - margin, middle[1] + reach[2] + margin, self.detail)
        detector = beam.on_detector(np.stack(np.meshgrid(u, v), axis=-1))
        source = beam.source
        rays = _unit(detector - source)
        to_sphere = np.linalg.inv(axes.T)
        start = to_sphere @ (source - centre)
        direction = rays @ to_sphere.T
        a = np.einsum("...i,...i", direction, direction)
        b = direction @ start
        root = np.sqrt(np.maximum(b * b - a * (start @ start - 1.0), 0.0))
        enter, leave = (-b - root) / a, (-b + root) / a
        for normal, offset in self.planes:
            towards = pose.rotation @ normal
            speed = rays @ towards
            crossing = (offset - (source - centre) @ towards) / np.where(speed == 0, 1e-9, speed)
            enter = np.where(speed < 0, np.maximum(enter, crossing), enter)
            leave = np.where(speed > 0, np.minimum(leave, crossing), leave)
        image = np.maximum(leave - enter, 0.0).astype(np.float32)
        if self.softness:
            image = cv2.GaussianBlur(image, (0, 0), self.softness / self.detail)
        matrix = np.array([[self.detail, 0.0, u[0]], [0.0, self.detail, v[0]]])
        return Patch(image, matrix)


Solid = Tube | Ellipsoid


def sphere(centre: Points, radius: float, **kwargs: object) -> Ellipsoid:
    """A sphere, as an `Ellipsoid`."""
    return Ellipsoid(np.asarray(centre, float), np.eye(3) * radius, **kwargs)  # type: ignore[arg-type]


def section(lateral: Points, medial: Points, anterior: Points, posterior: Points) -> Points:
    """Radii [K, len(ANGLES)] of cross-sections made of four quarter ellipses, mm."""
    cos, sin = np.cos(ANGLES), np.sin(ANGLES)
    a = np.where(cos[None] > 0, np.asarray(lateral)[:, None], np.asarray(medial)[:, None])
    b = np.where(sin[None] > 0, np.asarray(anterior)[:, None], np.asarray(posterior)[:, None])
    return np.asarray(1.0 / np.sqrt((cos / a) ** 2 + (sin / b) ** 2))


def round_section(radii: Points) -> Points:
    """Radii [K, len(ANGLES)] of circular cross-sections, mm."""
    return np.repeat(np.asarray(radii, float)[:, None], len(ANGLES), axis=1)


def smooth_field(rng: np.random.Generator, rows: int, row_scale: float, lobes: int = 3) -> Points:
    """A smooth random field [rows, len(ANGLES)], unit variance, periodic in the angle."""
    knots = max(int(rows / row_scale), 3)
    field_ = np.zeros((rows, len(ANGLES)))
    positions = np.linspace(0, knots - 1, rows)
    for order in range(lobes + 1):
        for wave in (np.cos(order * ANGLES), np.sin(order * ANGLES)):
            profile = np.interp(positions, np.arange(knots), rng.standard_normal(knots))
            field_ += profile[:, None] * wave[None, :] / (1.0 + 0.5 * order)
    return np.asarray(field_ / max(field_.std(), 1e-9))
