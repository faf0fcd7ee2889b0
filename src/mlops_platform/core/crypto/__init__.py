"""Sealing and unsealing bytes."""
