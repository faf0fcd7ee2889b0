"""Who changed what: the append-only, sealed record."""
