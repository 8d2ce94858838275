"""Care for a table: what is worth doing, and doing it."""
