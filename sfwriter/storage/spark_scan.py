"""Rows of a Delta table through Spark SQL, streamed as Arrow.

Receives: a session of the library's own, a table's path, columns and a predicate of `sfwriter.storage.predicates`.
Produces: a `RecordBatchReader` in the table's types.
Guarantees: whatever the table's features are, Spark reads them; the driver holds one partition at a time.
Never does: leave a view, or take a user's text for SQL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sfwriter.storage.columns import chosen
from sfwriter.storage.place import local_root
from sfwriter.storage.predicates import in_spark_sql
from sfwriter.storage.spark_faults import reported_by_spark

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sfwriter.storage.engine import TableSpec
    from sfwriter.storage.spark_bridge import SparkBridge


def quoted(name: str) -> str:
    """A name as Spark SQL takes it."""
    return "`" + name.replace("`", "``") + "`"


def by_path(location: str) -> str:
    """A table's address as Spark SQL takes it in the place of a name."""
    return f"delta.{quoted(location)}"


def scan_rows(
    bridge: SparkBridge,
    spec: TableSpec,
    schema: pa.Schema,
    columns: Sequence[str] | None,
    predicate: str | None,
    *,
    files: Sequence[str] | None = None,
    opened: Callable[[Any], Any] | None = None,
) -> pa.RecordBatchReader:
    """Stream rows, in no particular order.

    Args:
        bridge: to Spark.
        spec: of the table.
        schema: of the whole table, in Arrow.
        files: paths of the live files under the location, where those alone tell the rows; None lets Delta
            find them out, which after each commit takes Spark a second or more.
        opened: gives the table as a DataFrame; None for the one at the spec's location.
        columns: wanted; None for all.
        predicate: of the library's own making.

    Raises:
        WriterSchemaError: a column is not there.
        WriterTableError: Spark cannot read the table; while streaming, too.
    """
    target = chosen(schema, columns, spec)
    with reported_by_spark("read", spec), bridge.acting() as session:
        if files is not None:
            frame = frame_of_files(session, spec.location, schema, files)
        else:
            frame = session.read.format("delta").load(spec.location) if opened is None else opened(session)
        if predicate:
            frame = frame.where(in_spark_sql(predicate))
        # Without a column there is nothing to be streamed: one stands in for the rows.
        frame = frame.selectExpr(*(map(quoted, target.names) if target.names else ["1 AS one"]))
        source = _batches(frame, bridge)
    return pa.RecordBatchReader.from_batches(target, _fitting(source, target, spec))


def frame_of_files(session: Any, location: str, schema: pa.Schema, files: Sequence[str]) -> Any:
    """Parquet files under a table's location as one DataFrame; folders tell the columns that files lack."""
    from pyspark.sql.pandas.types import from_arrow_schema

    kinds = from_arrow_schema(schema, prefer_timestamp_ntz=False)
    for field in kinds:
        field.nullable = True
    if not files:
        return session.createDataFrame([], kinds)
    root = local_root(location)
    base = location.rstrip("/") if root is None else root.as_uri()
    return session.read.schema(kinds).option("basePath", base).parquet(*[f"{base}/{path}" for path in files])


def _fitting(source: Iterator[pa.RecordBatch], target: pa.Schema, spec: TableSpec) -> Iterator[pa.RecordBatch]:
    while True:
        with reported_by_spark("read", spec):
            batch = next(source, None)
        if batch is None:
            return
        if not batch.num_rows:
            continue
        batch = batch.select(target.names)
        # Spark names elements and nulls its own way; the table's types are what was promised.
        yield batch if batch.schema.equals(target) else batch.cast(target)


def _batches(frame: Any, bridge: SparkBridge) -> Iterator[pa.RecordBatch]:
    return _from_connect(frame) if bridge.connect else _from_jvm(frame, bridge)


def _from_connect(frame: Any) -> Iterator[pa.RecordBatch]:
    # What `toArrow` is made of, without the list that it gathers.
    client = frame.sparkSession.client
    for part in client.to_table_as_iterator(frame._plan.to_proto(client), {}):  # noqa: SLF001  the only stream there is
        if isinstance(part, pa.Table):
            yield from part.to_batches()
        elif isinstance(part, pa.RecordBatch):
            yield part


def _from_jvm(frame: Any, bridge: SparkBridge) -> Iterator[pa.RecordBatch]:
    """One job for each partition, as `toLocalIterator` does for rows: `toArrow` would hold everything."""
    from pyspark.rdd import _local_iterator_from_socket
    from pyspark.serializers import NoOpSerializer
    from pyspark.sql.pandas.types import to_arrow_schema

    schema = to_arrow_schema(frame.schema, timezone="UTC")
    encoded = frame._jdf.toArrowBatchRdd()  # noqa: SLF001  what PySpark's own conversion calls
    served = bridge.jvm.PythonRDD.toLocalIteratorAndServe(encoded, False)
    for message in _local_iterator_from_socket(served, NoOpSerializer()):
        yield pa.ipc.read_record_batch(pa.py_buffer(message), schema)
