"""Questions that people ask of a log table: what happened, how it develops, and the rows themselves."""
