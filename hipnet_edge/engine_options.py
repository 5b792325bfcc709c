"""The options of every command that predicts, and the predictor that they ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from hipnet_edge.predictor import Predictor

F = TypeVar("F", bound=Callable[..., Any])

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)

_OPTIONS: dict[str, Callable[[F], F]] = {
    "bundle": click.option(
        "--bundle", type=FOLDER, help="Use this model bundle instead of the reference one."
    ),
    "backend": click.option(
        "--backend", default="auto", show_default=True, help="Which engine to use."
    ),
    "precision": click.option(
        "--precision",
        default="auto",
        show_default=True,
        type=click.Choice(["auto", "int8", "bf16", "fp16", "fp32"]),
        help="In which precision it computes.",
    ),
    "threads": click.option(
        "--threads", type=click.IntRange(min=1), help="Threads that may work for it."
    ),
    "exact": click.option(
        "--exact", is_flag=True, help="Decode every pixel, without any shortcut."
    ),
    "overlay": click.option(
        "--overlay", type=FILE, help="Use this site's own calibration of the bundle."
    ),
    "overlay_key": click.option(
        "--overlay-key", type=FILE, help="Only if the owner of this public key signed it."
    ),
}


def engine_options(*, leave_out: tuple[str, ...] = ()) -> Callable[[F], F]:
    """A decorator that gives a command these options, each under its name in `Predictor`."""

    def decorate(command: F) -> F:
        for name in reversed([name for name in _OPTIONS if name not in leave_out]):
            command = _OPTIONS[name](command)
        return command

    return decorate


def open_predictor(options: Mapping[str, Any]) -> Predictor:
    """The predictor that the options of a command ask for; what it was not given is the default."""
    from hipnet_edge.bundle import Bundle
    from hipnet_edge.predictor import Predictor

    chosen = {name: options[name] for name in _OPTIONS if name != "bundle" and name in options}
    return Predictor(
        options["bundle"] or Bundle.reference_path(),
        progress=lambda line: click.echo(f"hipnet-edge: {line}", err=True),
        **chosen,
    )
