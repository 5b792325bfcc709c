"""Whatever the bytes are, the outcome is a radiograph or a refusal, and memory stays bounded."""

from __future__ import annotations

import contextlib
import json
import random
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pytest
from dicom_files import (
    LOSSLESS,
    LOSSY,
    can_encode,
    encode,
    look_up_table,
    make_dataset,
    make_dicom,
    scene,
    to_bytes,
)
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
)

from hipnet_edge.errors import HipNetError, InputRefused, Reason
from hipnet_edge.radiograph import Radiograph

pytestmark = pytest.mark.filterwarnings("ignore")

MUTANTS = 60
"""For each transfer syntax and each way of damage."""
SMALL = {"rows": 72, "columns": 64}


def refusal(data: bytes, read: Callable[..., Radiograph] = Radiograph.from_dicom) -> InputRefused:
    with pytest.raises(InputRefused) as refused:
        read(data)
    return refused.value


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def flip(data: bytes, rng: random.Random) -> bytes:
    mutant = bytearray(data)
    for _ in range(rng.randint(1, 12)):
        mutant[rng.randrange(132, len(data))] = rng.choice(
            (0, 1, 127, 128, 255, rng.randrange(256))
        )
    return bytes(mutant)


def flip_before_pixels(data: bytes, rng: random.Random) -> bytes:
    """Damage in the header or in the first bytes of the frame."""
    end = min(len(data), max(data.rfind(b"\xe0\x7f\x10\x00"), 132) + 200)
    mutant = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        mutant[rng.randrange(132, end)] = rng.randrange(256)
    return bytes(mutant)


def shift(data: bytes, rng: random.Random) -> bytes:
    at, length = rng.randrange(132, len(data)), rng.randint(1, 40)
    if rng.random() < 0.5:
        return data[:at] + data[at + length :]
    return data[:at] + rng.randbytes(length) + data[at:]


@pytest.mark.parametrize("damage", [cut, flip, flip_before_pixels, shift])
@pytest.mark.parametrize("syntax", [*LOSSLESS, *LOSSY], ids=lambda syntax: syntax.keyword)
def test_damaged_files_are_read_or_refused(syntax, damage):
    if not can_encode(syntax):
        pytest.skip("imagecodecs for Python 3.10 cannot encode HTJ2K")
    bits = 8 if syntax == JPEGBaseline8Bit else 12
    table = look_up_table(np.arange(256), 0, 12)
    data = make_dicom(
        scene(bits, **SMALL),
        bits_stored=bits,
        transfer_syntax=syntax,
        padding=0,
        VOILUTSequence=[table],
        WindowCenter=2000,
        WindowWidth=3000,
    )
    rng = random.Random(f"{syntax} {damage.__name__}")
    for _ in range(MUTANTS):
        try:
            grey = Radiograph.from_dicom(damage(data, rng)).grey_levels()
        except HipNetError:
            continue
        assert grey.shape[0] * grey.shape[1] <= 4 * 72 * 64
        assert grey.min() >= 0
        assert grey.max() <= 1


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tiff"])
def test_damaged_images_are_read_or_refused(suffix):
    data = cv2.imencode(suffix, scene(8, **SMALL))[1].tobytes()
    rng = random.Random(suffix)
    for damage in (cut, flip, shift) * MUTANTS:
        with contextlib.suppress(HipNetError):
            Radiograph.from_image(damage(data, rng)).grey_levels()


def test_the_cause_is_chained():
    data = make_dicom(scene(12), bits_stored=12, WindowCenter="1234", WindowWidth="2")
    assert data.count(b"1234") == 1
    broken = data.replace(b"1234", b"12x4")
    refused = refusal(broken)
    assert refused.code is Reason.NOT_DICOM
    assert isinstance(refused.__cause__, ValueError)


