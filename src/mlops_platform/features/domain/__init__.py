"""The rules of features: schemas and their evolution, rows, point-in-time joins, what is served."""
