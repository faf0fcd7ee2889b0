"""Composition: the five services as processes."""