def element(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    size = len(value) if length is None else length
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    if vr in (b"OB", b"OW", b"SQ", b"UN", b"UT"):
        return head + struct.pack("<HI", 0, size) + value
    return head + struct.pack("<H", size) + value


def spliced(inserted: bytes) -> bytes:
    """A good file with bytes put in front of Pixel Data."""
    data = make_dicom(scene(8))
    at = data.rfind(struct.pack("<HH", 0x7FE0, 0x0010))
    return data[:at] + inserted + data[at:]


UNDEFINED = 0xFFFFFFFF
ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)
EMPTY_ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
VOI_SEQUENCE, PRIVATE_SEQUENCE = 0x00283010, 0x00431001


def deflated_bomb() -> bytes:
    """256 MiB of zeros where the pixels should be; a quarter of a megabyte as a file."""
    plain = make_dicom(scene(8), transfer_syntax=ExplicitVRLittleEndian)
    start = plain.find(struct.pack("<HH", 0x0008, 0x0008))
    at = plain.rfind(struct.pack("<HH", 0x7FE0, 0x0010))
    head = to_bytes(make_dataset(scene(8), transfer_syntax=DeflatedExplicitVRLittleEndian))
    meta_end = 144 + struct.unpack_from("<I", head, 140)[0]
    packer = zlib.compressobj(9, wbits=-15)
    packed = packer.compress(plain[start:at] + element(0x7FE00010, b"OW", b"", 256 * 1024**2))
    for _ in range(256):
        packed += packer.compress(bytes(1024**2))
    return head[:meta_end] + packed + packer.flush()


def deflated_header_bomb() -> bytes:
    """A deflated data set that never comes to its pixels."""
    head = to_bytes(make_dataset(scene(8), transfer_syntax=DeflatedExplicitVRLittleEndian))
    meta_end = 144 + struct.unpack_from("<I", head, 140)[0]
    packer = zlib.compressobj(9, wbits=-15)
    packed = packer.compress(element(0x00091001, b"UN", b"", 900 * 1024**2))
    for _ in range(256):
        packed += packer.compress(bytes(1024**2))
    return head[:meta_end] + packed + packer.flush()


def frame_with(old: bytes, new: bytes, syntax: str = JPEG2000Lossless, **changes: Any) -> bytes:
    frame = encode(scene(12), syntax, 12)
    assert frame.count(old) >= 1
    frame = frame.replace(old, new, 1)
    return make_dicom(scene(12), bits_stored=12, transfer_syntax=syntax, frame=frame, **changes)


def size_marker(rows: int, columns: int) -> bytes:
    return struct.pack(">II", columns, rows)


SIDE = 7_999
"""Below the limits: what follows is refused for other reasons than its size."""


def coding_style(*, precincts: bool, levels: int = 5, blocks: int = 4) -> bytes:
    """A COD segment: 64 x 64 code blocks and no precincts unless asked for."""
    body = struct.pack(">BBHBBBBBB", precincts, 2, 1, 0, levels, blocks, blocks, 0, 1) + bytes(
        levels + 1 if precincts else 0
    )
    return struct.pack(">HH", 0xFF52, len(body) + 2) + body


def crafted_stream(cod: bytes, tile: int = SIDE) -> bytes:
    """A JPEG 2000 stream of nothing but headers, in an object that agrees with its size."""
    size = struct.pack(">HIIIIIIIIHBBB", 0, SIDE, SIDE, 0, 0, tile, tile, 0, 0, 1, 11, 1, 1)
    part = struct.pack(">HHHIBBH", 0xFF90, 10, 0, 14, 0, 1, 0xFF93)
    frame = struct.pack(">HHH", 0xFF4F, 0xFF51, len(size) + 2) + size + cod + part + b"\xff\xd9"
    return make_dicom(
        scene(12),
        bits_stored=12,
        transfer_syntax=JPEG2000Lossless,
        frame=frame + b"\0" * (len(frame) % 2),
        Rows=SIDE,
        Columns=SIDE,
    )


