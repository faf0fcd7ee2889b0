"""Checks that run in a process of another interpreter, and what became of each: written there, read here."""

import json
import sys
import traceback
from collections.abc import Mapping
from typing import Any


def run_checks(names: Mapping[str, Any]) -> None:
    """Call every `check_` function; one line of JSON at the end: for each its error, or what it gave back."""
    results = {}
    for name, check in list(names.items()):
        if name.startswith("check_"):
            try:
                results[name] = {"value": check()}
            except BaseException:  # noqa: BLE001  # each check is told about by itself
                results[name] = {"error": traceback.format_exc()[-3000:]}
    sys.stdout.write("\n" + json.dumps(results) + "\n")


def outcomes(written: str) -> dict[str, Any]:
    """What the checks gave back, by name; every one of them must hold."""
    results = json.loads(written.strip().splitlines()[-1])
    failed = {name: result["error"] for name, result in results.items() if "error" in result}
    assert not failed, "\n\n".join(f"{name}\n{error}" for name, error in failed.items())
    return {name: result["value"] for name, result in results.items()}
