"""Fifty kills while 200 studies flow: with power cuts, and without; the figures as JSON.

    python benchmarks/kill.py --out benchmarks/results/kill.json

The run itself is that of tests/cart/killing.py, which the tests run too: it fails if one study is
lost, doubled or left undone, and if an acknowledged image is missing.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

from hipnet_edge import __version__
from hipnet_edge.machine import examine

_TESTS = Path(__file__).parent.parent / "tests"
_VERSIONS = ("pynetdicom", "pydicom", "highdicom", "onnxruntime")


def main() -> None:
    """Run and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--folder", type=Path, help="for data; a temporary one if not given")
    parser.add_argument("--out", type=Path, help="where the figures go; printed if not given")
    arguments = parser.parse_args()
    sys.path[:0] = [str(_TESTS), str(_TESTS / "cart")]
    from killing import run  # type: ignore[import-not-found]
    from small_bundle import write_bundle  # type: ignore[import-not-found]

    runs = []
    for power_cut in (True, False):
        for seed in arguments.seeds:
            with tempfile.TemporaryDirectory(prefix="kill", dir=arguments.folder) as folder:
                bundle = write_bundle(Path(folder) / "bundle")
                figures = run(
                    Path(folder),
                    bundle,
                    studies=arguments.studies,
                    kills=arguments.kills,
                    seed=seed,
                    power_cut=power_cut,
                )
            runs.append(asdict(figures))
            print(json.dumps(runs[-1]), file=sys.stderr)
    report = {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": examine().to_dict(),
        "versions": {"hipnet_edge": __version__, **{n: version(n) for n in _VERSIONS}},
        "runs": runs,
    }
    text = json.dumps(report, indent=2) + "\n"
    if arguments.out is None:
        print(text)
    else:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
