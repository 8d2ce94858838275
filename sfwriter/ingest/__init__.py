"""The gate: from what a caller gave to an Arrow table that fits, or to reasons why not."""
