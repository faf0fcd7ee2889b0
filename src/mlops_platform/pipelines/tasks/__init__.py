"""Background entry points: the worker, and the duties that any replica takes."""
