"""Both ways from datetimes to microseconds give the same numbers."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfwriter import arrays

MOMENTS = st.lists(st.none() | st.datetimes(), max_size=20)
SPANS = st.lists(st.none() | st.timedeltas(timedelta(-3_660_000), timedelta(3_660_000)), max_size=50)


@given(SPANS)
def test_spans_are_the_same_numbers_with_pandas_and_without(spans: list[timedelta | None]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "_rented", 0)
        patch.setattr(arrays, "_has_pandas", lambda: True)
        patch.delitem(sys.modules, "pandas", raising=False)
        slowly = arrays.micros_of_spans(spans).to_pylist()
        patch.setattr(arrays, "_rented", arrays._PANDAS_PAYS_AT)
        assert arrays.micros_of_spans(spans).to_pylist() == slowly
    assert slowly == [None if span is None else span // timedelta(microseconds=1) for span in spans]


@given(MOMENTS, st.sampled_from([None, "UTC"]))
def test_moments_of_a_column_are_what_arrow_says(moments: list[datetime | None], zone: str | None) -> None:
    column = pa.chunked_array([moments], pa.timestamp("us", zone))
    assert arrays.values_of(column) == column.to_pylist()


def test_a_few_datetimes_do_not_import_pandas() -> None:
    program = (
        "import sys; from datetime import timedelta; from sfwriter.arrays import micros_of_spans;"
        "micros_of_spans([timedelta(1), None] * 1000); print('pandas' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
