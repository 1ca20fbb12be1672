"""Benchmarks are scripts beside each other; tests import them as they import one another."""

import sys
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(FOLDER))
