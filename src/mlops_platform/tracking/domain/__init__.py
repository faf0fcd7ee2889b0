"""Pure rules of Experiment Tracking."""
