"""What is written for machines that we do not have must at least name what exists."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from hipnet_edge import Bundle
from hipnet_edge.cart.configuration import load

try:
    import tomllib
except ModuleNotFoundError:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
DOCKERFILES = sorted(DEPLOY.glob("Dockerfile*"))


def _required(extra: str) -> set[str]:
    """The distributions that an extra asks for here, the extras that it names included."""
    found = set()
    for line in EXTRAS[extra]:
        requirement = Requirement(line)
        if requirement.name == "hipnet-edge":
            found |= set().union(*map(_required, requirement.extras))
        elif requirement.marker is None or requirement.marker.evaluate({"python_version": "3.11"}):
            found.add(requirement.name.lower())
    return found


def test_the_bill_of_materials_names_every_package_that_a_cart_asks_for() -> None:
    bill = json.loads((DEPLOY / "sbom.cdx.json").read_text())
    listed = {
        component["name"].lower().replace("_", "-"): component for component in bill["components"]
    }
    asked = {Requirement(line).name.lower() for line in PROJECT["dependencies"]}
    asked |= set().union(*map(_required, ("cpu", "openvino", "cart", "sign")))
    assert asked <= listed.keys()
    assert all(component["version"] for component in listed.values())
    table = (DEPLOY / "THIRD_PARTY.md").read_text()
    for component in bill["components"]:
        assert f"| {component['name']} | {component['version']} |" in table


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_an_image_is_made_of_what_is_there_and_says_that_it_was_not_built(file: Path) -> None:
    text = file.read_text()
    assert "NOT BUILT HERE" in text
    copied = [
        name
        for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE)
        for name in line.split()[:-1]
    ]
    assert copied
    assert [name for name in copied if not (ROOT / name).exists()] == []
    for extras in re.findall(r'"\.\[([\w,-]+)\]"', text):
        assert set(extras.split(",")) <= EXTRAS.keys()
    assert re.search(r"^USER hipnet-edge$", text, re.MULTILINE)


def test_the_images_of_both_jetpacks_differ_in_what_they_must_alone() -> None:
    six, seven = ((DEPLOY / f"Dockerfile.jetpack{n}").read_text().splitlines() for n in (6, 7))
    only = set(six) ^ set(seven)
    assert all(re.search(r"JetPack|jetpack|BASE|image|pip install", line) for line in only), only


def test_the_cart_of_the_compose_file_is_pinned_to_the_reference_bundle(tmp_path: Path) -> None:
    text = (DEPLOY / "cart.compose.toml").read_text()
    (tmp_path / "token").write_text("0123456789abcdef0123456789abcdef\n")
    (tmp_path / "token").chmod(0o600)
    (tmp_path / "cart.toml").write_text(text.replace("/etc/hipnet-edge/token", "token"))
    cart = load(tmp_path / "cart.toml")
    assert cart.predict.bundle_digest == Bundle.reference().digest
    compose = (DEPLOY / "compose.yaml").read_text()
    (pacs,) = cart.destination
    assert f"\n  {pacs.host}:\n" in compose
    assert f'"{pacs.port}"' in compose
    assert f'ORTHANC__DICOM_AET: "{pacs.ae_title}"' in compose
    assert f'"127.0.0.1:{cart.page.port}:{cart.page.port}"' in compose
    assert str(cart.service.data) in compose
