"""`hipnet-edge serve`: run the cart, check its configuration, or write one to begin with."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hipnet_edge.errors import HipNetError, UsageError

if TYPE_CHECKING:
    from hipnet_edge.cart.settings import Configuration

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.option("--config", type=_FILE, help="The configuration, cart.toml.")
@click.option("--check", "only_check", is_flag=True, help="Only say whether the cart would start.")
@click.option(
    "--write-config",
    type=_FILE,
    help="Write a commented configuration, pinned to what runs best here now.",
)
def serve(config: Path | None, only_check: bool, write_config: Path | None) -> int:
    """Run an imaging cart: radiographs arrive over DICOM, results go back to the PACS.

    It runs until SIGTERM or SIGINT. Logs go to stderr as JSON lines.
    """
    if write_config is not None:
        if config is not None or only_check:
            raise click.UsageError("--write-config is given alone.")
        _write_configuration(write_config)
        return 0
    if config is None:
        raise click.UsageError("Name the configuration: --config cart.toml.")
    from hipnet_edge.cart.configuration import load

    configuration = load(config)
    if only_check:
        return _check(configuration)
    from hipnet_edge.cart import logs
    from hipnet_edge.cart.service import serve as run

    logs.set_up(configuration.log.level)
    run(configuration)
    return 0


def _write_configuration(path: Path) -> None:
    """Load the reference bundle as it runs best here, and pin just that."""
    from hipnet_edge.cart.configuration import Pins, example
    from hipnet_edge.predictor import Predictor

    if path.exists():
        raise UsageError(f"{path} is there already; it is not overwritten.")
    with Predictor.reference(progress=lambda line: click.echo(line, err=True)) as predictor:
        made_by = predictor.provenance
    text = example(Pins(made_by.bundle_digest, made_by.backend, made_by.variant))
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}.") from error
    click.echo(
        f"{path}: pinned to {made_by.backend}, {made_by.variant}. Name who may send and where "
        f"results go, then: hipnet-edge serve --check --config {path}"
    )


def _check(configuration: Configuration) -> int:
    """Say what would keep a cart from starting; the exit code is 0 if nothing would."""
    problems = list(_problems(configuration))
    for problem in problems:
        click.echo(f"hipnet-edge: {problem}", err=True)
    if not problems:
        click.echo("The configuration is sound: the cart would start.")
    return 2 if problems else 0


def _problems(configuration: Configuration) -> Iterator[str]:
    """What is wrong, one sentence each."""
    from hipnet_edge.cart.couriers import courier_for
    from hipnet_edge.cart.engine import open_pinned
    from hipnet_edge.cart.tls import server_context

    predict, receive, page = configuration.predict, configuration.receive, configuration.page
    try:
        predictor, _ = open_pinned(predict)
        predictor.close()
    except HipNetError as error:
        yield f"predict: {error.message}"
    if receive.tls is not None:
        try:
            server_context(receive.tls)
        except HipNetError as error:
            yield f"receive.tls: {error.message}"
    folders = {"service.data": configuration.service.data}
    if configuration.watch is not None:
        folders["watch.folder"] = configuration.watch.folder
    for destination in configuration.destination:
        try:
            courier_for(destination, configuration)
        except HipNetError as error:
            yield f"destination {destination.name}: {error.message}"
        if destination.kind == "folder":
            folders[f"destination {destination.name}"] = destination.path
    for name, folder in folders.items():
        if not _writable(folder, may_be_made=name == "service.data"):
            yield f"{name}: {folder} is no folder that can be written to."
    addresses = {"receive": (receive.host, receive.port)}
    if page.enabled:
        addresses["page"] = (page.host, page.port)
    for name, (host, port) in addresses.items():
        if (trouble := _cannot_listen(host, port)) is not None:
            yield f"{name}: {host}:{port} cannot be listened on: {trouble}."


def _writable(folder: Path, *, may_be_made: bool) -> bool:
    while may_be_made and not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _cannot_listen(host: str, port: int) -> str | None:
    """Why an address cannot be listened on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        in_use = error.errno == errno.EADDRINUSE
        return "it is in use, perhaps by the running cart" if in_use else str(error.strerror)
    return None
