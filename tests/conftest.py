"""Lets tests import what stands beside them (``from worlds.shops import ...``); sets what libraries read early."""

import os
import sys
from pathlib import Path

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # else waiting OpenMP threads starve the other processes of a shared machine
os.environ["GX_ANALYTICS_ENABLED"] = "false"
sys.path.insert(0, str(Path(__file__).parent))
