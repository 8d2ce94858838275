"""What tests of programs that write logs can use: real adapters that do as they are told."""

from sfwriter.storage.memory import MemoryEngine, MemoryWarehouse
from sfwriter.testing.clock import ManualClock
from sfwriter.testing.faulty import Fail, FaultyEngine, Hang, LandAndRaise, LandLate

__all__ = ["Fail", "FaultyEngine", "Hang", "LandAndRaise", "LandLate", "ManualClock", "MemoryEngine", "MemoryWarehouse"]
