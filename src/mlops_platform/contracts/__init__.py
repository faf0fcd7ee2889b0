"""Wire types: what crosses HTTP, one module per service."""
