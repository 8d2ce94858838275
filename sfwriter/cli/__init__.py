"""The command line: `sfwriter backfill`, `sfwriter info`."""

from sfwriter.cli.entry import main

__all__ = ["main"]
