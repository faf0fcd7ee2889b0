"""Every SQL statement of Experiment Tracking."""
