"""The rules of pipelines: no database, no clock, no chance."""
