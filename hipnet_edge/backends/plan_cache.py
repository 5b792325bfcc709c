"""Compiled networks on disk, and the gate's verdicts, in one folder of the user's alone.

A plan is a network as TensorRT or OpenVINO compiled it, and a plan is code: whoever can write one
can run anything as whoever loads it. So plans are read only from a folder that belongs to the user
and that nobody else can write, only when the folder's own index lists them, and only as the bytes
whose sha256 stands there. The index also says what each plan was built from and for; a plan that
belongs to another network, device, precision, engine or set of options is refused by its own
reason before a byte of it reaches the engine.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from hipnet_edge.backends.private_folder import make_private, read_private, require_private
from hipnet_edge.errors import EngineUnusable, Reason
from hipnet_edge.fields import Fields
from hipnet_edge.verdict import Verdict, read_verdict

SCHEMA = 1
"""Of the index and of the verdicts' file."""

_INDEX = "index.json"
_VERDICTS = "verdicts.json"
_LARGEST_INDEX = 1 << 22
_LARGEST_FILE = 1 << 28
_FOLDER = "HIPNET_EDGE_PLANS"


def default_folder() -> Path:
    """Where plans lie unless told otherwise: HIPNET_EDGE_PLANS, else the user's cache."""
    if named := os.environ.get(_FOLDER):
        return Path(named)
    if cache := os.environ.get("XDG_CACHE_HOME"):
        return Path(cache) / "hipnet-edge" / "plans"
    try:
        return Path.home() / ".cache" / "hipnet-edge" / "plans"
    except RuntimeError:
        # A user without a home, as in some containers: a folder that cannot be made.
        return Path(os.devnull) / "plans"


