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


_ACROSS: Points = 0.5 + 0.5 * np.sin(np.linspace(-0.5, 0.5, 41) * np.pi)
"""Where across an outline its surfaces are tabulated, 0 to 1; dense at the rims."""

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
class _Course:
    """A tube as one view sees it, at each of its nodes.

    Attributes:
        along, across: unit vectors [2] on the detector; p runs along the tube, q across it.
        p, q: [K] detector mm, from the first node.
        nodes: [K, 3] in the view's frame.
        scale: [K] magnification.
        low, high: [K] least and largest q of the outline.
        near, far: [K, len(_ACROSS)] depth of both surfaces from the node, mm.
        oblique: [K] what a chord gains because the tube leans along the beam.
    """

    along: Points
    across: Points
    p: Points
    q: Points
    nodes: Points
    scale: Points
    low: Points
    high: Points
    near: Points
    far: Points
    oblique: Points


@dataclass(frozen=True)
class Tube:
    """A generalised cylinder: a centreline and a radius for each direction along it.

    Attributes:
        nodes: centreline [K, 3], mm.
        radii: [K, len(ANGLES)], mm.
        cut: weight of the material at points of the group's frame, or None.
        detail: grid spacing of the chord image across the tube, mm.
        step: spacing of the chord image along the tube, mm; `detail` where there is a cut.
        softness: standard deviation of a Gaussian that makes the edge ill-defined, mm.
    """

    nodes: Points
    radii: Points
    cut: Cut | None = None
    detail: float = 0.3
    step: float = 1.0
    softness: float = 0.0

    def project(self, pose: Pose, beam: Beam, finest: float = 0.0) -> Patch:
        """The chord image of the tube in one view, on a grid no finer than `finest` mm."""
        course = self._course(pose, beam)
        detail = max(self.detail, finest)
        margin = 2.0 + 4.0 * self.softness
        q_grid = np.arange(course.low.min() - margin, course.high.max() + margin, detail)
        length = float(course.p[-1] - course.p[0])
        wanted = detail if self.cut else max(self.step, detail)
        step = min(wanted, 0.25 * length + 0.2 * detail)
        p_grid = np.arange(course.p[0], course.p[-1] + step, step)
        at = np.interp(p_grid, course.p, np.arange(len(course.p)))
        index = _where(course, at, q_grid)
        chords = (course.far - course.near) * course.oblique[:, None]
        image = _looked_up(chords, index)
        if self.cut is not None:
            image *= self._kept(course, pose, q_grid, at, index)
        if self.softness:
            sigma = self.softness / detail
            image = np.asarray(cv2.GaussianBlur(image, (0, 0), sigma, sigmaY=self.softness / step))
        first = beam.project(course.nodes[0])
        origin = first + (p_grid[0] - course.p[0]) * course.along + q_grid[0] * course.across
        return Patch(image, np.column_stack([course.across * detail, course.along * step, origin]))

    def _course(self, pose: Pose, beam: Beam) -> _Course:
        nodes = pose.apply(self.nodes)
        uv = beam.project(nodes)
        run = uv[-1] - uv[0]
        along = _unit(run) if np.linalg.norm(run) > 1e-3 else np.array([0.0, 1.0])
        across = np.array([-along[1], along[0]])
        tangents = _unit(np.gradient(nodes, axis=0))
        crosswise = np.abs(tangents @ pose.rotation[:, 0]).mean() > 0.85
        reference = pose.rotation[:, 2 if crosswise else 0]
        first = _unit(reference - tangents * (tangents @ reference)[:, None])
        second = np.cross(tangents, first)
        in_plane = np.array([across[0], 0.0, -across[1]])
        cos, sin = np.cos(ANGLES), np.sin(ANGLES)
        aside = (first @ in_plane)[:, None] * cos + (second @ in_plane)[:, None] * sin
        deep = first[:, 1:2] * cos + second[:, 1:2] * sin
        scale = beam.magnification(nodes)
        q = (uv - uv[0]) @ across
        outline = q[:, None] + scale[:, None] * self.radii * aside
        near, far = _surfaces(outline, self.radii * deep)
        return _Course(
            along=along,
            across=across,
            p=np.maximum.accumulate((uv - uv[0]) @ along),
            q=q,
            nodes=nodes,
            scale=scale,
            low=outline.min(1),
            high=outline.max(1),
            near=near,
            far=far,
            # A cross-section is seen foreshortened, and the ray leaves it at the same slant.
            oblique=1.0 / np.clip(1.0 - tangents[:, 1] ** 2, 0.06, 1.0),
        )

    def _kept(
        self, course: _Course, pose: Pose, q_grid: Points, at: Points, index: tuple[Array, Array]
    ) -> Array:
        """Part of every chord [len(at), len(q_grid)] that the cut leaves."""

        def weigh(rows: Points, columns: Points, index: tuple[Array, Array]) -> Array:
            near = _looked_up(course.near, index)
            far = _looked_up(course.far, index)
            nodes, q, scale = (_between(x, rows) for x in (course.nodes, course.q, course.scale))
            aside = (columns[None, :] - q[:, None]) / scale[:, None]
            in_plane = np.array([course.across[0], 0.0, -course.across[1]]) @ pose.rotation
            base = pose.undo(nodes)[:, None, :] + aside[..., None] * in_plane
            base, deeper = base.astype(np.float32), pose.rotation[1].astype(np.float32)
            total = np.zeros_like(near)
            for part, weight in zip(*_DEPTHS, strict=True):
                depth = near + (far - near) * np.float32(0.5 * (1.0 + part))
                points = base + depth[..., None] * deeper
                total += np.float32(0.5 * weight) * self.cut(points)  # type: ignore[misc]
            return total

        # Most rows are wholly kept or wholly gone; only those near the cut need every point.
        few = slice(None, None, max(1, round(2.0 / max(float(q_grid[1] - q_grid[0]), 0.1))))
        sparse = weigh(at[few], q_grid[few], (index[0][few, few], index[1][few, few]))
        rows = np.arange(len(at))
        lowest = np.interp(rows, rows[few], sparse.min(1))
        highest = np.interp(rows, rows[few], sparse.max(1))
        kept = np.repeat((lowest > 0.999)[:, None], len(q_grid), axis=1).astype(np.float32)
        mixed = (lowest <= 0.999) & (highest >= 0.001)
        if mixed.any():
            kept[mixed] = weigh(at[mixed], q_grid, (index[0][mixed], index[1][mixed]))
        return kept


