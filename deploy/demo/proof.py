"""Whether a table holds exactly the rows that were given, found out without the library.

Receives: a table's folder, and the rows that were given, as a DuckDB relation.
Produces: a `Proof`.
Guarantees: the live files come from the Delta log's JSON alone, and DuckDB counts in them.
Never does: import sfwriter or deltalake.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import duckdb

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@dataclass(frozen=True)
class LiveFiles:
    """What a Delta log says.

    Attributes:
        paths: the data files that hold the table's rows, absolute.
        version: the newest.
        commits: commits that added files.
        size_bytes: of the files together.
        log_rows: rows by the log's own statistics.
    """

    paths: tuple[str, ...]
    version: int
    commits: int
    size_bytes: int
    log_rows: int


@dataclass(frozen=True)
class Proof:
    """Rows given against rows held; both are told apart by (run_id, step_name).

    Attributes:
        given: rows that were given.
        held: rows in the table.
        missing: given and not held, each as often as it lacks.
        surplus: held and not given, or more often than given.
        doubled: pairs (run_id, step_name) that are held more than once.
        differing: columns in which the content is another one; None where content was not compared.
        examples: some of what is wrong.
        live: the files that were read.
    """

    given: int
    held: int
    missing: int
    surplus: int
    doubled: int
    differing: tuple[str, ...] | None
    examples: tuple[str, ...]
    live: LiveFiles

    @property
    def holds(self) -> bool:
        """Whether every row that was given is there exactly once, and nothing else."""
        wrong = self.missing or self.surplus or self.doubled or self.differing
        return not wrong and self.given == self.held == self.live.log_rows


def live_files(table: Path) -> LiveFiles:
    """The files that a table consists of now, from its log's JSON, version by version.

    Raises:
        ValueError: a version is missing, so that the JSON alone does not tell.
    """
    commits = sorted((table / "_delta_log").glob("[0-9]*.json"))
    if [int(path.stem) for path in commits] != list(range(len(commits))):
        raise ValueError(f"the log of {table} does not begin at version 0 or has gaps")
    added: dict[str, dict[str, Any]] = {}
    adding = 0
    for path in commits:
        actions = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        for action in actions:
            if "remove" in action:
                added.pop(action["remove"]["path"], None)
        new = {action["add"]["path"]: action["add"] for action in actions if "add" in action}
        added.update(new)
        adding += bool(new)
    return LiveFiles(
        tuple(str(table / unquote(path)) for path in added),
        len(commits) - 1,
        adding,
        sum(add["size"] for add in added.values()),
        sum(json.loads(add["stats"])["numRecords"] for add in added.values()),
    )


def prove_given(table: Path, ledger: Path) -> Proof:
    """Whether a table holds the rows that a ledger's folder says were given."""
    given = (
        f"SELECT run_id, step_name FROM read_json({_texts([str(ledger / 'given-*.jsonl')])}, "
        "format='newline_delimited', columns={run_id: 'VARCHAR', step_name: 'VARCHAR'})"
    )
    return _prove(table, given, compared=None)


def prove_backfilled(table: Path, sources: Iterable[Path]) -> Proof:
    """Whether a table holds the rows of these Parquet files, with the same content."""
    given = f"SELECT * FROM read_parquet({_texts(map(str, sources))})"
    names = [column for column, *_ in _all(f"DESCRIBE {given}")]
    return _prove(table, given, compared=names)


def acknowledged_rows(ledger: Path) -> int:
    """Rows of the batches that the ledger says were acknowledged."""
    files = _texts([str(ledger / "acknowledged-*.jsonl")])
    return int(_one(f"SELECT coalesce(sum(rows), 0) FROM read_json({files}, columns={{rows: 'BIGINT'}})")[0])


def table_rows(live: LiveFiles) -> str:
    """SQL of a relation of all rows in these files."""
    return f"SELECT * FROM read_parquet({_texts(live.paths)}, union_by_name=true)"


def _prove(table: Path, given: str, compared: list[str] | None) -> Proof:
    live = live_files(table)
    held = table_rows(live)
    counted = f"""
        WITH given AS (SELECT run_id, step_name, count(*) AS n FROM ({given}) GROUP BY ALL),
             held AS (SELECT run_id, step_name, count(*) AS n FROM ({held}) GROUP BY ALL)
        SELECT run_id, step_name, coalesce(given.n, 0) AS given, coalesce(held.n, 0) AS held
        FROM given FULL JOIN held USING (run_id, step_name)
    """
    connection = duckdb.connect()
    try:
        connection.execute(f"CREATE TABLE counted AS {counted}")
        sums = connection.execute(
            "SELECT sum(given), sum(held), sum(greatest(given - held, 0)), sum(greatest(held - given, 0)), "
            "count(*) FILTER (held > 1) FROM counted"
        ).fetchall()[0]
        wrong = connection.execute(
            "SELECT run_id, step_name, given, held FROM counted WHERE given <> held OR held > 1 ORDER BY ALL LIMIT 5"
        ).fetchall()
    finally:
        connection.close()
    given_rows, held_rows, missing, surplus, doubled = (int(number or 0) for number in sums)
    return Proof(
        given_rows,
        held_rows,
        missing,
        surplus,
        doubled,
        None if compared is None else _differing(given, held, compared),
        tuple(f"{run} / {step}: given {times}, in the table {there}" for run, step, times, there in wrong),
        live,
    )


def _differing(given: str, held: str, columns: list[str]) -> tuple[str, ...]:
    """Columns whose values, each together with its row's identity, are not the same on both sides."""
    prints = ", ".join(f'sum(hash(run_id, step_name, "{column}"))' for column in columns)
    ours, theirs = (_one(f"SELECT {prints} FROM ({relation})") for relation in (given, held))
    return tuple(column for column, one, other in zip(columns, ours, theirs, strict=True) if one != other)


def _one(query: str) -> tuple[Any, ...]:
    return _all(query)[0]


def _all(query: str) -> list[tuple[Any, ...]]:
    connection = duckdb.connect()
    try:
        rows: list[tuple[Any, ...]] = connection.execute(query).fetchall()
    finally:
        connection.close()
    return rows


def _texts(texts: Iterable[str]) -> str:
    """A list of SQL texts."""
    return "[" + ", ".join("'" + text.replace("'", "''") + "'" for text in texts) + "]"
