"""Lets tests import the benchmarks, which lie beside the packages and are not installed."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))
