"""Texts of few values, numbered while they are read.

Receives: the values of a column, some thousand rows at a time.
Produces: the column, encoded as `sfwriter.dictionaries.few_texts` would, or its texts.
Guarantees: the values are texts and None, all of them; it takes nothing else.
Never does: convert a value.

A look into a dict takes half as long as making an Arrow text, and whoever encodes the texts afterwards looks at
each of them again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import arro3.core as arro3
import pyarrow as pa
import pyarrow.compute as pc

from sfwriter.arrays import array_of, nulls
from sfwriter.dictionaries import LEAST_ROWS, MOST_TEXTS, numbered_texts

if TYPE_CHECKING:
    from collections.abc import Sequence

_INT32 = arro3.DataType.int32()
_TAKEN = frozenset({str, type(None)})


class NumberedTexts:
    """One column, as far as it was read."""

    def __init__(self) -> None:
        """No row yet."""
        self._places = _Places()
        self._texts: list[str | None] = []
        self._numbers: list[pa.Array] = []
        self._count = 0

    @property
    def nbytes(self) -> int:
        """Of the numbers."""
        return 4 * self._count

    def take(self, values: Sequence[Any], start: int) -> bool:
        """Number the values of the rows from `start` on; those before it that it has not seen are null.

        Returns:
            False where it took none: there are too many texts, or other values. It takes no further ones then.
        """
        try:
            numbers = arro3.Array(list(map(self._places.__getitem__, values)), _INT32)
        except TypeError:  # a list or a dict
            return False
        if len(self._places) > len(self._texts):
            if len(self._places) > MOST_TEXTS or not set(map(type, self._places)) <= _TAKEN:
                return False
            texts = list(self._places)
            try:
                "".join(filter(None, texts[len(self._texts) :])).encode()
            except UnicodeEncodeError:
                return False
            self._texts = texts
        self._fill_up_to(start)
        self._numbers.append(pa.array(numbers))
        self._count += len(values)
        return True

    def column(self, count: int) -> pa.ChunkedArray:
        """All `count` rows: encoded where they are many and their texts few."""
        self._fill_up_to(count)
        few = numbered_texts(self._texts, self._numbers) if count >= LEAST_ROWS else None
        return self.plain() if few is None else few

    def plain(self) -> pa.ChunkedArray:
        """The texts of the rows so far."""
        texts = array_of(self._texts, pa.string())
        return pa.chunked_array([pc.take(texts, chunk) for chunk in self._numbers], pa.string())

    def _fill_up_to(self, count: int) -> None:
        if count > self._count:
            self._numbers.append(nulls(pa.int32(), count - self._count))
            self._count = count


class _Places(dict[Any, int]):
    """Numbers what it has not seen."""

    def __missing__(self, value: Any) -> int:
        self[value] = place = len(self)
        return place