def run_length_bomb() -> bytes:
    """A frame that unpacks to a hundred times the image."""
    header = struct.pack("<16I", 1, 64, *[0] * 14)
    frame = header + b"\x81\x00" * (100 * 160 * 128 // 128)
    return make_dicom(scene(8), transfer_syntax=RLELossless, frame=frame)


def jpeg_declaring(rows: int, columns: int) -> bytes:
    frame = bytearray(encode(scene(12), JPEGLosslessSV1, 12))
    at = frame.find(b"\xff\xc3")
    frame[at + 5 : at + 9] = struct.pack(">HH", rows, columns)
    return make_dicom(
        scene(12), bits_stored=12, transfer_syntax=JPEGLosslessSV1, frame=bytes(frame)
    )


def implicit_number_bomb() -> bytes:
    """A window centre of eight million numbers: implicit VR allows long values."""
    data = make_dicom(scene(8), transfer_syntax=ImplicitVRLittleEndian)
    at = data.rfind(struct.pack("<HH", 0x7FE0, 0x0010))
    value = b"1\\" * 8_000_000
    return data[:at] + struct.pack("<HHI", 0x0028, 0x1050, len(value)) + value + data[at:]


HOSTILE: dict[str, tuple[Callable[[], bytes], set[Reason]]] = {
    "rows and columns": (
        lambda: make_dicom(scene(8), Rows=65_535, Columns=65_535),
        {Reason.TOO_LARGE},
    ),
    "more pixels than the file": (
        lambda: make_dicom(scene(8), Rows=7_999, Columns=7_999),
        {Reason.CORRUPT_PIXELS},
    ),
    "pixel data of 4 GB": (
        lambda: make_dicom(scene(8))[: -scene(8).size - 4] + b"\xfe\xff\xff\xff" + b"\0" * 99,
        {Reason.CORRUPT_PIXELS},
    ),
    "a value of 2 GB": (
        lambda: spliced(element(0x00283006, b"UN", b"", 0x7FFFFFF0)),
        {Reason.NOT_AN_IMAGE, Reason.TOO_LARGE},
    ),
    "a wanted value of 2 GB": (
        lambda: spliced(element(VOI_SEQUENCE, b"UN", b"", 0x7FFFFFF0)),
        {Reason.TOO_LARGE},
    ),
    "eight million numbers": (implicit_number_bomb, {Reason.TOO_LARGE}),
    "sequences in sequences": (
        lambda: spliced((element(PRIVATE_SEQUENCE, b"SQ", b"", UNDEFINED) + ITEM) * 20_000),
        {Reason.NOT_DICOM, Reason.TOO_LARGE},
    ),
    "two million items": (
        lambda: spliced(element(PRIVATE_SEQUENCE, b"SQ", b"", UNDEFINED) + EMPTY_ITEM * 2_000_000),
        {Reason.TOO_LARGE},
    ),
    "a look-up table of many items": (
        lambda: spliced(element(VOI_SEQUENCE, b"SQ", EMPTY_ITEM * 120_000)),
        {Reason.CORRUPT_PIXELS},
    ),
    "deflated pixels": (deflated_bomb, {Reason.CORRUPT_PIXELS}),
    "deflated header": (deflated_header_bomb, {Reason.WRONG_MODALITY}),
    "run lengths": (run_length_bomb, {Reason.CORRUPT_PIXELS}),
    "JPEG of 65,000 x 65,000": (lambda: jpeg_declaring(65_000, 65_000), {Reason.CORRUPT_PIXELS}),
    "JPEG 2000 of 60,000 x 60,000": (
        lambda: frame_with(size_marker(160, 128), size_marker(60_000, 60_000)),
        {Reason.CORRUPT_PIXELS},
    ),
    "JPEG 2000 in a million tiles": (
        lambda: crafted_stream(coding_style(precincts=False), tile=8),
        {Reason.CORRUPT_PIXELS},
    ),
    "JPEG 2000 in tiny precincts": (
        lambda: crafted_stream(coding_style(precincts=True)),
        {Reason.CORRUPT_PIXELS},
    ),
    "JPEG 2000 in tiny code blocks": (
        lambda: crafted_stream(coding_style(precincts=False, blocks=0)),
        {Reason.CORRUPT_PIXELS},
    ),
    "a million fragments": (
        lambda: make_dicom(scene(8), transfer_syntax=RLELossless)[:-8] + EMPTY_ITEM * 1_000_000,
        {Reason.CORRUPT_PIXELS},
    ),
}

PROGRAM = """
import json, sys, warnings
warnings.simplefilter("ignore")
import cv2, imagecodecs, pydicom.filereader
from hipnet_edge.errors import InputRefused
from hipnet_edge.radiograph import Radiograph
from pathlib import Path


def peak():
    "The most memory this process ever held, in MiB; ru_maxrss would count its parent's too."
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


Radiograph.from_dicom(sys.argv[1])
peaks = {}
for path in sys.argv[2:]:
    data = Path(path).read_bytes()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = peak()
    try:
        Radiograph.from_dicom(data)
        code = "read"
    except InputRefused as error:
        code = error.code.value
    peaks[path] = [code, peak() - before]
print(json.dumps(peaks))
"""


def test_hostile_files_are_refused_and_cost_little_memory(tmp_path: Path):
    """Measured on a process of its own, decoders included."""
    good = tmp_path / "good.dcm"
    good.write_bytes(make_dicom(scene(12), bits_stored=12, transfer_syntax=JPEG2000Lossless))
    paths = {}
    for number, (name, (make, _)) in enumerate(HOSTILE.items()):
        paths[str(tmp_path / f"{number}.dcm")] = name
        (tmp_path / f"{number}.dcm").write_bytes(make())
    large = make_dicom(scene(16, 3000, 3000), transfer_syntax=JPEGLosslessSV1)
    (tmp_path / "large.dcm").write_bytes(large)
    paths[str(tmp_path / "large.dcm")] = "a good one of 18 MB"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(good), *paths],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    outcomes = {paths[path]: outcome for path, outcome in json.loads(done.stdout).items()}
    assert outcomes.pop("a good one of 18 MB")[1] > 16  # so the measure can see
    wrong = {
        name: outcomes[name]
        for name, (_, codes) in HOSTILE.items()
        if outcomes[name][0] not in {code.value for code in codes}
    }
    assert not wrong
    greedy = {name: peak for name, (_, peak) in outcomes.items() if peak > 100}
    assert not greedy


