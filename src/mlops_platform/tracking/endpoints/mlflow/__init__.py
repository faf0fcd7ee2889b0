"""The wire of MLflow: a second door to experiments, runs, metrics, artifacts, datasets and logged models."""
