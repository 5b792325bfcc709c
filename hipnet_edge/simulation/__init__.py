"""Simulated studies with ground truth: for training the reference model, demos and tests."""

from .study import SimulatedStudy, SimulatedView, simulate_study, write_study

__all__ = ["SimulatedStudy", "SimulatedView", "simulate_study", "write_study"]
