"""Texts of few values, numbered while they are read.

Receives: the values of a column, or the rows themselves, some thousand at a time.
Produces: columns, encoded as `sfwriter.dictionaries.few_texts` would, or their texts.
Guarantees: the values are texts and None, all of them; it takes nothing else.
Never does: convert a value.

A look into a dict takes half as long as making an Arrow text, and whoever encodes the texts afterwards looks at
each of them again. Texts of a row that are few together are joined first: one look for all of them takes half
as long as one for each.
"""

from __future__ import annotations

import sys
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from sfwriter.arrays import array_of, is_unicode, nulls
from sfwriter.dictionaries import LEAST_ROWS, MOST_TEXTS, numbered_texts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_TAKEN = frozenset({str, type(None)})
_SEPARATOR = "\0"


class NumberedTexts:
    """One column, as far as it was read."""

    def __init__(self, places: _Places | None = None, numbers: pa.Array | None = None) -> None:
        """Begin with rows whose texts were numbered already, or without any."""
        self._places = _Places() if places is None else places
        self._texts: list[str | None] = list(self._places)
        self._numbers: list[pa.Array] = [] if numbers is None else [numbers]
        self._count = 0 if numbers is None else len(numbers)

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
            numbers = self._places.of(values)
        except TypeError:  # a list or a dict
            return False
        if len(self._places) > len(self._texts):
            if len(self._places) > MOST_TEXTS or not set(map(type, self._places)) <= _TAKEN:
                return False
            texts = list(self._places)
            if not is_unicode(text for text in texts[len(self._texts) :] if text is not None):
                return False
            self._texts = texts
        self._fill_up_to(start)
        self._numbers.append(_int32(numbers))
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


class JoinedTexts:
    """Several columns whose texts are few together, from the first row on."""

    def __init__(self, names: Sequence[str]) -> None:
        """No row yet. There are at least two columns."""
        self.names = frozenset(names)
        self._names = names
        self._texts_of = itemgetter(*names)
        self._places = _Places()
        self._numbers = bytearray()
        self._joined: list[str] = []

    @property
    def nbytes(self) -> int:
        """Of the columns' numbers."""
        return len(self._names) * len(self._numbers)

    def take(self, rows: Iterable[dict[Any, Any]]) -> bool:
        """Number the texts of the next rows.

        Returns:
            False where it took none: together the texts are too many, or there is something else among them.
        """
        try:
            numbers = self._places.of(map(_SEPARATOR.join, map(self._texts_of, rows)))
        except (KeyError, TypeError):
            return False
        if len(self._places) > len(self._joined):
            joined = list(self._places)
            new = joined[len(self._joined) :]
            # A text with a separator in it brings one more: only without are the texts told apart for certain.
            separators = {texts.count(_SEPARATOR) for texts in new}
            if len(joined) > MOST_TEXTS or separators != {len(self._names) - 1} or not is_unicode(new):
                return False
            self._joined = joined
        self._numbers += numbers
        return True

    def apart(self) -> dict[str, NumberedTexts]:
        """Each column by itself."""
        if not self._joined:
            return {}
        numbers = _int32(bytes(self._numbers))
        # In one list: Python's collector counts lists, and looks at every row that the caller holds.
        texts = _SEPARATOR.join(self._joined).split(_SEPARATOR)
        return {name: _apart(texts[at :: len(self._names)], numbers) for at, name in enumerate(self._names)}


def _apart(texts: Sequence[str], numbers: pa.Array) -> NumberedTexts:
    # In order, as `few_texts` has them: then their numbers stay as they are.
    places = _Places(sorted(set(texts)))
    return NumberedTexts(places, pc.take(_int32(places.of(texts)), numbers, boundscheck=False))


def _int32(numbers: bytes) -> pa.Array:
    return pa.Array.from_buffers(pa.int32(), len(numbers) // 4, [None, pa.py_buffer(numbers)])


class _Places(dict[Any, bytes]):
    """Numbers what it has not seen. Numbers are bytes as Arrow keeps them, which are joined in no time."""

    def __init__(self, known: Iterable[Any] = ()) -> None:
        super().__init__()
        for value in known:
            self[value]

    def of(self, values: Iterable[Any]) -> bytes:
        """The places of the values.

        Raises:
            TypeError: one of them cannot be a key.
        """
        return b"".join(map(self.__getitem__, values))

    def __missing__(self, value: Any) -> bytes:
        self[value] = place = len(self).to_bytes(4, sys.byteorder)
        return place
