"""Credentials, roles, projects."""
