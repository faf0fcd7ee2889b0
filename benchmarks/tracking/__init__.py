"""Experiment Tracking beside a stock MLflow server."""
