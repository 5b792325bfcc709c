"""What a cart's TOML file may say, checked whole before anything starts.

The models are frozen and know every key. `hipnet_edge.cart.configuration.load` reads them from a
file and reports each mistake with its line and key.
"""

from __future__ import annotations

import hashlib
import ipaddress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

MIB = 1024**2


def _resolved(path: Path, info: ValidationInfo) -> Path:
    """A path as the file's author means it: relative to the file's own folder."""
    folder = (info.context or {}).get("folder")
    return path if folder is None else Path(folder) / path.expanduser()


def _existing_file(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    return path


def _ae_title(title: str) -> str:
    """An application entity title (PS3.5 6.2, VR AE): up to 16 printable ASCII characters."""
    stripped = title.strip(" ")
    printable = all(" " <= character <= "~" and character != "\\" for character in stripped)
    if not (1 <= len(stripped) <= 16 and printable):
        raise ValueError("an AE title has 1 to 16 printable ASCII characters and no backslash")
    return stripped


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine reach what listens on this host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


FilePath = Annotated[Path, AfterValidator(_resolved), AfterValidator(_existing_file)]
"""A file that must be there."""
FolderPath = Annotated[Path, AfterValidator(_resolved)]
"""A folder; who uses it makes it."""
AeTitle = Annotated[str, AfterValidator(_ae_title)]
Port = Annotated[int, Field(ge=1, le=65535)]
Host = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[^\s/]+$")]
Seconds = Annotated[float, Field(gt=0)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ResultKind = Literal["report", "segmentation", "capture"]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Tls(_Table):
    """Mutual TLS: our certificate and key, and who signs the certificates of our peers."""

    certificate: FilePath
    key: FilePath
    peer_ca: FilePath


class Service(_Table):
    """Where the cart keeps what it must not lose, and its name in the results it writes."""

    data: FolderPath
    station_name: str = Field(default="HIPNET", min_length=1, max_length=16)


class Predict(_Table):
    """The pinned model, calibration, variant and engine; another in their place is refused.

    `overlay` is the site's own calibration, and `overlay_key` the public key of who must have
    signed it.
    """

    bundle: str = "reference"
    bundle_digest: Digest
    overlay: FilePath | None = None
    overlay_digest: Digest | None = Field(default=None, validate_default=True)
    overlay_key: FilePath | None = None
    backend: str = Field(min_length=1)
    variant: str = Field(min_length=1)
    allow_fallback: bool = False
    threads: int | None = Field(default=None, ge=1)
    exact: bool = False

    @field_validator("bundle")
    @classmethod
    def _named(cls, bundle: str, info: ValidationInfo) -> str:
        if bundle == "reference":
            return bundle
        folder = _resolved(Path(bundle), info)
        if not (folder / "manifest.json").is_file():
            raise ValueError(f"there is no bundle in {folder}")
        return str(folder)

    @field_validator("overlay_digest")
    @classmethod
    def _pinned(cls, digest: str | None, info: ValidationInfo) -> str | None:
        if "overlay" in info.data and (info.data["overlay"] is None) != (digest is None):
            raise ValueError("overlay and overlay_digest are named together, or neither is")
        return digest

    @field_validator("overlay_key")
    @classmethod
    def _of_an_overlay(cls, key: Path | None, info: ValidationInfo) -> Path | None:
        if key is not None and "overlay" in info.data and info.data["overlay"] is None:
            raise ValueError("a key is for an overlay, and none is named")
        return key

    @property
    def bundle_folder(self) -> Path | None:
        """Where the bundle lies; None means the one that comes with the package."""
        return None if self.bundle == "reference" else Path(self.bundle)


class Receive(_Table):
    """The DICOM receiver: its address, who may send, and the limits for everybody."""

    host: Host = "0.0.0.0"
    port: Port = 11112
    ae_title: AeTitle = "HIPNET"
    any_caller: bool = False
    calling_ae_titles: tuple[AeTitle, ...] = Field(default=(), validate_default=True)
    max_associations: int = Field(default=8, ge=1, le=64)
    max_connections: int = Field(default=64, ge=1, le=512)
    max_pdu_bytes: int = Field(default=MIB, ge=4096, le=16 * MIB)
    max_object_mib: int = Field(default=256, ge=1, le=512)
    idle_timeout_s: Seconds = 30.0
    min_free_mib: int = Field(default=2048, ge=1)
    max_waiting_studies: int = Field(default=1000, ge=1)
    secondary_capture: bool = False
    scanned_film: bool = False
    storage_commitment: bool = False
    tls: Tls | None = None

    @field_validator("calling_ae_titles")
    @classmethod
    def _someone(cls, titles: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        any_caller = info.data.get("any_caller")
        if not titles and any_caller is False:
            raise ValueError("name the AE titles that may send, or set any_caller = true")
        if titles and any_caller:
            raise ValueError("with any_caller = true no AE titles are named")
        return titles


class Watch(_Table):
    """A folder whose files are taken once nothing has written to them for a while."""

    folder: FolderPath
    quiet_s: Seconds = 5.0


class Assemble(_Table):
    """When the images of a study are put together, and what becomes of a lone view."""

    settle_s: float = Field(default=2.0, ge=0)
    lone_view: Literal["hold", "refuse"] = "refuse"
    lone_view_timeout_s: Seconds = 900.0


class _Destination(_Table):
    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")
    objects: tuple[ResultKind, ...] = ("report", "segmentation", "capture")


class DicomDestination(_Destination):
    """A PACS that takes C-STORE; `ae_title` is the one it is called by."""

    kind: Literal["dicom"]
    host: Host
    port: Port
    ae_title: AeTitle
    tls: Tls | None = None


class FolderDestination(_Destination):
    """A folder into which the results are written as files."""

    kind: Literal["folder"]
    path: FolderPath


class DicomwebDestination(_Destination):
    """A DICOMweb server that takes STOW-RS; `url` ends where /studies begins."""

    kind: Literal["dicomweb"]
    url: str = Field(pattern=r"^https?://[^\s]+$")
    token_file: FilePath | None = None


Destination = Annotated[
    DicomDestination | FolderDestination | DicomwebDestination, Field(discriminator="kind")
]


class Deliver(_Table):
    """How results are sent, and sent again; `calling_ae_title` is the receiver's if not given."""

    calling_ae_title: AeTitle | None = None
    first_retry_s: Seconds = 5.0
    max_retry_s: Seconds = 300.0
    give_up_after_h: Seconds = 72.0
    idle_release_s: Seconds = 30.0


class Page(_Table):
    """The local page; where others can reach it, it asks for the token in `token_file`.

    `names` are those by which browsers know it besides its addresses and this machine's own name.
    """

    enabled: bool = True
    host: Host = "127.0.0.1"
    port: Port = 8080
    names: tuple[Host, ...] = ()
    token_file: FilePath | None = Field(default=None, validate_default=True)
    show_patient: bool = True

    @field_validator("token_file")
    @classmethod
    def _guarded(cls, token_file: Path | None, info: ValidationInfo) -> Path | None:
        host = info.data.get("host")
        if token_file is None and info.data.get("enabled") and host and not is_loopback(host):
            raise ValueError(f"a page on {host} can be reached from outside: it needs a token_file")
        return token_file


class Selftest(_Table):
    """How often known studies are put to the predictor; 0 hours: never."""

    every_h: float = Field(default=24, ge=0)


class Retention(_Table):
    """What is kept of finished studies: so many days, so much space."""

    days: float = Field(default=30, gt=0)
    max_gib: float = Field(default=50, gt=0)


class Log(_Table):
    """How much is logged."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class Configuration(_Table):
    """All that a cart's file says; every table but [service], [predict] and [receive] may lack."""

    service: Service
    predict: Predict
    receive: Receive
    watch: Watch | None = None
    assemble: Assemble = Assemble()
    destination: tuple[Destination, ...] = ()
    deliver: Deliver = Deliver()
    page: Page = Page()
    selftest: Selftest = Selftest()
    retention: Retention = Retention()
    log: Log = Log()

    @field_validator("watch")
    @classmethod
    def _apart(cls, watch: Watch | None, info: ValidationInfo) -> Watch | None:
        service = info.data.get("service")
        if watch is not None and service is not None:
            folder, data = watch.folder.resolve(), service.data.resolve()
            if folder == data or folder in data.parents or data in folder.parents:
                raise ValueError("the watch folder and [service] data must not contain each other")
        return watch

    @field_validator("destination")
    @classmethod
    def _told_apart(cls, destinations: tuple[_Destination, ...]) -> tuple[_Destination, ...]:
        names = [destination.name for destination in destinations]
        if len(set(names)) < len(names):
            raise ValueError("two destinations have the same name")
        return destinations

    @property
    def delivery_ae_title(self) -> str:
        """The AE title by which this cart calls a PACS."""
        return self.deliver.calling_ae_title or self.receive.ae_title

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of all settings, defaults included; the audit says which ones applied."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()
