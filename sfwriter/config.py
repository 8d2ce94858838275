"""What a writer is told: every option, its default and its check.

Receives: keyword arguments, or environment variables.
Produces: an immutable `WriterConfig`.
Guarantees: a config that exists is a good one. Everything that is wrong with one is said at once,
where it is made; values of `storage_options` are in no text.
Never does: read the environment unless asked; touch files, tables or the network.
"""

from __future__ import annotations

import os
from difflib import get_close_matches
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from sfwriter.clock import SystemClock
from sfwriter.config_file import read_options
from sfwriter.exceptions import WriterConfigurationError
from sfwriter.modes import WriteMode
from sfwriter.naming import DEFAULT_PATTERN, moment, render, text_of, time_values, variables_of
from sfwriter.options import (
    Choice,
    ColumnNames,
    Flag,
    FrozenDict,
    FrozenList,
    Kind,
    Name,
    Number,
    Pattern,
    Place,
    ProducerId,
    Rules,
    Secrets,
    StorageOptions,
    Weights,
    Whole,
    same_rule,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime
    from pathlib import Path

    from sfwriter.modes import RunMode

ENVIRONMENT_PREFIX = "SFWRITER_"

MIB = 1 << 20

PARTITIONABLE = (
    "run_id", "run_mode", "execution_id", "pipeline_id", "schema", "phase", "step_name", "step_type", "table_fqn",
    "success", "write_mode",
)  # fmt: skip
"""Columns that a table can be partitioned by: short text and booleans.

Not timestamps (engines disagree on the zone of their partition values), not numbers and free text
(a folder for each value).
"""


class WriterConfig(BaseModel):
    """Options of a writer. Immutable, compared by value, picklable; keyword arguments only.

    Attributes:
        table_schema: the table's schema, the first part of its name.
        table_name: the second part. Both: 1 to 120 ASCII letters, digits, `_` and `-`.
        write_mode: `append`, or `overwrite`: each call replaces the table's rows.
        batch_size: rows or executions of a large operation that are handled at once.
        max_file_size_mb: MiB; a data file that reaches it is closed, and OPTIMIZE aims at it.
        parallel_write_threads: batches that are encoded and staged at once; writer actors in the service.
        memory_fraction: of the memory that the process may use: bytes held in flight at most.
        log_data_quality_results: results carry `quality_results`, and `<table>_quality` keeps them.
        enable_anomaly_detection: every write is also checked for anomalies.
        min_validation_rate: percent of rows that pass the rules, at least, in a batch that passes.
        max_invalid_rows_percent: percent of rows that fail, at most, in a batch that passes.
        enable_schema_evolution: an unknown key becomes a new column.
        auto_optimize_schema: statistics, Z-order columns and encodings are chosen for common queries.
        schema_validation_mode: `strict` refuses wrong types, `lenient` converts or quarantines, `ignore`
            writes every row.
        enable_optimization: maintenance starts by itself when small files pile up.
        partition_count: files that a large batch is spread over; None leaves it to the sizes.
        compression: Parquet codec: snappy, zstd, lz4, gzip or none.
        table_name_pattern: rows go to the tables that it names, e.g. `{schema}.{pipeline_id}_{date}`;
            None for `{schema}.{table_name}`.
        table_suffix_pattern: added to the name; None for nothing.
        max_retries: further tries after an error that a retry can mend.
        retry_delay_secs: seconds before the first of them.
        fail_fast: no retries, and a batch of too poor quality raises.
        retry_exponential_backoff: each delay is twice the one before (with jitter), else all are equal.
        warehouse: folder or object store's URL; a table is at `<warehouse>/<table_schema>/<table_name>`.
        storage_options: for the object store. No text shows the values.
        producer_id: identity for exactly-once over restarts, 1 to 256 characters; None for a new random
            one in each writer.
        linger_ms: while a commit is running, small calls are collected for at most this many
            milliseconds before they are staged together; an idle writer stages at once, so a lone
            call never waits for company.
        max_batch_mb: MiB of Arrow data that are collected into one staging job at most. 64 make a file
            of some 5 to 10 MiB, and leave a usual budget room for several jobs.
        queue_timeout_secs: seconds that a call waits for memory before `WriterPerformanceError`; 0 does
            not wait.
        durability: `fsync`, or `os` for those who accept to lose acknowledged rows in a power cut.
        validation_rules: column to rules that every written row is checked by.
        partition_columns: Delta partitioning at creation.
        idempotency_retention_days: days that a table remembers idempotency keys and random producers.
        client_weights: producer id of a service's client, or a pattern of ids, to its share beside the
            others, 0.01 to 100; a client that nothing names has 1.
        engine: what commits and maintains: `delta-rs`, or `spark`: Spark in a JVM that is started for it, for
            a service, or for a writer that is given no session. A writer that is given one works with that.
        spark_conf: settings, by their Spark names, of the session that `engine="spark"` starts. No text shows
            the values.

    Raises:
        WriterConfigurationError: options are wrong or unknown; it names all of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    table_schema: Annotated[str, Name()] = "analytics"
    table_name: Annotated[str, Name()] = "pipeline_logs"
    write_mode: Annotated[WriteMode, Choice(("append", "overwrite"), WriteMode)] = WriteMode.APPEND

    batch_size: Annotated[int, Whole(1, 10_000_000)] = 1000
    max_file_size_mb: Annotated[float, Number(0, 65_536, above=True)] = 128
    parallel_write_threads: Annotated[int, Whole(1, 256)] = 4
    memory_fraction: Annotated[float, Number(0, 1, above=True)] = 0.6

    log_data_quality_results: Annotated[bool, Flag()] = False
    enable_anomaly_detection: Annotated[bool, Flag()] = False
    min_validation_rate: Annotated[float, Number(0, 100)] = 95.0
    max_invalid_rows_percent: Annotated[float, Number(0, 100)] = 5.0

    enable_schema_evolution: Annotated[bool, Flag()] = True
    auto_optimize_schema: Annotated[bool, Flag()] = True
    schema_validation_mode: Annotated[
        Literal["strict", "lenient", "ignore"], Choice(("strict", "lenient", "ignore"))
    ] = "strict"

    enable_optimization: Annotated[bool, Flag()] = True
    partition_count: Annotated[int | None, Whole(1, 10_000, optional=True)] = None
    compression: Annotated[
        Literal["snappy", "zstd", "lz4", "gzip", "none"], Choice(("snappy", "zstd", "lz4", "gzip", "none"))
    ] = "snappy"

    table_name_pattern: Annotated[str | None, Pattern()] = None
    table_suffix_pattern: Annotated[str | None, Pattern(suffix=True)] = None

    max_retries: Annotated[int, Whole(0, 1000)] = 3
    retry_delay_secs: Annotated[float, Number(0, 3600)] = 1.0
    fail_fast: Annotated[bool, Flag()] = False
    retry_exponential_backoff: Annotated[bool, Flag()] = True

    warehouse: Annotated[str, Place()] = "warehouse"
    storage_options: Annotated[Secrets, StorageOptions()] = Secrets()
    producer_id: Annotated[str | None, ProducerId()] = None
    linger_ms: Annotated[float, Number(0, 60_000)] = 50
    max_batch_mb: Annotated[float, Number(0, 65_536, above=True)] = 64
    queue_timeout_secs: Annotated[float, Number(0, 1_000_000)] = 30
    durability: Annotated[Literal["fsync", "os"], Choice(("fsync", "os"))] = "fsync"
    validation_rules: Annotated[FrozenDict[str, FrozenList[Any]], Rules()] = FrozenDict()
    partition_columns: Annotated[FrozenList[str], ColumnNames(PARTITIONABLE)] = FrozenList()
    idempotency_retention_days: Annotated[float, Number(0, 36_500, above=True)] = 7
    client_weights: Annotated[FrozenDict[str, float], Weights(0.01, 100)] = FrozenDict()
    engine: Annotated[Literal["delta-rs", "spark"], Choice(("delta-rs", "spark"))] = "delta-rs"
    spark_conf: Annotated[Secrets, StorageOptions()] = Secrets()

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            table_schema: str = ...,
            table_name: str = ...,
            write_mode: WriteMode | str = ...,
            batch_size: int = ...,
            max_file_size_mb: float = ...,
            parallel_write_threads: int = ...,
            memory_fraction: float = ...,
            log_data_quality_results: bool = ...,
            enable_anomaly_detection: bool = ...,
            min_validation_rate: float = ...,
            max_invalid_rows_percent: float = ...,
            enable_schema_evolution: bool = ...,
            auto_optimize_schema: bool = ...,
            schema_validation_mode: str = ...,
            enable_optimization: bool = ...,
            partition_count: int | None = ...,
            compression: str = ...,
            table_name_pattern: str | None = ...,
            table_suffix_pattern: str | None = ...,
            max_retries: int = ...,
            retry_delay_secs: float = ...,
            fail_fast: bool = ...,
            retry_exponential_backoff: bool = ...,
            warehouse: str | Path = ...,
            storage_options: Mapping[str, str] = ...,
            producer_id: str | None = ...,
            linger_ms: float = ...,
            max_batch_mb: float = ...,
            queue_timeout_secs: float = ...,
            durability: str = ...,
            validation_rules: Mapping[str, Any] = ...,
            partition_columns: list[str] | tuple[str, ...] = ...,
            idempotency_retention_days: float = ...,
            client_weights: Mapping[str, float] = ...,
            engine: str = ...,
            spark_conf: Mapping[str, str] = ...,
        ) -> None: ...

    else:

        def __init__(self, **options: object) -> None:
            """Check the options; `WriterConfigurationError` names everything that is wrong."""
            self._take(options, {}, [])

    def _take(self, options: dict[str, Any], labels: Mapping[str, str], problems: list[str]) -> None:
        """Become these options, or raise all problems; `labels` are their names in the problems."""
        try:
            BaseModel.__init__(self, **options)
        except ValidationError as error:
            problems = [*problems, *_problems_of(error, labels)]
        if problems:
            raise _configuration_error(problems)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> WriterConfig:
        """A config from variables `SFWRITER_<OPTION>`, e.g. `SFWRITER_BATCH_SIZE=5000`.

        Dicts and lists are JSON; lists may also be names with commas between them. Overrides win, and
        their variables are not looked at. A variable that is nearly the name of an option is an error,
        any other one is somebody else's.

        Args:
            environ: the variables; the process's own by default.
            **overrides: options, as `WriterConfig` takes them.

        Raises:
            WriterConfigurationError: variables or overrides are wrong; it names all of them.
        """
        return cls._gathered({}, os.environ if environ is None else environ, overrides)

    @classmethod
    def from_file(cls, path: str | Path, environ: Mapping[str, str] | None = None, **overrides: Any) -> WriterConfig:
        """A config from a TOML or YAML file. Variables as in `from_env` win over the file, overrides over both.

        Raises:
            WriterConfigurationError: the file, variables or overrides are wrong; it names all of them.
        """
        found = read_options(path)
        problems = []
        for name in [name for name in found if name not in cls.model_fields]:
            close = get_close_matches(name, cls.model_fields, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            problems.append(f"{path}: {name} is no option{hint}")
            del found[name]
        labels = {name: f"{path}: {name}" for name in found}
        return cls._gathered(found, os.environ if environ is None else environ, overrides, labels, problems)

    @classmethod
    def _gathered(
        cls,
        weakest: Mapping[str, Any],
        environ: Mapping[str, str],
        overrides: Mapping[str, Any],
        labels: Mapping[str, str] = MappingProxyType({}),
        problems: Iterable[str] = (),
    ) -> WriterConfig:
        """Options of a file, of variables and of a call, each stronger than those before it."""
        options = dict(weakest)
        problems = list(problems)
        labels = dict(labels)
        variables = {ENVIRONMENT_PREFIX + name.upper(): name for name in cls.model_fields}
        for variable, text in environ.items():
            name = variables.get(variable)
            if name is None and variable.startswith(ENVIRONMENT_PREFIX):
                close = get_close_matches(variable, variables, n=1, cutoff=0.9)
                problems += [f"{variable} is no option's variable; did you mean {close[0]}?"] if close else []
            if name is None or name in overrides:
                continue
            kind = _kind(name)
            labels[name] = variable
            options.pop(name, None)
            try:
                options[name] = kind.parse(text)
            except ValueError as error:
                problems.append(f"{variable} is {_shown(text, kind)}, but {error}")
        for name in overrides:
            labels.pop(name, None)
        config = cls.__new__(cls)
        config._take({**options, **overrides}, labels, problems)  # noqa: SLF001  its own class
        return config

    def replace(self, **changes: Any) -> WriterConfig:
        """A config with these options changed, checked like a new one."""
        return type(self)(**{**{name: getattr(self, name) for name in self.model_fields_set}, **changes})

    def is_given(self, option: str) -> bool:
        """Whether the option was given, be it with its default."""
        return option in self.model_fields_set

    def differences(self, other: WriterConfig) -> dict[str, tuple[str, str]]:
        """Option to its text here and there, where the two differ; without secrets."""
        return {
            name: (repr(getattr(self, name)), repr(getattr(other, name)))
            for name in type(self).model_fields
            if not _same(name, self, other)
        }

    @property
    def table_fqn(self) -> str:
        """The configured table: `schema.table`."""
        return f"{self.table_schema}.{self.table_name}"

    @property
    def quarantine_table_name(self) -> str:
        """The table, in the same schema, of the rows that were set aside."""
        return f"{self.table_name}_quarantine"

    @property
    def quality_table_name(self) -> str:
        """The table, in the same schema, of the quality results."""
        return f"{self.table_name}_quality"

    @property
    def max_file_bytes(self) -> int:
        """`max_file_size_mb` in bytes."""
        return int(self.max_file_size_mb * MIB)

    @property
    def max_batch_bytes(self) -> int:
        """`max_batch_mb` in bytes."""
        return int(self.max_batch_mb * MIB)

    @property
    def is_routed(self) -> bool:
        """Whether rows may go to other tables than the configured one."""
        return (self.table_name_pattern or DEFAULT_PATTERN) != DEFAULT_PATTERN or bool(self.table_suffix_pattern)

    def weight_of(self, client: str | None) -> float:
        """The weight of a client by its producer id: of the id itself, else of the first pattern that it matches."""
        if client is None:
            return 1.0
        if client in self.client_weights:
            return self.client_weights[client]
        return next((weight for name, weight in self.client_weights.items() if fnmatchcase(client, name)), 1.0)

    def generate_table_name(
        self,
        pipeline_id: str | None = None,
        run_mode: RunMode | str | None = None,
        timestamp: datetime | str | None = None,
    ) -> str:
        """The name `schema.table` that the patterns give.

        Args:
            pipeline_id: for `{pipeline_id}`.
            run_mode: for `{run_mode}`.
            timestamp: for `{date}` and `{timestamp}`: a datetime (a naive one is UTC), `20240101_120000`,
                or ISO 8601; now where it is left out.

        Raises:
            WriterValidationError: a variable that a pattern needs was not given, or the name that comes
                out is not a legal one.
        """
        pattern, suffix = self.table_name_pattern or DEFAULT_PATTERN, self.table_suffix_pattern or ""
        values = {
            "schema": self.table_schema,
            "table_name": self.table_name,
            "pipeline_id": text_of("pipeline_id", pipeline_id),
            "run_mode": text_of("run_mode", run_mode),
        }
        if {"date", "timestamp"}.intersection(variables_of(pattern + suffix)):
            values |= time_values(moment(SystemClock().now() if timestamp is None else timestamp))
        return render(pattern, suffix, values)

    def __eq__(self, other: object) -> bool:
        """By value; rules by what they say."""
        if not isinstance(other, WriterConfig):
            return NotImplemented
        return all(_same(name, self, other) for name in type(self).model_fields)

    __hash__ = None  # type: ignore[assignment]  # it holds dicts and expressions

    def __setattr__(self, name: str, value: object) -> None:
        """Refused: another thread may be using it."""
        raise _immutable(name)

    def __delattr__(self, name: str) -> None:
        """Refused, too."""
        raise _immutable(name)

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        """What was given, in the order of the fields."""
        for name in type(self).model_fields:
            if name in self.model_fields_set:
                yield name, getattr(self, name)


def _immutable(name: str) -> WriterConfigurationError:
    return WriterConfigurationError(
        f"{name} cannot be set or deleted: a WriterConfig is immutable",
        problems=[f"{name} cannot be set or deleted"],
        context={"field": name},
        suggestions=[f"config.replace({name}=...) gives a changed one"],
        code="configuration",
    )


def _kind(option: str) -> Kind:
    """The kind in the field's annotation."""
    return next(entry for entry in WriterConfig.model_fields[option].metadata if isinstance(entry, Kind))


def _same(option: str, one: WriterConfig, other: WriterConfig) -> bool:
    mine, theirs = getattr(one, option), getattr(other, option)
    if option != "validation_rules":
        return bool(mine == theirs)
    return mine.keys() == theirs.keys() and all(
        len(rules) == len(theirs[column]) and all(map(same_rule, rules, theirs[column]))
        for column, rules in mine.items()
    )


def _problems_of(error: ValidationError, labels: Mapping[str, str]) -> Iterable[str]:
    """A sentence for each problem that pydantic collected."""
    options = WriterConfig.model_fields
    for detail in error.errors(include_url=False):
        option = str(detail["loc"][0])
        if detail["type"] == "extra_forbidden":
            close = get_close_matches(option, options, n=1)
            yield f"{option} is no option" + (f"; did you mean {close[0]}?" if close else "")
        else:
            reason = str(detail["ctx"]["error"])
            yield f"{labels.get(option, option)} is {_shown(detail['input'], _kind(option))}, but {reason}"


def _shown(value: Any, kind: Kind) -> str:
    """The value's text, shortened; its type alone where it may be a secret."""
    if kind.secret:
        return f"of type {type(value).__name__}"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _configuration_error(problems: list[str]) -> WriterConfigurationError:
    asked = [problem.partition("; did you mean ")[2].rstrip("?") for problem in problems]
    suggestions = [f"use {name}" for name in asked if name]
    suggestions.append("help(sfwriter.WriterConfig) lists every option and what it takes")
    if len(problems) == 1:
        message = f"WriterConfig: {problems[0]}"
    else:
        message = f"WriterConfig has {len(problems)} problems: {'; '.join(problems)}"
    return WriterConfigurationError(
        message, problems=problems, context={"problems": problems}, suggestions=suggestions, code="configuration"
    )
