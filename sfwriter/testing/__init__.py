"""What tests of programs that write logs can use: real adapters that do as they are told."""

from sfwriter.testing.clock import ManualClock

__all__ = ["ManualClock"]
