"""Measurements whose JSON the documentation shows; run as ``python -m benchmarks.…``."""
