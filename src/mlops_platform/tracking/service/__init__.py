"""What changes in Experiment Tracking: decide, write, audit, emit, in one transaction."""
