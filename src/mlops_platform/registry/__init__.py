"""Model Registry: versions, artifacts, aliases and lineage."""
