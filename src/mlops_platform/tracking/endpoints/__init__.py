"""HTTP of Experiment Tracking."""
