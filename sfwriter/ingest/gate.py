"""The gate: rows pass, are set aside, or the call is refused, as the schema mode says.

Receives: rows of any accepted kind, and the run id of the call.
Produces: a `Gated`: an `EncodedBatch`, and what people are to be told of it.
Guarantees: rows given = rows accepted + rows quarantined, or an error that lists every bad row.
Never does: read or write anything outside; block; keep anything between two calls, so threads may share one.

| mode | a value of the wrong type, an unknown key | a broken built-in rule |
| --- | --- | --- |
| strict | `WriterSchemaError`, nothing passes | `WriterValidationError`, nothing passes |
| lenient | what converts without loss passes; the row is quarantined else | the row is quarantined |
| ignore | converts, else null and kept in `metadata` | reported; a row without phase or step_name refuses the call |

Rules of the configuration are measured in every mode; in `lenient` a row that breaks one is quarantined, too.

None, NaT and Arrow's null are the same as a key that is left out, also under an unknown key.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from sfwriter.arrays import array_of, scalar_of
from sfwriter.batch import EncodedBatch
from sfwriter.dictionaries import plain_column, plain_table
from sfwriter.exceptions import WriterValidationError
from sfwriter.ingest import refusals
from sfwriter.ingest.aside import quarantine, with_unconverted
from sfwriter.ingest.digest import digest_of
from sfwriter.ingest.encode import encode_mappings, encode_table
from sfwriter.ingest.few import clean_few
from sfwriter.ingest.inputs import opened
from sfwriter.ingest.jsontext import bounded
from sfwriter.ingest.kinds import LOG_KINDS
from sfwriter.ingest.names import TableColumns
from sfwriter.ingest.narrow import is_kept, without_what_is_beyond
from sfwriter.ingest.values import broken_text
from sfwriter.quality.builtin import PHASES, RUN_MODES, Breach, all_among, breaches
from sfwriter.quality.rules import breaches_of
from sfwriter.quality.verdict import Judged, Misfit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sfwriter.ingest.encoded import Encoded, Fault
    from sfwriter.ingest.few import Few
    from sfwriter.quality.rules import Broken, RuleSet

    MoreRules = Callable[[pa.Table], Iterable[Breach]]
    DigestBy = Callable[[pa.Table, list[Fault]], str]

Mode = Literal["strict", "lenient", "ignore"]

STAMP_NOTE = "logged_at is set on writing: the values given for it were replaced"


def _new_run_id() -> str:
    return str(uuid.uuid4())


@dataclass(frozen=True, slots=True)
class Gated:
    """What came through the gate.

    Attributes:
        batch: the rows accepted and set aside.
        given: rows that the caller gave; always those accepted and those quarantined together.
        breaches: rules that accepted rows break (`ignore` only); `Breach.row` counts the rows given.
        unconverted: values that are null in the table and kept in `metadata` (`ignore` only).
        new_columns: columns of the batch that the table lacks, as far as the gate knows the table.
        notes: sentences for the log.
        judged: all rows that were given, and what they break.
        secs: what all of that took, where somebody measured it.
    """

    batch: EncodedBatch
    given: int
    judged: Judged
    breaches: tuple[Breach, ...] = ()
    unconverted: int = 0
    new_columns: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    secs: float = 0.0

    @property
    def accepted(self) -> int:
        """Rows that go into tables."""
        return self.given - self.quarantined

    @property
    def quarantined(self) -> int:
        """Rows that are set aside."""
        return 0 if self.batch.quarantined is None else int(self.batch.quarantined.num_rows)


class Gate:
    """Turns rows into encoded batches, under one schema mode and one knowledge of the table."""

    def __init__(
        self,
        mode: Mode = "strict",
        *,
        evolution: bool = True,
        extra_fields: pa.Schema | None = None,
        new_run_id: Callable[[], str] = _new_run_id,
        more_rules: MoreRules | None = None,
        rules: RuleSet | None = None,
    ) -> None:
        """Make a gate.

        Args:
            mode: `strict`, `lenient` or `ignore`.
            evolution: whether unknown keys become new columns.
            extra_fields: the table's schema, or its columns beside those of the log; None: no such columns.
            new_run_id: makes the run id of rows that have none.
            more_rules: gives the breaches of further rules, of rows in the table's types.
            rules: of the configuration.

        Raises:
            ValueError: the mode is none of the three.
        """
        if mode not in {"strict", "lenient", "ignore"}:
            raise ValueError(f"mode is {mode!r}; allowed are strict, lenient and ignore")
        self.mode = mode
        self.evolution = evolution
        self._columns = TableColumns.of(extra_fields, evolution=evolution)
        self._new_run_id = new_run_id
        self._more_rules = more_rules
        self._rules = rules

    def with_schema(self, schema: pa.Schema) -> Gate:
        """The same gate before a table that has these columns now."""
        return Gate(
            self.mode,
            evolution=self.evolution,
            extra_fields=schema,
            new_run_id=self._new_run_id,
            more_rules=self._more_rules,
            rules=self._rules,
        )

    def encode(self, rows: Any, run_id: str | None = None, *, max_bytes: int | None = None) -> EncodedBatch:
        """The batch of `admit`."""
        return self.admit(rows, run_id, max_bytes=max_bytes).batch

    def admit(
        self,
        rows: Any,
        run_id: str | None = None,
        *,
        made_run_id: str | None = None,
        max_bytes: int | None = None,
        digest_by: DigestBy | None = None,
    ) -> Gated:
        """Let the rows of one call through, or refuse them.

        Args:
            rows: see `sfwriter.ingest.inputs.ACCEPTED`. An iterator is consumed.
            run_id: for the rows that have none of their own.
            made_run_id: for those that have none then; None for a new one. The digest does not see it.
            max_bytes: Arrow bytes that the rows may take; looked at while they are read.
            digest_by: another digest than `sfwriter.ingest.digest`, of the rows before anything is made up.

        Raises:
            WriterSchemaError: `strict`, and a value or a key does not fit; in every mode where two Arrow
                columns have one name. `validation_errors` has an entry for each row.
            WriterValidationError: it is nothing that holds rows; `strict`, and a row breaks a built-in
                rule or is no mapping; `ignore`, and a row lacks phase or step_name or is no mapping.
                `validation_errors` has an entry for each row.
            WriterPerformanceError: the rows take more than `max_bytes`.
        """
        check_run_id(run_id)
        new_run_id = self._new_run_id if made_run_id is None else lambda: made_run_id
        exact = self.mode == "strict"
        if type(rows) is list and self._more_rules is None:
            few = clean_few(rows, self._columns, exact=exact, run_id=run_id, new_run_id=new_run_id, max_bytes=max_bytes)
            passed = None if few is None or not is_kept(few.table, self._columns.narrow) else self._passed(few)
            if passed is not None and (self.mode != "lenient" or not passed.judged.broken):
                return passed
        encoded, table = self._encoded(rows, run_id, max_bytes)
        if digest_by is not None:
            digest = digest_by(table, encoded.faults)
        else:
            digest = digest_of(table, [fault.identity() for fault in encoded.faults])
        table, named = _with_run_ids(table, run_id, new_run_id)
        if not exact:
            table = _lowered(table)
        return self._sorted_out(encoded, table, digest, named)

    def judge(self, rows: Any, rules: RuleSet | None, *, max_bytes: int | None = None) -> Judged:
        """What rows break; nothing is refused for it, and nothing set aside.

        Args:
            rows: as `admit` takes them.
            rules: to measure by; None for the built-in ones.
            max_bytes: see `admit`.

        Raises:
            WriterValidationError: it is nothing that holds rows.
            WriterPerformanceError: the rows take more than `max_bytes`.
        """
        encoded, given = self._encoded(rows, None, max_bytes)
        if self.mode != "strict":
            given = _lowered(given)
        # Rows without a run id would get one; it is not shown, since nobody would find it anywhere.
        named, _ = _with_run_ids(given, None, self._new_run_id)
        if rules is not None:
            return Judged(given, _misfits(encoded), broken=tuple(rules.broken(named)))
        return Judged(given, _misfits(encoded), tuple(_relevant(breaches(named), encoded)))

    def _encoded(self, rows: Any, run_id: str | None, max_bytes: int | None) -> tuple[Encoded, pa.Table]:
        """The rows in the table's types, and the same with what missing values stand for."""
        exact = self.mode == "strict"
        given = opened(rows, max_bytes)
        if isinstance(given, pa.Table):
            encoded = encode_table(given, self._columns, exact=exact)
        else:
            encoded = encode_mappings(given, self._columns, exact=exact, max_bytes=max_bytes)
        if self._columns.narrow:
            encoded = without_what_is_beyond(encoded, self._columns.narrow)
        return encoded, _with_defaults(encoded, run_id)

    def _passed(self, few: Few) -> Gated:
        return Gated(
            batch=EncodedBatch(few.table, None, few.digest, few.run_id, measured=few.nbytes),
            given=int(few.table.num_rows),
            judged=Judged(few.table, broken=self._broken(few.table)),
            new_columns=tuple(name for name in few.extras if self._columns.kind(name) is None),
            notes=(STAMP_NOTE,) if few.stamped else (),
        )

    def _broken(self, table: pa.Table) -> tuple[Broken, ...] | None:
        return None if self._rules is None else tuple(self._rules.broken(table))

    def _sorted_out(self, encoded: Encoded, table: pa.Table, digest: str, run_id: str) -> Gated:
        every = breaches(table)
        if self._more_rules is not None:
            table = plain_table(table)
            every = sorted([*every, *self._more_rules(table)], key=lambda breach: breach.row)
        found = _relevant(every, encoded)
        if self.mode == "strict" and (encoded.faults or found):
            raise refusals.of_strict(encoded, found, self._columns)
        if self.mode == "ignore" and any(breach.missing for breach in every):
            # A row that is no mapping lacks both as well.
            raise refusals.of_ignore(encoded, [breach for breach in found if breach.missing])
        broken = self._broken(table)
        if encoded.faults or found or broken:
            # What follows looks at the values of rows that break something.
            encoded, table = replace(encoded, rows=plain_table(encoded.rows)), plain_table(table)
        judged = Judged(table, _misfits(encoded), tuple(found), broken)
        if self.mode == "lenient" and judged.broken:
            found = [*found, *breaches_of(judged.broken)]
        aside, unconverted = None, 0
        if self.mode == "lenient" and (encoded.faults or found):
            table, aside = quarantine(encoded, table, found)
            found = []
        if self.mode == "ignore" and encoded.faults:
            table, unconverted = with_unconverted(table, encoded.faults), len(encoded.faults)
        table = _without_empty_extras(table)
        return Gated(
            batch=EncodedBatch(rows=table, quarantined=aside, digest=digest, run_id=run_id),
            given=int(encoded.rows.num_rows),
            judged=judged,
            breaches=tuple(found),
            unconverted=unconverted,
            new_columns=tuple(name for name in table.column_names if self._columns.kind(name) is None),
            notes=(STAMP_NOTE,) if encoded.stamped else (),
        )


