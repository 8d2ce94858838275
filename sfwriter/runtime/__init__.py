"""Carries out what the flow decides: in this process by threads, elsewhere by actors."""
