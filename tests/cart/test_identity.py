from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hipnet_edge.cart.identity import Pseudonyms
from hipnet_edge.errors import Fault


def test_pseudonyms_are_stable_on_a_device_and_differ_between_devices(tmp_path: Path) -> None:
    here, again = Pseudonyms.load(tmp_path / "a"), Pseudonyms.load(tmp_path / "a")
    there = Pseudonyms.load(tmp_path / "b")
    assert here("SECRET-4711") == again("SECRET-4711") != there("SECRET-4711")
    assert here("SECRET-4711") != here("SECRET-4712")
    assert len(here("")) == 16
    assert int(here("ü\udc80"), 16) >= 0
    assert "SECRET" not in repr(here)


def test_the_salt_is_private_and_made_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = {p("x") for p in pool.map(lambda _: Pseudonyms.load(tmp_path), range(8))}
    assert len(made) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["salt"]
    salt = tmp_path / "salt"
    assert salt.stat().st_mode & 0o777 == 0o600
    salt.chmod(0o644)
    with pytest.raises(Fault, match="chmod 600"):
        Pseudonyms.load(tmp_path)
    salt.chmod(0o600)
    salt.write_bytes(b"")
    with pytest.raises(Fault, match="too short"):
        Pseudonyms.load(tmp_path)