@dataclass(frozen=True)
class PlanKey:
    """Everything on which a plan depends; two plans with equal keys may stand for each other."""

    network: str
    """The sha256 of the bundle's ONNX file."""
    part: str
    """"network" for the whole of it, else the backbone's name, or "tail"."""
    variant: str
    flavour: str
    """"tensorrt", "tensorrt_rtx" or "openvino"."""
    version: str
    """Of the engine, to the last digit."""
    device: str
    """The GPU's or processor's name; for a plan that serves a whole family of them "any"."""
    compute_capability: str
    """Such as "8.7"; of a plan for several "8.6,8.9", for one and all newer ones "8.0+"; of a
    processor "CPU"."""
    options: Mapping[str, object] = field(default_factory=dict)
    """Of the builder, shapes among them; nothing in it but JSON."""

    def name(self) -> str:
        """The plan's file name."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32] + ".plan"

    def why_not(self, wanted: PlanKey) -> EngineUnusable | None:
        """Why a plan of this key may not run where `wanted` is asked for; None if it may."""
        for name in ("network", "part", "variant"):
            if getattr(self, name) != getattr(wanted, name):
                return _differs(Reason.PLAN_FOREIGN, name, self, wanted)
        if self.device not in ("any", wanted.device):
            return _differs(Reason.PLAN_FOREIGN, "device", self, wanted)
        if not _covers(self.compute_capability, wanted.compute_capability):
            return _differs(Reason.PLAN_FOREIGN, "compute_capability", self, wanted)
        for name in ("flavour", "version"):
            if getattr(self, name) != getattr(wanted, name):
                return _differs(Reason.PLAN_STALE, name, self, wanted)
        if dict(self.options) != dict(wanted.options):
            return _differs(Reason.PLAN_STALE, "options", self, wanted)
        return None


@dataclass(frozen=True)
class Plan:
    """A plan that was verified, ready for its engine."""

    content: bytes
    sha256: str
    key: PlanKey
    """Its own, which may serve more devices than the one that was asked for."""


@dataclass(frozen=True)
class Entry:
    """What the index says of one plan."""

    sha256: str
    bytes: int
    built: str
    key: PlanKey
    build: Mapping[str, object]


class PlanCache:
    """A folder of plans, its index and the verdicts made on this device.

    Args:
        folder: made when something is stored; None for `default_folder()`.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = default_folder() if folder is None else Path(folder)

    def load(self, wanted: PlanKey) -> Plan:
        """The plan for a key, verified as it lies in memory.

        Raises:
            EngineUnusable: PLAN_MISSING (nothing was built for this part of the network),
                PLAN_FOREIGN or PLAN_STALE (what was built is for something else),
                PLAN_CORRUPT (the bytes are not the listed ones) or PLAN_UNTRUSTED.
        """
        entries = self.entries()
        fitting = [name for name, entry in entries.items() if entry.key.why_not(wanted) is None]
        if not fitting:
            raise self._nearest(wanted, entries)
        name = wanted.name() if wanted.name() in fitting else fitting[0]
        entry = entries[name]
        content = self._read(name, entry.bytes)
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            raise _corrupt(name)
        return Plan(content, entry.sha256, entry.key)

    def store(self, key: PlanKey, content: bytes, build: Mapping[str, object]) -> Plan:
        """Keep a plan; what lay there under the same key goes, and the device's verdicts on it.

        Args:
            key: what it was built from and for.
            content: the plan.
            build: what the build said of itself (seconds, layers, options), as JSON.

        Raises:
            EngineUnusable: PLAN_UNTRUSTED; nothing is written into such a folder.
        """
        sha256 = hashlib.sha256(content).hexdigest()
        with self._writing():
            self._write(key.name(), content)
            index = self._json(_INDEX, {"schema": SCHEMA, "plans": {}})
            plans = Fields(index, "", _complain).mapping("plans")
            made = {
                "sha256": sha256,
                "bytes": len(content),
                "built": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "key": asdict(key),
                "build": dict(build),
            }
            self._write_json(_INDEX, {"schema": SCHEMA, "plans": {**plans, key.name(): made}})
            # TensorRT chooses its tactics anew in each build, so a verdict ends with its plan.
            self._write_verdicts(
                (network, verdict)
                for network, verdict in self._stored_verdicts()
                if (network, verdict.variant) != (key.network, key.variant)
                or not verdict.backend.startswith("tensorrt")
            )
        return Plan(content, sha256, key)

    def entries(self) -> dict[str, Entry]:
        """What the index lists, by file name; empty where nothing was built yet.

        Raises:
            EngineUnusable: PLAN_UNTRUSTED, or PLAN_CORRUPT if the index cannot be read.
        """
        if not self.folder.exists():
            return {}
        require_private(self.folder)
        index = Fields(self._json(_INDEX, {"schema": SCHEMA, "plans": {}}), "", _complain)
        if index.raw("schema") != SCHEMA:
            raise _complain("it is of another schema.")
        plans = index.child("plans")
        return {name: _entry(plans.child(name)) for name in plans}

    def verdicts(self, network: str) -> tuple[Verdict, ...]:
        """The verdicts that the gate made on this device for a network.

        Args:
            network: the sha256 of the bundle's ONNX file.

        Raises:
            EngineUnusable: PLAN_UNTRUSTED or PLAN_CORRUPT.
        """
        if not self.folder.exists():
            return ()
        require_private(self.folder)
        return tuple(verdict for of, verdict in self._stored_verdicts() if of == network)

    def record(self, network: str, verdict: Verdict) -> None:
        """Keep a verdict that the gate made on this device; an earlier one on the same goes.

        Raises:
            EngineUnusable: PLAN_UNTRUSTED or PLAN_CORRUPT.
        """
        with self._writing():
            kept = [
                made
                for made in self._stored_verdicts()
                if (made[0], *_about(made[1])) != (network, *_about(verdict))
            ]
            self._write_verdicts([*kept, (network, verdict)])

    def read(self, name: str) -> bytes:
        """Another file of this folder, such as the builder's timing cache; empty if not there.

        Raises:
            EngineUnusable: PLAN_UNTRUSTED.
        """
        if not (self.folder / name).exists():
            return b""
        require_private(self.folder)
        return read_private(self.folder / name, _LARGEST_FILE)

    def keep(self, name: str, content: bytes) -> None:
        """Write such a file, whole or not at all."""
        with self._writing():
            self._write(name, content)

    def require_writable(self) -> None:
        """Make sure that something can be kept here.

        Raises:
            EngineUnusable: PLAN_UNTRUSTED, with what stands in the way.
        """
        with self._writing():
            pass

    def _nearest(self, wanted: PlanKey, entries: Mapping[str, Entry]) -> EngineUnusable:
        """Why nothing fits: of the plans that come closest, what is different."""
        reasons = [entry.key.why_not(wanted) for entry in entries.values()]
        for code in (Reason.PLAN_STALE, Reason.PLAN_FOREIGN):
            for reason in reasons:
                if reason is not None and reason.code is code:
                    return reason
        return EngineUnusable(
            f"No plan was built for {wanted.variant} ({wanted.part}) on {wanted.device}: "
            "build it with python -m export.build_engines, or let the first run build it.",
            Reason.PLAN_MISSING,
        )

    def _read(self, name: str, size: int) -> bytes:
        try:
            content = read_private(self.folder / name, size)
        except FileNotFoundError as error:
            raise _corrupt(name) from error
        if len(content) != size:
            raise _corrupt(name)
        return content

    def _json(self, name: str, empty: object) -> object:
        try:
            text = read_private(self.folder / name, _LARGEST_INDEX)
            return json.loads(text)
        except FileNotFoundError:
            return empty
        except (ValueError, RecursionError) as error:
            raise EngineUnusable(
                f"{self.folder / name} is not JSON: remove it, and the plans are built anew.",
                Reason.PLAN_CORRUPT,
            ) from error

    def _stored_verdicts(self) -> list[tuple[str, Verdict]]:
        fields = Fields(self._json(_VERDICTS, {"verdicts": []}), "", _complain)
        return [_verdict(verdict) for verdict in fields.children("verdicts")]

    def _write_verdicts(self, verdicts: Iterable[tuple[str, Verdict]]) -> None:
        made = [{"network": of, "verdict": verdict.to_dict()} for of, verdict in verdicts]
        self._write_json(_VERDICTS, {"schema": SCHEMA, "verdicts": made})

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One process at a time changes the folder; it is made if missing, for its user alone."""
        make_private(self.folder)
        require_private(self.folder)
        try:
            handle = os.open(self.folder / ".lock", os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                yield
            finally:
                os.close(handle)
        except OSError as error:
            raise EngineUnusable(
                f"The folder for plans, {self.folder}, cannot be written: "
                f"{error.strerror or error}.",
                Reason.PLAN_UNTRUSTED,
            ) from error

    def _write(self, name: str, content: bytes) -> None:
        """Whole or not at all, and never readable or writable for others."""
        part = self.folder / f".{name}.part"
        part.unlink(missing_ok=True)
        handle = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.folder / name)

    def _write_json(self, name: str, value: object) -> None:
        self._write(name, (json.dumps(value, indent=1) + "\n").encode())


def _entry(fields: Fields) -> Entry:
    key = fields.child("key")
    return Entry(
        sha256=fields.text("sha256"),
        bytes=fields.integer("bytes", 1, 2**40),
        built=fields.text("built"),
        key=PlanKey(
            network=key.text("network"),
            part=key.text("part"),
            variant=key.text("variant"),
            flavour=key.text("flavour"),
            version=key.text("version"),
            device=key.text("device"),
            compute_capability=key.text("compute_capability"),
            options=key.mapping("options"),
        ),
        build=fields.mapping("build"),
    )


def _verdict(fields: Fields) -> tuple[str, Verdict]:
    """One stored verdict, after the network that it is about."""
    return fields.text("network"), read_verdict(fields.child("verdict"))


def _about(verdict: Verdict) -> tuple[str, str, str, str]:
    return verdict.variant, verdict.backend, verdict.version, verdict.device


def _covers(capabilities: str, wanted: str) -> bool:
    """Whether a plan for `capabilities` ("8.6", "8.6,8.9", "8.0+") runs on one of `wanted`."""

    def number(capability: str) -> tuple[int, ...]:
        return tuple(int(digits) for digits in capability.split("."))

    for capability in capabilities.split(","):
        if capability == wanted:
            return True
        if capability.endswith("+") and number(wanted) >= number(capability[:-1]):
            return True
    return False


def _complain(what: str) -> EngineUnusable:
    return EngineUnusable(f"The index of built plans is unusable: {what}", Reason.PLAN_CORRUPT)


def _corrupt(name: str) -> EngineUnusable:
    return EngineUnusable(
        f"The plan {name} is not the one that its index lists: it is damaged or was exchanged, "
        "and was not loaded.",
        Reason.PLAN_CORRUPT,
    )


def _differs(code: Reason, name: str, found: PlanKey, wanted: PlanKey) -> EngineUnusable:
    what = {
        "network": "another network",
        "part": "another part of the network",
        "variant": "another variant",
        "device": "another device",
        "compute_capability": "another compute capability",
        "flavour": "another flavour of the engine",
        "version": "another version of the engine",
        "options": "other build options",
    }[name]
    expected, there = (str(getattr(key, name))[:80] for key in (wanted, found))
    return EngineUnusable(
        f"The built plan is for {what} (expected {expected}, found {there}); "
        "python -m export.build_engines builds it anew.",
        code,
    )
