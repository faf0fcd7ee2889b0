"""Runs in the stock client's environment: calls every `check_` function of a script and prints what became of each."""

import json
import sys
import traceback

import mlflow  # type: ignore[import-not-found]
import pytest


def run_checks(names):
    """One line of JSON at the end: for each check its error, or what it gave back."""
    results = {}
    for name, check in list(names.items()):
        if name.startswith("check_"):
            try:
                results[name] = {"value": check()}
            except BaseException:  # noqa: BLE001  # each check is told about by itself
                results[name] = {"error": traceback.format_exc()[-3000:]}
    sys.stdout.write("\n" + json.dumps(results) + "\n")


def refused(error_code, action, *arguments, **options):
    """The message of a refusal with this code."""
    with pytest.raises(mlflow.exceptions.MlflowException) as caught:
        action(*arguments, **options)
    assert caught.value.error_code == error_code, str(caught.value)
    return str(caught.value)
