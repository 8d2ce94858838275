"""Writes pipeline-run log rows exactly once into Delta Lake tables."""