def _misfits(encoded: Encoded) -> tuple[Misfit, ...]:
    return tuple(Misfit(fault.row, fault.column or "", fault.rule(), bounded(fault.value)) for fault in encoded.faults)


def check_run_id(run_id: object) -> None:
    """Raise `WriterValidationError` for a call's run id that is none."""
    if run_id is None:
        return
    if not isinstance(run_id, str) or not run_id.strip() or broken_text(run_id) is not None:
        raise WriterValidationError(
            f"run_id is {bounded(run_id)}; a text that is not blank is expected.",
            context={"field": "run_id", "value": bounded(run_id)},
            suggestions=["Give the run's id as text, or leave it out for a new UUID."],
        )


def _replaced(table: pa.Table, name: str, column: Any) -> pa.Table:
    return table.set_column(table.column_names.index(name), table.schema.field(name).with_type(column.type), column)


def _with_run_ids(table: pa.Table, run_id: str | None, new_run_id: Callable[[], str]) -> tuple[pa.Table, str]:
    """No row without a run id; rows that have none share one. Also the one that the result names."""
    column = table.column("run_id")
    if column.null_count == 0 and (run_id is not None or len(column)):
        return table, run_id if run_id is not None else column[0].as_py()
    made = run_id if run_id is not None else new_run_id()
    return _replaced(table, "run_id", _run_ids(column, made)), made


