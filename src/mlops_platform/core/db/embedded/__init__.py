"""The embedded PostgreSQL of `mlops up`: binaries from a wheel, our own cluster, our own child process."""
