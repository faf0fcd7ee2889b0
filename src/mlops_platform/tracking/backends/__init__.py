"""The outside of Experiment Tracking that is not SQL."""
