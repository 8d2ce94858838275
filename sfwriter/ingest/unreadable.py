"""A record of a source that is no row.

Receives: its text, and what is wrong with it.
Produces: `Unreadable`, which stands in a list of rows where the row would.
Guarantees: whoever turns it down has the reason at hand.
Never does: parse.
"""

from __future__ import annotations

from typing import final


@final
class Unreadable(str):
    """The text of a record that is no row, standing where the row would: the gate turns it down.

    Attributes:
        reason: what is wrong with it; continues a sentence that begins with the row.
    """

    __slots__ = ("reason",)

    def __new__(cls, text: str, reason: str) -> Unreadable:
        """Keep the reason beside the text."""
        made = super().__new__(cls, text)
        made.reason = reason
        return made

    reason: str
