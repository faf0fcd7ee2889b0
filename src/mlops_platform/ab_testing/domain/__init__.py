"""The rules of A/B testing: assignment, lifecycle, statistics. Pure."""
