"""What an installed cart consists of: a CycloneDX bill of materials and a table of licences.

    python deploy/sbom.py ENVIRONMENT/bin/python

writes `sbom.cdx.json` and `THIRD_PARTY.md` beside this file, and needs `cyclonedx-bom`.

ENVIRONMENT is one into which `pip install ".[cpu,openvino,cart,sign]"` was run and nothing else.
`cyclonedx-bom` lists the packages; what this adds is the libraries in other languages that
lie inside their wheels, which no list of Python packages names.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
EXTRAS = ("cpu", "openvino", "cart", "sign")
_TOOLS = ("pip", "setuptools", "wheel")
_INSIDE = """
import importlib.metadata as m, json
print(json.dumps({d.metadata["Name"].lower(): sorted(
    f.name for f in d.files or () if ".libs/" in str(f) or f.name.startswith("libopenvino")
    or (f.name.startswith("lib") and ".so" in f.name)) for d in m.distributions()}))
"""


def bill_of_materials(python: str) -> dict[str, Any]:
    """The packages of an environment with their licences and the libraries inside them."""
    made = subprocess.run(
        [
            *(sys.executable, "-m", "cyclonedx_py", "environment", python),
            *("--of", "JSON", "--output-reproducible", "--short-PURLs", "--no-validate"),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    inside = json.loads(
        subprocess.run([python, "-c", _INSIDE], check=True, capture_output=True, text=True).stdout
    )
    bill: dict[str, Any] = json.loads(made.stdout)
    bill["components"] = [
        _reduced(component, inside.get(component["name"].lower(), []))
        for component in bill["components"]
        if component["name"] not in (*_TOOLS, "hipnet-edge")
    ]
    names = {component["bom-ref"] for component in bill["components"]}
    bill["dependencies"] = [
        {**entry, "dependsOn": [ref for ref in entry.get("dependsOn", []) if ref in names]}
        for entry in bill["dependencies"]
        if entry["ref"] in names
    ]
    version = subprocess.run(
        [
            python,
            "-c",
            "import hipnet_edge, platform as p;"
            "print(hipnet_edge.__version__, p.python_version(), p.machine())",
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    bill["metadata"] = {
        "component": {
            "type": "application",
            "name": f"hipnet-edge[{','.join(EXTRAS)}]",
            "version": version[0],
            "licenses": [{"license": {"id": "Apache-2.0"}}],
        },
        "properties": [
            {"name": "python", "value": version[1]},
            {"name": "platform", "value": f"{platform.system()} {version[2]}"},
        ],
    }
    return bill


def _reduced(component: dict[str, Any], libraries: list[str]) -> dict[str, Any]:
    kept = {
        key: component[key]
        for key in ("bom-ref", "type", "name", "version", "purl", "description", "licenses")
        if key in component
    }
    if libraries:
        kept["components"] = [{"type": "library", "name": name} for name in libraries]
    return kept


def licences(component: dict[str, Any]) -> str:
    """A component's licences as one line."""
    found = []
    for entry in component.get("licenses", []):
        licence = entry.get("license", {})
        found.append(entry.get("expression") or licence.get("id") or licence.get("name", ""))
    words = [" ".join(word.split()) for word in found if word]
    short = [word.removeprefix("License :: ").removeprefix("OSI Approved :: ") for word in words]
    return "; ".join(dict.fromkeys(word if len(word) < 80 else "see its text" for word in short))


def table(bill: dict[str, Any]) -> str:
    """Third-party packages, their licences and what lies inside, as Markdown."""
    about = bill["metadata"]
    platform_name = ", ".join(entry["value"] for entry in about["properties"])
    lines = [
        "# Third-party packages of an installed cart",
        "",
        f"Made by `deploy/sbom.py` from an environment with `{about['component']['name']}` "
        f"(Python {platform_name}); `sbom.cdx.json` is the same for programs (CycloneDX).",
        "Licences are what each package declares. Libraries inside a wheel have licences of their "
        "own; their texts come with the wheel.",
        "",
        "| Package | Version | Licence | Shared libraries inside |",
        "|---|---|---|---|",
    ]
    for component in sorted(bill["components"], key=lambda one: one["name"].lower()):
        inside = [library["name"].split(".so")[0] for library in component.get("components", [])]
        shown = ", ".join(dict.fromkeys(inside)) or "-"
        lines.append(
            f"| {component['name']} | {component['version']} | "
            f"{licences(component) or 'not declared'} | {shown} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write both files for the environment whose interpreter is named."""
    bill = bill_of_materials(sys.argv[1])
    (HERE / "sbom.cdx.json").write_text(json.dumps(bill, indent=1, sort_keys=True) + "\n")
    (HERE / "THIRD_PARTY.md").write_text(table(bill))


if __name__ == "__main__":
    main()
