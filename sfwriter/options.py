"""Kinds of options: what each takes, and how it is read from an environment variable's text.

A kind is annotation metadata of a pydantic field (`Annotated[int, Whole(1, 256)]`). Its `check` gives
the value to keep or raises ValueError with a phrase that continues "<option> is <value>, but …".
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic_core import core_schema

from sfwriter.column import Column
from sfwriter.naming import NAME_RULE, is_name, pattern_problems

if TYPE_CHECKING:
    from enum import Enum

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_NOTHING = frozenset({"", "none", "null"})

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class FrozenList(list[_Value]):
    """A list that equals any list and cannot be changed."""

    def _refuse(self, *_: object, **__: object) -> Any:
        raise TypeError("a WriterConfig is immutable; replace(...) gives a changed one")

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = extend = insert = remove = pop = clear = sort = reverse = _refuse

    def __reduce__(self) -> tuple[type[FrozenList[_Value]], tuple[list[_Value]]]:
        """Made anew from its content: unpickling would append otherwise."""
        return type(self), (list(self),)


class FrozenDict(dict[_Key, _Value]):
    """A dict that equals any dict and cannot be changed."""

    def _refuse(self, *_: object, **__: object) -> Any:
        raise TypeError("a WriterConfig is immutable; replace(...) gives a changed one")

    __setitem__ = __delitem__ = __ior__ = _refuse
    pop = popitem = clear = update = setdefault = _refuse

    def __reduce__(self) -> tuple[type[FrozenDict[_Key, _Value]], tuple[dict[_Key, _Value]]]:
        """Made anew from its content: unpickling would set items otherwise."""
        return type(self), (dict(self),)


class Secrets(FrozenDict[str, str]):
    """A dict whose values no text of it shows."""

    def masked(self) -> dict[str, str]:
        """The keys, each with stars."""
        return dict.fromkeys(self, "***")

    def __repr__(self) -> str:
        """The keys only."""
        return repr(self.masked())

    __str__ = __repr__

    def __rich_repr__(self) -> Iterator[tuple[str, str]]:
        """The keys only, for rich, which would look inside."""
        yield from self.masked().items()


class Kind:
    """What an option takes."""

    secret = False
    """Whether problems must not show the value."""

    def check(self, value: Any) -> Any:
        """The value to keep; ValueError with a phrase where it is wrong."""
        raise NotImplementedError

    def parse(self, text: str) -> Any:
        """The value that the text means, not checked yet; ValueError where it is no text of this kind."""
        return text

    def __get_pydantic_core_schema__(self, _source: object, _handler: object) -> core_schema.CoreSchema:
        """`check` alone decides, in the place of pydantic's own conversions."""
        return core_schema.no_info_plain_validator_function(self.check)


@dataclass(frozen=True)
class Flag(Kind):
    """True or False."""

    def check(self, value: Any) -> bool:
        """Only a bool: 1 and "yes" are mistakes more often than not."""
        if not isinstance(value, bool):
            raise ValueError("must be True or False")
        return value

    def parse(self, text: str) -> bool:
        """The usual words."""
        word = text.strip().lower()
        if word not in _TRUE | _FALSE:
            raise ValueError("must be true or false (or 1, 0, yes, no, on, off)")
        return word in _TRUE


@dataclass(frozen=True)
class Whole(Kind):
    """A whole number from `low` to `high`."""

    low: int
    high: int
    optional: bool = False

    def check(self, value: Any) -> int | None:
        """An int that is no bool, in its range."""
        if value is None and self.optional:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not self.low <= value <= self.high:
            raise ValueError(self._rule())
        return int(value)

    def parse(self, text: str) -> int | None:
        """Decimal digits."""
        if self.optional and text.strip().lower() in _NOTHING:
            return None
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", text.strip()):
            raise ValueError(self._rule())
        return int(text)

    def _rule(self) -> str:
        return f"must be a whole number from {self.low} to {self.high}{' or None' if self.optional else ''}"


