"""One start, as an integrator's program makes it; `latency_cold` runs this file in fresh processes.

    python benchmarks/latency_start.py SETTINGS AP LATERAL

SETTINGS is a JSON object of `bundle`, `backend`, `precision` and `threads`. Prints one JSON object:
when each stage was reached on the monotonic clock, which all processes share, in seconds.
"""

import time

began = time.monotonic()

import json  # noqa: E402 - what is imported before the clock is read would not count
import sys  # noqa: E402

from hipnet_edge import Bundle, Predictor  # noqa: E402

settings, ap, lateral = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
folder = settings.pop("bundle")
imported = time.monotonic()
bundle = Bundle.reference() if folder is None else Bundle.load(folder)
loaded = time.monotonic()
predictor = Predictor(bundle, **settings)
ready = time.monotonic()
predictor.predict(ap, lateral)
answered = time.monotonic()

from pathlib import Path  # noqa: E402

try:
    lines = Path("/proc/self/status").read_text().splitlines()
    resident: float | None = next(
        int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")
    )
except OSError:
    resident = None
info = predictor.info()
print(
    json.dumps(
        {
            "began": began,
            "imported": imported,
            "loaded": loaded,
            "ready": ready,
            "answered": answered,
            "warm_up_ms": info["warm_up_ms"],
            "variant": info["variant"],
            "backend": info["backend"]["name"],  # type: ignore[index]
            "rss_mib": resident,
        }
    )
)
