"""What changes in the Model Registry: decide, write, audit, emit, in one transaction."""
