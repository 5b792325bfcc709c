"""From training data to a bundle, for the person with PyTorch; run as ``python -m export.…``."""
