"""The package imports fast and without any of its optional parts."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from pathlib import Path

from small_bundle import write_bundle

import hipnet_edge

OPTIONAL = (
    *("onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "pycuda", "cuda", "highdicom"),
    *("pynetdicom", "onnx", "onnxscript", "torch", "torchvision", "timm", "polygraphy"),
    *("matplotlib", "sklearn", "scipy", "tqdm", "psutil", "PIL", "pylibjpeg", "openjpeg"),
    *("jsonschema", "pytest", "pandas", "nncf", "pydantic", "pydantic_core"),
    *("starlette", "uvicorn", "cryptography", "pyarrow", "ray", "tritonclient"),
)
"""What `pip install hipnet-edge` alone does not bring."""

OF_THE_CART = {
    f"hipnet_edge.cart.{name}"
    for name in (
        *("association", "commitment", "configuration", "data_pdu", "door", "receive"),
        *("settings", "page.access", "page.api", "page.app", "page.stow", "page.upload"),
    )
}
"""Modules whose classes extend those of the extra `cart`; nothing imports them without need."""

BLOCK = f"""
import sys
from importlib.abc import MetaPathFinder

class Blocked(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {set(OPTIONAL)!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
"""


def run(script: str, *arguments: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    return ran.stdout


def test_every_module_imports_without_the_extras():
    imported = json.loads(
        run(
            BLOCK + "import importlib, json, pkgutil, hipnet_edge\n"
            "found = pkgutil.walk_packages(hipnet_edge.__path__, 'hipnet_edge.')\n"
            f"left_out = {OF_THE_CART | {'hipnet_edge.__main__'}!r}\n"
            "names = [m.name for m in found if m.name not in left_out]\n"
            "for name in names: importlib.import_module(name)\n"
            "for name in hipnet_edge.__all__: getattr(hipnet_edge, name)\n"
            "print(json.dumps(names))\n"
        )
    )
    package = Path(hipnet_edge.__file__).parent
    written = {
        ".".join(path.relative_to(package.parent).with_suffix("").parts)
        for path in package.rglob("*.py")
        if path.name not in {"__init__.py", "__main__.py"}
    }
    assert written - OF_THE_CART <= set(imported)
    assert {"hipnet_edge.predictor"} | OF_THE_CART <= written


def test_a_cart_without_its_extra_says_which():
    said = run(
        BLOCK + "from hipnet_edge import MissingExtra\n"
        "try: import hipnet_edge.cart.configuration\n"
        "except MissingExtra as error: print(error)\n"
    )
    assert "hipnet-edge[cart]" in said


def test_an_engine_that_is_not_installed_is_named_with_its_extra(tmp_path):
    said = json.loads(
        run(
            BLOCK + "import json\n"
            "from hipnet_edge import Bundle, MissingExtra, Predictor\n"
            "bundle = Bundle.load(sys.argv[1])\n"
            "try: Predictor(bundle)\n"
            "except MissingExtra as error: print(json.dumps(error.to_dict()))\n",
            str(write_bundle(tmp_path / "bundle")),
        )
    )
    assert said["code"] == "missing_extra"
    assert "hipnet-edge[cpu]" in said["message"]


def test_the_package_imports_in_less_than_three_tenths_of_a_second():
    def seconds(script: str) -> float:
        """Processor time, so that a busy machine does not count."""
        took = []
        for _ in range(3):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            run(script)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            took.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
        return min(took)

    assert seconds("import hipnet_edge") - seconds("pass") < 0.3


def test_the_package_alone_loads_nothing_heavy():
    loaded = run("import sys, hipnet_edge; print(*sorted(sys.modules))").split()
    heavy = {"numpy", "cv2", "pydicom", "imagecodecs", "click", "onnxruntime"}
    assert heavy.isdisjoint(name.partition(".")[0] for name in loaded)


def test_every_public_name_is_there_and_listed():
    assert set(hipnet_edge.__all__) <= set(dir(hipnet_edge))
    for name in hipnet_edge.__all__:
        assert getattr(hipnet_edge, name) is not None
    assert not hasattr(hipnet_edge, "Prediktor")


def test_the_version_is_the_distributions():
    text = (Path(hipnet_edge.__file__).parents[1] / "pyproject.toml").read_text("utf-8")
    declared = re.search(r'^version = "(.+)"$', text, re.MULTILINE)
    assert declared is not None
    assert hipnet_edge.__version__ == declared.group(1)
