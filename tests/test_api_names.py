"""What the GPU's libraries offer in each version, recorded as data; no more is asked of them.

The full TensorRT needs a GPU; a name it lacks would be found on a device in a clinic. So every
attribute that the code takes of an object of TensorRT's must stand in the names of every version,
unless the code asks first whether it is there. `record_tensorrt_names.py` read them from the
bindings of each version.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import hipnet_edge.backends
from hipnet_edge.backends.tensorrt_flavour import load_tensorrt
from hipnet_edge.errors import EngineUnusable

FOLDER = Path(hipnet_edge.backends.__file__).parent
RECORDED = json.loads((Path(__file__).parent / "tensorrt_names.json").read_text())
VERSIONS = RECORDED["versions"]
FILES = ("tensorrt_flavour.py", "tensorrt_build.py", "tensorrt_execution.py")
OBJECTS = {
    "trt": "module",
    "_trt": "module",
    "module": "module",
    "builder": "Builder",
    "config": "IBuilderConfig",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "layer": "ILayer",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "runtime": "Runtime",
}
"""What the code calls an object, and of which class it is."""
ASKED_FOR_FIRST = {
    "Runtime.get_engine_validity",
    "Runtime.engine_header_size",
    "module.EngineValidity",
    "EngineValidity.INVALID",
    "module.ComputeCapability",
    "ComputeCapability.__members__",
    "IBuilderConfig.num_compute_capabilities",
    "IBuilderConfig.set_compute_capability",
}
"""Names that only some versions have: the code looks with `hasattr` before it uses them."""


def used_names() -> set[str]:
    """`Class.name` for every attribute of TensorRT's that the code mentions."""
    found = set()
    for file in FILES:
        for node in ast.walk(ast.parse((FOLDER / file).read_text())):
            if isinstance(node, ast.Attribute):
                owner = _owner(node.value)
                if owner is not None:
                    found.add(f"{owner}.{node.attr}")
    return found


def _owner(value: ast.expr) -> str | None:
    """The class of the object of which an attribute is taken; None if it is none of TensorRT's."""
    if isinstance(value, ast.Name):
        return OBJECTS.get(value.id)
    if isinstance(value, ast.Attribute):
        if _owner(value.value) == "module":  # trt.LayerType.CONVOLUTION
            return value.attr
        return OBJECTS.get(value.attr)
    return None


def test_the_search_finds_what_the_code_uses():
    used = used_names()
    assert {
        "module.OnnxParser",
        "LayerType.DEQUANTIZE",
        "IBuilderConfig.max_aux_streams",
        "IExecutionContext.execute_async_v3",
        "Runtime.deserialize_cuda_engine",
    } <= used
    assert len(used) > 40


@pytest.mark.parametrize("version", VERSIONS)
def test_every_name_that_is_used_is_there_in_every_version(version):
    there = {f"{kind}.{name}" for kind, names in VERSIONS[version].items() for name in names}
    assert used_names() - ASKED_FOR_FIRST - there == set()


def test_nothing_that_tensorrt_11_removed_is_mentioned():
    removed = {f"{k}.{name}" for k, names in RECORDED["removed_in_11"].items() for name in names}
    assert used_names() & removed == set()
    there = {f"{k}.{n}" for k, names in VERSIONS["11.4"].items() for n in names}
    assert removed & there == set()


LOAD = """
import importlib, json, sys
from types import ModuleType

names, version = json.loads(sys.argv[1]), sys.argv[2]
module = ModuleType("tensorrt")
for name in names["module"]:
    setattr(module, name, type(name, (), {member: member for member in names.get(name, [])}))
module.__version__ = version
sys.modules["tensorrt"] = module
for name in ("tensorrt_flavour", "tensorrt_build", "tensorrt_backend", "tensorrt_execution"):
    importlib.import_module(f"hipnet_edge.backends.{name}")
from hipnet_edge.backends.tensorrt_flavour import load_tensorrt, make_logger

flavour, lines = load_tensorrt(), []
make_logger(flavour, lines).log(module.ILogger.VERBOSE, "a layer")
print(flavour.name, flavour.version, flavour.rtx, *lines)
"""


@pytest.mark.parametrize("version", VERSIONS)
def test_the_backend_loads_against_a_module_with_these_names_alone(version):
    """At import and at load nothing is touched that a version lacks."""
    arguments = [json.dumps(VERSIONS[version]), version]
    ran = subprocess.run(
        [sys.executable, "-c", LOAD, *arguments], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == ["tensorrt", version, "False", "a", "layer"]


def test_the_tensorrt_that_is_installed_has_every_name_that_is_used():
    try:
        flavour = load_tensorrt()
    except EngineUnusable as error:
        pytest.skip(error.message)
    # What only some versions have is asked for first; TensorRT for RTX is the one that has it.
    for name in sorted(used_names() - (set() if flavour.rtx else ASKED_FOR_FIRST)):
        owner, _, attribute = name.partition(".")
        holder = flavour.module if owner == "module" else getattr(flavour.module, owner)
        assert hasattr(holder, attribute), name


def test_cuda_python_has_every_name_that_is_used():
    runtime = pytest.importorskip(
        "cuda.bindings.runtime", reason="cuda-python (the tensorrt extra) is not installed"
    )
    tree = ast.parse((FOLDER / "device_cuda.py").read_text())
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Attribute)
        and node.value.attr == "_cuda"
    }
    assert len(used) > 20
    assert {name for name in used if not hasattr(runtime, name)} == set()
