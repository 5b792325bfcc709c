"""The tests' power cut takes what was not synced, and the store keeps what it says it keeps."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from power_cut import PowerCut, memory_folder

WRITER = """
import os, sys
from pathlib import Path
data = Path(sys.argv[1])

def folder():
    descriptor = os.open(data, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)

def write(name, content, sync, mode=os.O_RDWR):
    descriptor = os.open(data / name, mode | os.O_CREAT)
    os.write(descriptor, content)
    if sync:
        os.fsync(descriptor)
    os.close(descriptor)
"""


def run_and_cut(power: PowerCut, script: str) -> None:
    """Run a script that ends by killing itself, then cut the power."""
    environment = {**os.environ, **power.environment()}
    command = [sys.executable, "-c", WRITER + script + "\nos.kill(os.getpid(), 9)", str(power.root)]
    assert subprocess.run(command, env=environment, check=False).returncode == -9
    power.cut()


@pytest.fixture
def power() -> Iterator[PowerCut]:
    with memory_folder() as folder:
        yield PowerCut(folder / "data", folder / "shadow")


def found(power: PowerCut) -> dict[str, bytes]:
    return {
        str(path.relative_to(power.root)): path.read_bytes()
        for path in power.root.rglob("*")
        if path.is_file()
    }


def test_what_was_not_synced_is_gone(power):
    run_and_cut(power, "write('a', b'1', False)")
    assert found(power) == {}


def test_a_synced_file_is_gone_with_its_name(power):
    run_and_cut(power, "write('a', b'1', True)")
    assert found(power) == {}


def test_a_synced_name_without_content_is_an_empty_file(power):
    run_and_cut(power, "write('a', b'1', False); folder()")
    assert found(power) == {"a": b""}


@pytest.mark.parametrize("mode", ["os.O_RDWR", "os.O_WRONLY"])
def test_what_was_synced_with_its_name_is_there(power, mode):
    run_and_cut(power, f"write('a', b'1', True, {mode}); folder(); write('a', b'2', False)")
    assert found(power) == {"a": b"1"}


def test_a_rename_counts_from_the_sync_of_the_folder(power):
    run_and_cut(power, "write('a', b'1', True); folder(); (data / 'a').rename(data / 'b')")
    assert found(power) == {"a": b"1"}
    run_and_cut(power, "(data / 'a').rename(data / 'b'); folder()")
    assert found(power) == {"b": b"1"}


def test_what_was_removed_and_not_synced_comes_back(power):
    run_and_cut(power, "write('a', b'1', True); folder()")
    run_and_cut(power, "(data / 'a').unlink(); write('c', b'3', True)")
    assert found(power) == {"a": b"1"}
    run_and_cut(power, "write('a', b'2', True)")
    assert found(power) == {"a": b"2"}


def test_with_a_seed_part_of_what_was_not_synced_survives(tmp_path):
    script = "\nfor i in range(40): write(f'{i:02}', b'x' * 9000, False)"
    power = PowerCut(tmp_path / "data", tmp_path / "shadow", seed=1)
    run_and_cut(power, script)
    survived = found(power)
    assert 5 < len(survived) < 35
    assert {len(content) for content in survived.values()} == {0, 9000}
    assert any(0 < content.count(b"\0") < 9000 for content in survived.values())


STORE = """
from hipnet_edge.cart.store import ObjectStore
store = ObjectStore(data / "objects")
"""


def test_what_the_store_keeps_is_there(power):
    run_and_cut(
        power,
        STORE + "store.keep(b'one')\n"
        "part = store.incoming / 'part'; part.write_bytes(b'two'); store.keep(part)\n"
        "(store.incoming / 'unfinished').write_bytes(b'three')",
    )
    assert sorted(found(power).values()) == [b"one", b"two"]
    # The same content again is the same file, and durable as well.
    run_and_cut(power, STORE + "store.keep(b'one'); store.keep(b'four')")
    assert sorted(found(power).values()) == [b"four", b"one", b"two"]
