"""Runs in the stock client's environment: what the scripts there share."""

import mlflow  # type: ignore[import-not-found]
import pytest


def refused(error_code, action, *arguments, **options):
    """The message of a refusal with this code."""
    with pytest.raises(mlflow.exceptions.MlflowException) as caught:
        action(*arguments, **options)
    assert caught.value.error_code == error_code, str(caught.value)
    return str(caught.value)
