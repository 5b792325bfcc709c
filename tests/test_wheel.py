"""The wheel as integrators get it: built, installed into an empty environment, used from there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from test_bare_import import OF_THE_CART

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow

EVERY_MODULE = """
import importlib, pkgutil, sys, time
started = time.process_time()  # what a busy machine does besides is not counted
import hipnet_edge
took = time.process_time() - started
for module in pkgutil.walk_packages(hipnet_edge.__path__, "hipnet_edge."):
    if module.name not in sys.argv[1:]:
        importlib.import_module(module.name)
print(took, *sorted({"torch", "onnx", "onnxruntime", "matplotlib"} & set(sys.modules)))
"""


def ran(*command: object, cwd: Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COV_"))}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = ("-m", "build", "--wheel", "--no-isolation", "--outdir", folder)
    ran(sys.executable, *command, cwd=ROOT)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def environment(tmp_path_factory, wheel) -> Path:
    """The bin folder of an environment with the wheel and none of its extras."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    pip = ("-m", "pip", "install", "--quiet", "--no-compile")
    ran(folder / "bin" / "python", *pip, wheel, cwd=folder)
    return folder / "bin"


def test_the_wheel_holds_the_package_and_the_reference_bundle_alone(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {
        "hipnet_edge",
        f"hipnet_edge-{wheel.name.split('-')[1]}.dist-info",
    }
    for needed in (
        *("py.typed", "prediction.schema.json", "engines/reference/manifest.json"),
        *("cart/cart.example.toml", "cart/page/static/index.html", "cart/page/static/page.css"),
    ):
        assert f"hipnet_edge/{needed}" in names


def test_bare_then_with_an_engine(environment, wheel, tmp_path):
    # Without any extra: every module but the cart's imports; what needs an engine says which extra.
    every = (environment / "python", "-c", EVERY_MODULE, *OF_THE_CART)
    took, *heavy = ran(*every, cwd=tmp_path).stdout.split()
    assert heavy == []
    assert float(took) < 0.3
    command = environment / "hipnet-edge"
    ran(command, "simulate", "--cause", "pji", "--seed", 4, "--out", "study", cwd=tmp_path)
    pair = ("study/ap.dcm", "study/lateral.dcm")
    refused = ran(command, "predict", *pair, "--json", "-", cwd=tmp_path, expect=4)
    error = json.loads(refused.stdout)["error"]
    assert error["code"] == "missing_extra"
    assert "hipnet-edge[cpu]" in error["message"]

    pip = ("-m", "pip", "install", "--quiet", "--no-compile")
    ran(environment / "python", *pip, f"{wheel}[cpu]", cwd=tmp_path)
    predicted = ran(command, "predict", *pair, "--json", "-", "--out", "page", cwd=tmp_path)
    assert json.loads(predicted.stdout)["leading_cause"] == "pji"
    assert (tmp_path / "page" / "report.png").stat().st_size > 100_000
    ran(command, "selftest", cwd=tmp_path)