def _run_ids(column: pa.ChunkedArray, run_id: str) -> pa.ChunkedArray:
    return pc.fill_null(plain_column(column), scalar_of(run_id, pa.string()))


def _with_defaults(encoded: Encoded, run_id: str | None) -> pa.Table:
    """The rows with what a missing value stands for: the call's run id, and success where there is no error."""
    table = encoded.rows
    if run_id is not None and table.column("run_id").null_count:
        table = _replaced(table, "run_id", _run_ids(table.column("run_id"), run_id))
    success = table.column("success")
    if success.null_count:
        fine: Any = pc.is_null(table.column("error_message"))
        # A message that could not be kept is a message all the same; a success that could not be kept stays null.
        told = {fault.row for fault in encoded.faults if fault.column == "error_message"}
        unknown = {fault.row for fault in encoded.faults if fault.column == "success"}
        if told or unknown:
            listed = enumerate(fine.to_pylist())
            fine = array_of([None if row in unknown else ok and row not in told for row, ok in listed], pa.bool_())
        table = _replaced(table, "success", pc.if_else(pc.is_valid(success), success, fine))
    return table


def _lowered(table: pa.Table) -> pa.Table:
    """`BRONZE` becomes `bronze`: names of phases and run modes that differ only in case."""
    for name, allowed in (("phase", PHASES), ("run_mode", RUN_MODES)):
        column = table.column(name)
        if not all_among(column, allowed):
            column = plain_column(column)
            low = pc.utf8_lower(column)
            table = _replaced(table, name, pc.if_else(pc.is_in(low, array_of(allowed, pa.string())), low, column))
    return table


def _relevant(found: list[Breach], encoded: Encoded) -> list[Breach]:
    """Without what follows from a fault: a value that was nulled is not missing, a row that is none lacks nothing."""
    if not encoded.faults:
        return found
    nulled = {(fault.row, fault.column) for fault in encoded.faults}
    return [
        breach for breach in found if (breach.row, breach.column) not in nulled and (breach.row, None) not in nulled
    ]


def _without_empty_extras(table: pa.Table) -> pa.Table:
    """Additional columns whose values were all set aside or nulled are not made."""
    empty = [n for n in table.column_names if n not in LOG_KINDS and table.column(n).null_count == table.num_rows]
    return table.drop_columns(empty) if empty else table
