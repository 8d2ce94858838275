"""The predicates that the reference engine understands, against DuckDB's answers."""

from __future__ import annotations

import duckdb
import pyarrow as pa
import pytest

from sfwriter.storage.predicates import parse_predicate

ROWS = pa.table(
    {
        "n": [1, 2, None, 4],
        "text": ["a", "it's", None, "b"],
        "flag": [True, None, False, True],
        'odd "name"': [1.5, -2.0, None, 1e3],
    }
)


@pytest.mark.parametrize(
    "predicate",
    [
        '"n" = 1',
        '"n" <> 1 AND "text" >= \'a\'',
        "\"text\" = 'it''s'",
        '"n" IS NULL OR "flag"',
        'NOT ("n" > 1 OR "flag" = FALSE)',
        '"odd ""name""" < -1.5 or "n" in (4, 1)',
        '"text" IS NOT NULL and not "flag"',
    ],
)
def test_a_predicate_takes_the_rows_that_sql_takes(predicate):
    expected = duckdb.from_arrow(ROWS).filter(predicate).to_arrow_table().to_pylist()
    assert ROWS.filter(parse_predicate(predicate)).to_pylist() == expected


@pytest.mark.parametrize(
    "predicate", ["", "n = 1", '"n" =', '"n" = 1 extra', '("n" = 1', '"n" LIKE 1', '"n" = 1; x', "1 = 1"]
)
def test_what_is_not_known_is_said(predicate):
    with pytest.raises(ValueError, match="Not known"):
        parse_predicate(predicate)
