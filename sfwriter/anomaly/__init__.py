"""Rows that are unlike the history of their step."""