@dataclass(frozen=True)
class Number(Kind):
    """A number from `low` to `high`; `above` leaves `low` itself out."""

    low: float
    high: float
    above: bool = False

    def check(self, value: Any) -> float:
        """An int or float that is no bool, not NaN, in its range."""
        if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
            raise ValueError(self._rule())
        if not self.low <= value <= self.high or (self.above and value == self.low):
            raise ValueError(self._rule())
        return value

    def parse(self, text: str) -> float:
        """As Python writes numbers; whole ones stay whole."""
        try:
            return int(text) if re.fullmatch(r"\s*[0-9]{1,18}\s*", text) else float(text)
        except ValueError:
            raise ValueError(self._rule()) from None

    def _rule(self) -> str:
        if self.above:
            return f"must be a number above {self.low:g}, at most {self.high:g}"
        return f"must be a number from {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Choice(Kind):
    """One of a few words, upper or lower case; `enum` is what is kept instead of the word."""

    words: tuple[str, ...]
    enum: type[Enum] | None = None

    def check(self, value: Any) -> Any:
        """The word in lower case, or the enum's member."""
        word = value.value if self.enum is not None and isinstance(value, self.enum) else value
        if not isinstance(word, str) or word.lower() not in self.words:
            raise ValueError(f"must be one of {', '.join(self.words)}")
        return word.lower() if self.enum is None else self.enum(word.lower())

    def parse(self, text: str) -> str:
        """Without the blanks around it."""
        return text.strip()


@dataclass(frozen=True)
class Name(Kind):
    """One part of a table's name."""

    def check(self, value: Any) -> str:
        """Text that can stand in catalogs and paths as it is."""
        if not isinstance(value, str) or not is_name(value):
            raise ValueError(f"must be {NAME_RULE}")
        return value


@dataclass(frozen=True)
class Pattern(Kind):
    """A pattern of table names, or of their suffixes; None for the default."""

    suffix: bool = False

    def check(self, value: Any) -> str | None:
        """Text with known variables only."""
        if value is None:
            return None
        if not isinstance(value, str) or not value:
            raise ValueError("must be a pattern like '{schema}.{table_name}', or None")
        problems = pattern_problems(value, suffix=self.suffix)
        if problems:
            raise ValueError("it " + ", and it ".join(problems))
        return value

    def parse(self, text: str) -> str | None:
        """No text is None."""
        return None if text.strip().lower() in _NOTHING else text


@dataclass(frozen=True)
class ProducerId(Kind):
    """A producer's identity; None for a new random one."""

    max_length: int = 256

    def check(self, value: Any) -> str | None:
        """Printable text that is none of the ids of idempotency keys."""
        if value is None:
            return None
        rule = f"must be text of 1 to {self.max_length} characters without control characters, or None"
        if not isinstance(value, str) or not value.strip() or len(value) > self.max_length:
            raise ValueError(rule)
        if any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in value):
            raise ValueError(rule)
        if value.startswith("key:"):
            raise ValueError("must not begin with 'key:', which is kept for idempotency keys")
        return value

    def parse(self, text: str) -> str | None:
        """No text is None."""
        return text or None


@dataclass(frozen=True)
class Place(Kind):
    """A folder or an object store's URL."""

    def check(self, value: Any) -> str:
        """Text or a path, kept as text."""
        text = fspath(value) if isinstance(value, PathLike) else value
        if not isinstance(text, str) or not text.strip() or any(ord(character) < 32 for character in text):
            raise ValueError("must be a folder (text or Path) or an object store's URL")
        return text


@dataclass(frozen=True)
class ColumnNames(Kind):
    """A list of columns, each one of `known`, none twice."""

    known: tuple[str, ...]

    def check(self, value: Any) -> FrozenList[str]:
        """A list or tuple of known names."""
        if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) for name in value):
            raise ValueError("must be a list of column names")
        unknown = [name for name in value if name not in self.known]
        if unknown:
            raise ValueError(f"cannot have {', '.join(map(repr, unknown))}; it takes {', '.join(self.known)}")
        if len(set(value)) < len(value):
            raise ValueError("names a column twice")
        return FrozenList(value)

    def parse(self, text: str) -> list[Any]:
        """A JSON list, or names with commas between them."""
        if text.lstrip().startswith("["):
            return list(_from_json(text, list, "must be a JSON list or names with commas between them"))
        return [name.strip() for name in text.split(",") if name.strip()]