def _between(values: Points, at: Points) -> Points:
    """Rows of `values` at fractional row numbers `at`, linearly interpolated."""
    low = np.minimum(at.astype(int), len(values) - 2)
    weight = (at - low).reshape(-1, *[1] * (values.ndim - 1))
    return np.asarray(values[low] * (1 - weight) + values[low + 1] * weight)


def _surfaces(outline: Points, depth: Points) -> tuple[Points, Points]:
    """Near and far depth [K, len(_ACROSS)] of closed outlines, from their least q to their largest.

    Args:
        outline: q of the outline [K, len(ANGLES)].
        depth: its depth, likewise.
    """
    count = len(ANGLES)
    row = np.arange(len(outline))[:, None]
    low, high = outline.min(1, keepdims=True), outline.max(1, keepdims=True)
    part = (outline - low) / np.maximum(high - low, 1e-9)
    start, end = outline.argmin(1)[:, None], outline.argmax(1)[:, None]
    wanted = (_ACROSS[None, :] + 2.0 * row).ravel()
    sides = []
    for turn in (1, -1):
        # Both ways round from the least q to the largest; all rows in one rising sequence.
        taken = np.minimum(np.arange(count), (turn * (end - start)) % count)
        around = (start + turn * taken) % count
        knots = np.maximum.accumulate(part[row, around], axis=1) + 2.0 * row
        side = np.interp(wanted, knots.ravel(), depth[row, around].ravel())
        sides.append(side.reshape(len(outline), -1))
    near, far = np.minimum(*sides), np.maximum(*sides)
    for column, place in ((0, start), (-1, end)):
        near[:, column] = far[:, column] = depth[row, place][:, 0]
    return near, far


