"""Measurements: each against a peer in the same run, in ratios, CPU seconds first."""
