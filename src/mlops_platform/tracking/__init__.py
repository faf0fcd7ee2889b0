"""Experiment Tracking: experiments, runs, params, metrics."""