def _where(course: _Course, at: Points, q_grid: Points) -> tuple[Array, Array]:
    """Column and row [len(at), len(q_grid)] of a table of surfaces at each point of the grid."""
    low, high = _between(course.low, at), _between(course.high, at)
    across = (2.0 * q_grid[None, :] - (low + high)[:, None]) / np.maximum(high - low, 1e-9)[:, None]
    angle = np.arcsin(np.clip(across.astype(np.float32), -1.0, 1.0))
    column = (angle * np.float32(1.0 / np.pi) + np.float32(0.5)) * np.float32(len(_ACROSS) - 1)
    row = np.repeat(at.astype(np.float32)[:, None], len(q_grid), axis=1)
    return column, row


def _looked_up(table: Points, index: tuple[Array, Array]) -> Array:
    return np.asarray(cv2.remap(table.astype(np.float32), *index, cv2.INTER_LINEAR))


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

    def project(self, pose: Pose, beam: Beam, finest: float = 0.0) -> Patch:
        """The chord image of the ellipsoid in one view, on a grid no finer than `finest` mm."""
        centre = pose.apply(self.centre)
        axes = self.axes @ pose.rotation.T
        reach = np.linalg.norm(axes, axis=0) * beam.magnification(centre) * 1.1
        middle, detail = beam.project(centre), max(self.detail, finest)
        margin = 2.0 + 4.0 * self.softness
        u = np.arange(middle[0] - reach[0] - margin, middle[0] + reach[0] + margin, detail)
        v = np.arange(middle[1] - reach[2] - margin, middle[1] + reach[2] + margin, detail)
        source = beam.source
        # A ray is source + t (x, y, z) with y constant: x goes with the column, z with the row.
        along = beam.on_detector(np.stack([u, np.full_like(u, v[0])], -1))[:, 0] - source[0]
        down = beam.on_detector(np.stack([np.full_like(v, u[0]), v], -1))[:, 2] - source[2]
        x, y, z = along[None, :], beam.object_to_detector - source[1], down[:, None]
        to_sphere = np.linalg.inv(axes.T)
        form, start = to_sphere.T @ to_sphere, to_sphere @ (source - centre)
        tilt = start @ to_sphere
        # Solve |start + t to_sphere ray| = 1 with what depends on one coordinate worked out once.
        a = (form[0, 0] * x + 2.0 * form[0, 1] * y) * x + form[1, 1] * y * y
        a = a + (form[2, 2] * z + 2.0 * form[1, 2] * y) * z + (2.0 * form[0, 2] * z) * x
        b = (tilt[0] * x + tilt[1] * y) + tilt[2] * z
        root = np.sqrt(np.maximum(b * b - a * (start @ start - 1.0), 0.0))
        enter, leave = (-b - root) / a, (-b + root) / a
        for normal, offset in self.planes:
            towards = pose.rotation @ normal
            speed = (towards[0] * x + towards[1] * y) + towards[2] * z
            crossing = (offset - (source - centre) @ towards) / np.where(speed == 0, 1e-9, speed)
            enter = np.where(speed < 0, np.maximum(enter, crossing), enter)
            leave = np.where(speed > 0, np.minimum(leave, crossing), leave)
        length = np.sqrt((x * x + y * y) + z * z)
        image = (np.maximum(leave - enter, 0.0) * length).astype(np.float32)
        if self.softness:
            image = np.asarray(cv2.GaussianBlur(image, (0, 0), self.softness / detail))
        return Patch(image, np.array([[detail, 0.0, u[0]], [0.0, detail, v[0]]]))


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
