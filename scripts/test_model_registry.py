"""Validate the running model-registry service: `python3 scripts/test_model_registry.py [--comprehensive]`."""

import runpy
import sys
from pathlib import Path

sys.argv[1:1] = ["--only", "model-registry"]
runpy.run_path(str(Path(__file__).with_name("test_mlops_platform.py")), run_name="__main__")
