"""The pure core: what decides when a batch is admitted, staged, committed and answered."""
