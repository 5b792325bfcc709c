"""Write tests/tensorrt_names.json: which names each TensorRT offers to Python, read from itself.

    python tests/record_tensorrt_names.py

The Python bindings of every version are on PyPI, a few megabytes each; the libraries behind them
are not. A module's names are there as soon as it is imported, whatever stands behind them, so it
is imported beside empty libraries that a C compiler makes. Nothing of TensorRT is run.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

VERSIONS = {"10.3": "10.3.0", "10.13": "10.13.0.35", "11.4": "11.4.0.106"}
"""JetPack 6 has the first, JetPack 7 the second; the third is the newest."""
CLASSES = (
    *("Builder", "BuilderFlag", "ComputeCapability", "DeviceType", "EngineValidity"),
    *("HardwareCompatibilityLevel", "IBuilderConfig", "ICudaEngine", "IExecutionContext"),
    *("ILayer", "ILogger", "INetworkDefinition", "IProgressMonitor", "ITensor", "ITimingCache"),
    *("LayerType", "MemoryPoolType", "NetworkDefinitionCreationFlag", "OnnxParser"),
    *("ParserError", "ProfilingVerbosity", "Runtime", "TensorIOMode"),
)
"""Of which this package touches attributes, in one version or another."""
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
OUT = Path(__file__).parent / "tensorrt_names.json"
ABOUT = (
    "Names that the Python bindings of TensorRT offer, of the classes that this package touches, "
    "read by tests/record_tensorrt_names.py from the bindings themselves, imported beside empty "
    "libraries. A test holds the package to them; it is no proof that it runs there."
)


def public(holder: object) -> list[str]:
    """The names of a module or class."""
    return sorted(name for name in dir(holder) if not name.startswith("_"))


def names_of(bindings: str) -> dict[str, list[str]]:
    """The names in a bindings' library, by class; `module` are those of the module."""
    spec = importlib.util.spec_from_file_location("tensorrt", bindings)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # These the package's own Python file adds.
    found = {"module": sorted({*public(module), "__version__", "nptype", "volume"})}
    return found | {name: public(getattr(module, name)) for name in CLASSES if name in dir(module)}


def record(version: str, folder: Path) -> dict[str, list[str]]:
    """Fetch the bindings of one version and read their names, in a process of its own."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
    subprocess.run([*pip, f"tensorrt-cu12-bindings=={version}"], check=True)
    bindings = folder / "tensorrt_bindings" / "tensorrt.so"
    missing = subprocess.run(
        ["nm", "-D", "--undefined-only", str(bindings)], check=True, capture_output=True, text=True
    )
    symbols = [line.split()[-1] for line in missing.stdout.splitlines()]
    ours = [
        name for name in symbols if name.startswith(("create", "get", "init")) and "@" not in name
    ]
    code = "".join(f"void *{name}(void) {{ return 0; }}\n" for name in ours)
    for library in LIBRARIES:
        file = f"lib{library}.so.{version.partition('.')[0]}"
        make = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{file}", "-o", str(folder / file)]
        subprocess.run([*make, "-x", "c", "-"], input=code, check=True, text=True)
    read = subprocess.run(
        [sys.executable, __file__, str(bindings)],
        env={**os.environ, "LD_LIBRARY_PATH": str(folder)},
        check=True,
        capture_output=True,
        text=True,
    )
    names: dict[str, list[str]] = json.loads(read.stdout)
    return names


def main() -> None:
    """Record all versions, and what the newest has no more."""
    versions = {}
    for short, version in VERSIONS.items():
        with tempfile.TemporaryDirectory() as scratch:
            versions[short] = record(version, Path(scratch))
    newest = versions["11.4"]
    removed = {
        kind: gone
        for kind in ("module", *CLASSES)
        if (gone := sorted({*versions["10.13"].get(kind, ())} - {*newest.get(kind, ())}))
    }
    recorded = {"about": ABOUT, "removed_in_11": removed, "versions": versions}
    OUT.write_text(json.dumps(recorded, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.stdout.write(json.dumps(names_of(sys.argv[1])))
    else:
        main()
