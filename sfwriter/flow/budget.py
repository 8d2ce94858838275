"""Memory as an account: what is in flight is reserved, and given back when it is answered."""

from __future__ import annotations


class Budget:
    """Bytes that may be in flight at once. Not thread-safe; no I/O."""

    __slots__ = ("_total", "_used")

    def __init__(self, total: int) -> None:
        """Open an account of `total` bytes."""
        self._total = total
        self._used = 0

    @property
    def total(self) -> int:
        """Bytes that may be in flight."""
        return self._total

    @property
    def used(self) -> int:
        """Bytes that are in flight."""
        return self._used

    def fits(self, nbytes: int) -> bool:
        """Whether `nbytes` more may be reserved now."""
        return self._used + nbytes <= self._total

    def reserve(self, nbytes: int) -> None:
        """Take `nbytes`; the caller has asked `fits` first."""
        if self._used + nbytes > self._total:
            raise ValueError(f"reserving {nbytes} bytes beyond the budget: {self._used} of {self._total} are used")
        self._used += nbytes

    def release(self, nbytes: int) -> None:
        """Give `nbytes` back, which were reserved before."""
        if nbytes > self._used:
            raise ValueError(f"releasing {nbytes} bytes where only {self._used} are reserved")
        self._used -= nbytes
