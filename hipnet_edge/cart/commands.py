"""`hipnet-edge queue` and `hipnet-edge audit`: a look at the data folder, and a hand on it.

They work while the service runs and while it is stopped. What they need of the cart is imported
when they run.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hipnet_edge.errors import UsageError

if TYPE_CHECKING:
    from hipnet_edge.cart.queue import Queue

_FILE = click.Path(path_type=Path, dir_okay=False)
_FOLDER = click.Path(path_type=Path, file_okay=False)
_STATES = ("assembled", "predicted", "delivered", "refused", "failed")


def _data(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `--config` and `--data`; it is called with the data folder that they name."""

    @click.option("--config", type=_FILE, help="The service's configuration, cart.toml.")
    @click.option("--data", type=_FOLDER, help="The data folder itself, instead of --config.")
    @functools.wraps(command)
    def with_folder(config: Path | None, data: Path | None, **options: Any) -> Any:
        if config is not None and data is None:
            from hipnet_edge.cart.configuration import load

            data = load(config).service.data
        elif config is not None or data is None:
            raise click.UsageError("Name the data folder: either --config or --data.")
        return command(data=data, **options)

    return with_folder


@click.group()
def queue() -> None:
    """Look into the cart's queue, try failed cases again, forget finished ones."""


@queue.command("list")
@_data
@click.option("--state", type=click.Choice(_STATES), help="Only cases in this state.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def list_cases(data: Path, state: str | None, limit: int, as_json: bool) -> None:
    """List cases, the latest first, and how many are in each state.

    Nothing that it prints names a patient; study UIDs are in the JSON alone.
    """
    from hipnet_edge.cart.records import State

    with _queue(data) as opened:
        counts = {key.value: n for key, n in opened.counts().items()}
        cases = opened.cases(state=State(state) if state else None, limit=limit)
    if as_json:
        shown = [asdict(case) for case in cases]
        click.echo(json.dumps({"counts": counts, "cases": shown}, indent=2))
        return
    click.echo("  ".join(f"{name} {n}" for name, n in counts.items()))
    for case in cases:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(case.updated_at))
        side, reason = case.laterality or "-", case.reason or ""
        click.echo(f"{case.id:>8}  {when}  {case.state.value:<9}  {side:<5}  {reason}".rstrip())


@queue.command()
@_data
@click.argument("case_ids", nargs=-1, type=int, metavar="[CASE]...")
@click.option("--all", "every", is_flag=True, help="All failed cases.")
def retry(data: Path, case_ids: tuple[int, ...], every: bool) -> None:
    """Go on with failed cases where they stopped."""
    if bool(case_ids) == every:
        raise click.UsageError("Name the cases to try again, or --all.")
    from hipnet_edge.cart.records import State

    with _queue(data) as opened:
        if every:
            case_ids = tuple(c.id for c in opened.cases(state=State.FAILED, limit=-1))
        for case_id in case_ids:
            click.echo(f"Case {case_id} is {opened.retry(case_id).value} again.")


@queue.command()
@_data
@click.option(
    "--older-than",
    "days",
    required=True,
    type=click.FloatRange(min=0),
    metavar="DAYS",
    help="Finished studies to which nothing happened for so many days.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge(data: Path, days: float, yes: bool) -> None:
    """Forget finished studies, their images and results: delivered, refused and failed ones."""
    from hipnet_edge.cart.retention import sweep
    from hipnet_edge.cart.store import ObjectStore

    now = time.time()
    with _queue(data) as opened:
        studies = [s for s in opened.finished_studies() if s.finished_at <= now - days * 86400]
        failed = sum(study.failed for study in studies)
        question = f"Forget {len(studies)} studies, {failed} of them with results never delivered?"
        if studies and not yes:
            click.confirm(question, abort=True, err=True)
        purged = sum(opened.purge(study, "command") for study in studies)
        swept = sweep(opened, ObjectStore(data / "objects", empty_incoming=False), now)
    click.echo(f"{purged} studies purged, {swept} files removed.")


@click.group()
def audit() -> None:
    """The cart's audit file."""


@audit.command()
@_data
def verify(data: Path) -> int:
    """Check every record of the audit file; the exit code is 1 if one is wrong."""
    from hipnet_edge.cart.audit import known_head
    from hipnet_edge.cart.audit import verify as check

    with _queue(data, flush=False) as opened:
        found = check(data / "audit.jsonl", known_head(opened.database))
    click.echo(f"{found.records} records are sound.")
    if found.problem is not None:
        click.echo(f"hipnet-edge: {found.problem}", err=True)
        return 1
    return 0


@contextmanager
def _queue(data: Path, *, flush: bool = True) -> Iterator[Queue]:
    """The queue of a data folder that exists; its new audit records are written at the end."""
    path = data / "cart.sqlite3"
    try:
        owner = path.stat().st_uid
    except OSError as error:
        raise UsageError(f"{data} is not the data folder of a cart.") from error
    if owner != os.geteuid():
        # Files made by another user, root too, would shut the service out of its own folder.
        raise UsageError(f"{data} belongs to user {owner}: run this as that user.")
    from hipnet_edge.cart.audit import AuditTrail
    from hipnet_edge.cart.identity import Pseudonyms
    from hipnet_edge.cart.queue import Queue

    opened = Queue(path, pseudonym=Pseudonyms.load(data))
    try:
        yield opened
        if flush:
            AuditTrail(opened.database, data / "audit.jsonl").flush()
    finally:
        opened.close()
