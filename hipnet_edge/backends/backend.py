"""What every backend has in common: the network's contract, and the checks around each inference.

A backend is a way to run the bundle's merged network (ONNX Runtime, OpenVINO, TensorRT). The
public `infer` checks what goes in and what comes out; a subclass fills in `infer_impl`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from hipnet_edge.errors import EngineUnusable, Reason, UsageError
from hipnet_edge.vocabulary import CAUSES, VIEWS

if TYPE_CHECKING:
    from hipnet_edge.bundle import Bundle

Progress = Callable[[str], None]
"""Told now and then, in one line, how far a long loading is."""

MEMBERS = 4
"""How many backbones an ensemble has."""

# Float32 softmax sums to 1 within 1e-6; what is further off than this is no probability.
_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Signature:
    """The contract of the merged network: names and shapes, whatever produced the file.

    Input `radiographs` `input_type` [B, 2, rows, columns], AP first. Outputs, all float32:
    `probabilities` [B, 5], `member_probabilities` [B, 4, 5], `maps` [B, 2, 5, map_rows,
    map_columns] and, of a calibrated bundle, `novelty` [B]. B is 1 unless `dynamic_batch`.
    """

    rows: int
    columns: int
    map_rows: int
    map_columns: int
    dynamic_batch: bool = False
    novelty: bool = False
    input_type: str = "float32"

    def input_shape(self, batch: int = 1) -> tuple[int, ...]:
        """The shape of `radiographs`."""
        return (batch, len(VIEWS), self.rows, self.columns)

    def output_shapes(self, batch: int = 1) -> dict[str, tuple[int, ...]]:
        """The shape of each output, by its name."""
        shapes: dict[str, tuple[int, ...]] = {
            "probabilities": (batch, len(CAUSES)),
            "member_probabilities": (batch, MEMBERS, len(CAUSES)),
            "maps": (batch, len(VIEWS), len(CAUSES), self.map_rows, self.map_columns),
        }
        return {**shapes, "novelty": (batch,)} if self.novelty else shapes

    def test_pattern(self, seed: int = 0) -> NDArray[np.float32]:
        """A fixed input that no library's random numbers can change, for warm-up and self-test.

        Hashed blocks of 1 to 64 pixels, added up in whole numbers: the same on every machine.

        Returns:
            float32 [1, 2, rows, columns], in -2 to 2 like a preprocessed radiograph.
        """
        view, row, column = np.ogrid[: len(VIEWS), : self.rows, : self.columns]
        total = np.zeros(self.input_shape()[1:], np.uint32)
        for size in (1, 4, 16, 64):
            block = (view * 4096 + row // size) * 4096 + column // size + 97 * seed + size
            mixed = block.astype(np.uint32) * np.uint32(2654435761)
            mixed = (mixed ^ (mixed >> np.uint32(15))) * np.uint32(2246822519)
            total += mixed >> np.uint32(20)
        # Four numbers below 4096 add up to less than 2**14: exact in float32.
        scaled = total[np.newaxis].astype(np.float32) / np.float32(4096.0)
        pattern: NDArray[np.float32] = scaled - np.float32(2.0)
        return pattern


@dataclass(frozen=True)
class Outputs:
    """What the network said of a batch of studies: float32, finite, owned by the caller."""

    probabilities: NDArray[np.float32]
    """[B, 5], each row sums to 1."""
    member_probabilities: NDArray[np.float32]
    """[B, 4, 5], the same for each of the four backbones."""
    maps: NDArray[np.float32]
    """[B, 2, 5, map_rows, map_columns], probability of disease at each place, 0 to 1."""
    novelty: NDArray[np.float32] | None = None
    """[B], how far the study is from those the network was fitted to: about 1 for one of those,
    more for a stranger; None where the network does not say."""


@dataclass(frozen=True)
class Identity:
    """Which engine would run a variant here, as a verdict of the gate names it."""

    version: str
    device: str


class Backend(ABC):
    """A loaded network. Safe from many threads; holds nothing of any call.

    Attributes:
        name: the backend's name, as `Predictor(backend=…)` takes it.
        variants: which variant of a bundle it runs for each precision, the preferred one first.
        signature: the shapes it was loaded with.
        version: the version of the engine.
        device: what it runs on, such as "cpu".
        settings: what it was started with; stands in every result.
        on_gpu: whether it computes on a GPU.
        distributions: the packages that bring its engine; any one of them does.
        proven: whether a GPU has run this version's code for it; always so on the CPU.
    """

    name: ClassVar[str]
    variants: ClassVar[Mapping[str, str]]
    on_gpu: ClassVar[bool] = False
    proven: ClassVar[bool] = True
    distributions: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, signature: Signature, *, version: str, device: str, settings: Mapping[str, object]
    ) -> None:
        self.signature = signature
        self.version = version
        self.device = device
        self.settings: Mapping[str, object] = MappingProxyType(dict(settings))

    @classmethod
    @abstractmethod
    def identify(cls, variant: str) -> Identity:
        """Which engine and device would run a variant here; loads no network.

        Raises:
            EngineUnusable: nothing here could; MissingExtra if a package is not installed.
        """

    @classmethod
    @abstractmethod
    def open(
        cls,
        bundle: Bundle,
        variant: str,
        *,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> Backend:
        """Load a variant of a bundle.

        Args:
            bundle: the verified bundle.
            variant: one of its variants that this backend runs.
            threads: how many threads share one inference on the CPU; None for all cores.
            progress: told how far a long loading is, such as the building of a plan.

        Raises:
            EngineUnusable: the engine cannot run it here; MissingExtra as in `identify`.
        """

    def infer(self, radiographs: NDArray[np.float32]) -> Outputs:
        """Run the network.

        Args:
            radiographs: float32 [B, 2, rows, columns], preprocessed, AP first.

        Raises:
            UsageError: the input is not what the network takes, or the backend was closed.
            EngineUnusable: the engine failed (ENGINE_FAILED) or gave NaN or infinity
                (NON_FINITE_OUTPUT).
        """
        self._check_input(radiographs)
        given = np.ascontiguousarray(radiographs, self.signature.input_type)
        outputs = self.infer_impl(given)
        self._check_outputs(outputs, len(radiographs))
        return outputs

    @abstractmethod
    def infer_impl(self, radiographs: NDArray[np.floating]) -> Outputs:
        """Run the network on a checked, contiguous input of the signature's `input_type`.

        The outputs belong to the caller.
        """

    @abstractmethod
    def close(self) -> None:
        """Release the engine. Calls that are under way end as if it had not been closed."""

    def _check_input(self, radiographs: NDArray[np.float32]) -> None:
        batch = len(radiographs) if radiographs.ndim else 0
        expected = self.signature.input_shape(batch if self.signature.dynamic_batch else 1)
        if batch == 0 or radiographs.shape != expected or radiographs.dtype != np.float32:
            raise UsageError(
                f"The network takes float32 {list(expected)}, "
                f"not {radiographs.dtype} {list(radiographs.shape)}."
            )
        if not _finite(radiographs):
            raise UsageError("The network's input holds NaN or infinity.")

    def _check_outputs(self, outputs: Outputs, batch: int) -> None:
        for name, shape in self.signature.output_shapes(batch).items():
            values: NDArray[np.float32] = getattr(outputs, name)
            if values.shape != shape or values.dtype != np.float32:
                raise EngineUnusable(
                    f"{self.name} gave {name} as {values.dtype} {list(values.shape)} instead of "
                    f"float32 {list(shape)}."
                )
            if not _finite(values):
                raise EngineUnusable(
                    f"{self.name} gave NaN or infinity in {name}; no result is reported.",
                    Reason.NON_FINITE_OUTPUT,
                )
            wrong = name != "novelty" and (values.min() < 0.0 or values.max() > 1.0)
            if "probabilities" in name:
                wrong = wrong or np.abs(values.sum(axis=-1) - 1.0).max() > _SUM_TOLERANCE
            if wrong:
                raise EngineUnusable(f"{self.name} gave {name} that are no probabilities.")


def _finite(values: NDArray[np.float32]) -> bool:
    """Whether every value is a number: their sum is none if one of them is none."""
    with np.errstate(over="ignore", invalid="ignore"):
        # Very large numbers may add up to infinity; only then each is looked at.
        return bool(np.isfinite(values.sum()) or np.isfinite(values).all())