@dataclass(frozen=True)
class StorageOptions(Kind):
    """Text to text, whose values are never shown."""

    secret = True

    def check(self, value: Any) -> Secrets:
        """A mapping of text to text; no problem shows a value."""
        if not isinstance(value, Mapping) or not all(isinstance(key, str) and key for key in value):
            raise ValueError("must be a dict of text to text")
        wrong = [key for key, entry in value.items() if not isinstance(entry, str)]
        if wrong:
            raise ValueError(f"must be a dict of text to text; no text has {', '.join(map(repr, wrong))}")
        return Secrets(value)

    def parse(self, text: str) -> dict[str, Any]:
        """A JSON object; no text is an empty one."""
        return dict(_from_json(text or "{}", dict, "must be a JSON object of text to text"))


@dataclass(frozen=True)
class Weights(Kind):
    """A client's producer id, or a pattern of ids with `*` and `?`, to its weight."""

    low: float
    high: float

    def check(self, value: Any) -> FrozenDict[str, float]:
        """A mapping of text to numbers in their range."""
        rule = f"must be a dict of producer id to a weight from {self.low:g} to {self.high:g}"
        if not isinstance(value, Mapping):
            raise ValueError(rule)
        for client, weight in value.items():
            if not isinstance(client, str) or not client.strip():
                raise ValueError(f"{rule}; {client!r} is no producer id")
            if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not self.low <= weight <= self.high:
                raise ValueError(f"{rule}; {client!r} has {weight!r}")
        return FrozenDict(value)

    def parse(self, text: str) -> dict[str, Any]:
        """A JSON object; no text is an empty one."""
        return dict(_from_json(text or "{}", dict, "must be a JSON object of producer id to weight"))


@dataclass(frozen=True)
class Rules(Kind):
    """A column to its rules: SQL text, `Column`, a pyarrow expression, or a Spark column."""

    def check(self, value: Any) -> FrozenDict[str, FrozenList[Any]]:
        """Every column with a list of rules, the rules as they were given."""
        if not isinstance(value, Mapping):
            raise ValueError("must be a dict of column to a list of rules")
        kept: dict[str, FrozenList[Any]] = {}
        for column, rules in value.items():
            if not isinstance(column, str) or not column.strip():
                raise ValueError(f"has the column {column!r}; a column is its name as text")
            listed = list(rules) if isinstance(rules, (list, tuple)) else [rules]
            for rule in listed:
                if not _is_rule(rule):
                    raise ValueError(
                        f"has {rule!r:.80} for {column!r}; a rule is SQL text, Column(…) or a pyarrow expression"
                    )
            kept[column] = FrozenList(listed)
        return FrozenDict(kept)

    def parse(self, text: str) -> dict[str, Any]:
        """A JSON object; no text is an empty one."""
        return dict(_from_json(text or "{}", dict, "must be a JSON object of column to SQL text or a list of it"))


def same_rule(one: Any, other: Any) -> bool:
    """Whether two rules say the same. Expressions answer `==` with another expression, so by their own means."""
    if isinstance(one, (str, Column)) or isinstance(other, (str, Column)):
        return type(one) is type(other) and bool(one == other)
    if hasattr(one, "equals") and type(one) is type(other):
        return bool(one.equals(other))
    return one is other or str(one) == str(other)


def _is_rule(rule: Any) -> bool:
    if isinstance(rule, (str, Column)):
        sql = rule if isinstance(rule, str) else rule.sql
        return isinstance(sql, str) and bool(sql.strip())
    # By name, so that neither Arrow nor Spark is loaded to look at a config.
    return any(
        (kind.__name__, kind.__module__.split(".")[0]) in {("Expression", "pyarrow"), ("Column", "pyspark")}
        for kind in type(rule).__mro__
    )


def _from_json(text: str, kind: type, rule: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        raise ValueError(rule) from None
    if not isinstance(value, kind):
        raise ValueError(rule)
    return value
