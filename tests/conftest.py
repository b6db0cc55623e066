"""Lets tests import what stands beside them (``from worlds.shops import ...``); sets what libraries read early."""

import os
import sys
import tempfile
from pathlib import Path

os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # else waiting OpenMP threads starve the other processes of a shared machine
os.environ["GX_ANALYTICS_ENABLED"] = "false"
# The machine's user may have an Airflow of their own.
os.environ["AIRFLOW_HOME"] = str(Path(tempfile.gettempdir()) / f"sameworld-tests-airflow-{os.getuid()}")
sys.path.insert(0, str(Path(__file__).parent))
