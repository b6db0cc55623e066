"""Gives Airflow a home of its own before a test imports it: the machine's user may have a real one."""

import os
import tempfile
from pathlib import Path

os.environ["AIRFLOW_HOME"] = str(Path(tempfile.gettempdir()) / f"sameworld-tests-airflow-{os.getuid()}")
