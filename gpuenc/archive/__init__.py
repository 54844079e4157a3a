"""Bulk re-encoding of studies."""
