"""Rules for rows, and what breaks them."""
