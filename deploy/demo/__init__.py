"""`make demo`: real pipelines through the service, a writer killed, a backfill interrupted, and a proof."""
