"""The client library: contracts and an HTTP client, nothing else."""