def test_a_tiff_of_giant_tiles_is_refused():
    data = bytearray(cv2.imencode(".tiff", scene(8))[1].tobytes())
    order = "<" if data[:2] == b"II" else ">"
    (directory,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, directory)
    entries = {}
    for at in range(directory + 2, directory + 2 + 12 * count, 12):
        entries[struct.unpack_from(order + "H", data, at)[0]] = at
    for tag, new in ((277, 322), (278, 323)):  # samples, rows per strip: now tile sizes
        struct.pack_into(order + "HHII", data, entries[tag], new, 4, 1, 60_000)
    assert refusal(bytes(data), Radiograph.from_image).code is Reason.UNSUPPORTED_PIXELS


def test_a_progressive_jpeg_of_endless_scans_is_refused():
    data = cv2.imencode(".jpg", scene(8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    at = data.rfind(b"\xff\xda")
    endless = data[:at] + data[at:-2] * 200 + data[-2:]
    assert refusal(endless, Radiograph.from_image).code is Reason.CORRUPT_PIXELS


def test_a_file_beyond_the_limit_is_not_read(tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(513 * 1024**2)  # takes no space
    assert refusal(path).code is Reason.TOO_LARGE
    assert refusal(path, Radiograph.from_image).code is Reason.TOO_LARGE


def test_the_decoders_own_header_is_believed_before_the_decoder():
    """A stream of another size than the object's is refused even when it decodes well."""
    frame = imagecodecs.jpegls_encode(np.ascontiguousarray(scene(12)[:80]))
    data = make_dicom(
        scene(12), bits_stored=12, transfer_syntax="1.2.840.10008.1.2.4.80", frame=frame
    )
    assert refusal(data).code is Reason.CORRUPT_PIXELS
