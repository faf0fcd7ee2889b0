"""Validate the running experiment-tracking service: `python3 scripts/test_experiment_tracking.py [--comprehensive]`."""

import runpy
import sys
from pathlib import Path

sys.argv[1:1] = ["--only", "experiment-tracking"]
runpy.run_path(str(Path(__file__).with_name("test_mlops_platform.py")), run_name="__main__")
