"""The coordinator actor: the machine behind remote calls.

Receives: parcels of clients, and rows given directly.
Produces: one answer for each batch, when it is settled.
Guarantees: its event loop never waits for a disk; whatever it forgets by dying, the tables know.
Never does: open a payload that a client packed; decide (the machine does).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import ray

from actors.direct import Direct
from actors.figures import Figures
from actors.line import WriterLine
from actors.listener import ClientGuest, Listener
from actors.lives import restarts
from actors.options import STAGE_TIMEOUT_S, WINDOW_SHARE, WIRE_FACTOR
from actors.pool import WriterPool
from actors.priority import come_to_the_front
from actors.shares import Clients
from actors.spark_table import engine_of
from actors.wire import Entry, Parcel, Payload, Slice, pack
from sfwriter import __version__
from sfwriter.batch import Token
from sfwriter.clock import SystemClock
from sfwriter.exceptions import WriterError, WriterValidationError
from sfwriter.flow.machine import Machine
from sfwriter.flow.vocabulary import (
    Abandon,
    Acknowledged,
    Answer,
    Closed,
    Commit,
    CommitLanded,
    Discard,
    Flushed,
    Part,
    ReadWatermarks,
    Reason,
    Stage,
    StagingFailed,
    Submitted,
    Ticked,
)
from sfwriter.limits import process_memory
from sfwriter.runtime.blueprint import flow_limits, log_table_spec, quarantine_table_spec
from sfwriter.runtime.channel import Receipt
from sfwriter.runtime.identity import check_producer_id, identity_of
from sfwriter.runtime.refusals import refusal_error
from sfwriter.runtime.routing import replaced_tables, tables_of
from sfwriter.runtime.tables import TRIED_AGAIN, OpenTables, table_opener
from sfwriter.storage.place import get_ready

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from actors.shares import Client
    from actors.wire import Ack, Share
    from sfwriter.config import WriterConfig
    from sfwriter.flow.vocabulary import Command, Event, Refused
    from sfwriter.storage.engine import Table, TableSpec

DIRECT = "direct"
"""The client that those are taken for who give rows without one and without a producer id."""


class _Held:
    """An entry that is not settled: what to stage, and who waits."""

    __slots__ = ("done", "entry", "given", "payload")

    def __init__(self, entry: Entry, payload: Payload, given: Submitted, done: asyncio.Future[Any]) -> None:
        self.entry = entry
        self.payload = payload
        self.given = given
        self.done = done


_OLDEST = 2
"""Python's last generation, which a full collection goes through."""


def _keep_what_stays(phase: str, info: dict[str, int]) -> None:
    """Never look again at what a full collection has left: marks of batches, tallies, clients.

    It goes by being counted down to nothing, as nearly everything here. Walking it anew stopped everybody for 15 ms
    every few seconds under load.
    """
    if phase == "stop" and info["generation"] == _OLDEST:
        gc.freeze()


class Coordinator:
    """One per service. Every method runs on the actor's event loop."""

    def __init__(
        self,
        service: str,
        config: WriterConfig,
        started_ray: int | None = None,
        origins: Mapping[str, str] | None = None,
    ) -> None:
        """Open the engine; tables are touched by the first batch.

        Args:
            service: its name.
            config: what to run with.
            started_ray: pid of the Ray that was started for this service, and ends with it.
            origins: option to where its value came from.
        """
        come_to_the_front()
        self._origins = dict(origins or {})
        self._started_ray = started_ray
        self._service = service
        self._config = config
        self._clock = SystemClock()
        context = ray.get_runtime_context()
        # Asked once: Ray asks its control store each time, and the loop would stand still for the answer.
        self._node_id, self._restarts = context.get_node_id(), restarts()
        self._life = uuid.uuid4().hex[:12]
        self._born = self._clock.now()
        self._limits = replace(flow_limits(config), stage_timeout_s=STAGE_TIMEOUT_S)
        self._machine = Machine(self._limits, name=f"{self._life}-", seed=uuid.uuid4().int)
        engine = engine_of(service, config)
        log_spec, quarantine_spec = log_table_spec(config), quarantine_table_spec(config)
        self._log_table, self._quarantine_table = log_spec.name, quarantine_spec.name
        log_table = engine.open(log_spec)
        open_table = table_opener(engine, config, log_table)
        self._tables = OpenTables((log_table, engine.open(quarantine_spec)), open_table)
        self._threads: dict[str, ThreadPoolExecutor] = {}
        for calls in self._tables:
            # A table that is there now and gone later is never made anew. One that cannot be read says so in its turn.
            with contextlib.suppress(WriterError):
                calls.table.stats()
        self._direct = Direct(config, log_table, open_table, self._clock)
        self._listener = Listener(
            lambda send: ClientGuest(self._take_in, send), lambda send: WriterLine(self._pool.line_opened, send)
        )
        self._pool = WriterPool(service, config.parallel_write_threads, self._listener.offer_to_writers)
        self._held: dict[int, _Held] = {}
        self._count = itertools.count()
        self._clients = Clients(int(self._limits.budget_bytes / WIRE_FACTOR / WINDOW_SHARE))
        self._tasks: set[asyncio.Task[None]] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._quiet: list[asyncio.Future[None]] = []
        self._draining = False
        self._figures = Figures(self._log_table, self._quarantine_table)
        self._began: dict[int, float] = {}
        self._newest: dict[tuple[str, int], int] = {}
        # Ray has every process collect its garbage when the object store fills. What was loaded until here stays for
        # ever; walking all of it each time made everybody wait for a fifth of a second and more.
        gc.collect()
        gc.freeze()
        gc.callbacks.append(_keep_what_stays)

    # ------------------------------------------------------------ what clients call

    async def deliver(self, client: str, parcel: Parcel) -> dict[str, Any]:
        """Take a parcel and return when every batch of it is settled.

        Returns:
            `answers`: for each entry, in order, a receipt as (producer_id, sequence, version, already, beside),
            or (reason, expected, error); `window_bytes`: what the client may have unanswered from now on; `offer`:
            where this coordinator listens for what is small, or None.
        """
        return (await self.deliver_all([(client, parcel)]))[0]

    async def deliver_all(self, parcels: list[tuple[str, Parcel]]) -> list[dict[str, Any]]:
        """Take parcels of several clients of one process, and return when every batch of them is settled.

        Args:
            parcels: each with its client.

        Returns:
            For each what `deliver` returns.
        """
        offer = await self._listener.offer()
        return [{**settled, "offer": offer} for settled in await self._take_in(parcels)]

    async def _take_in(self, parcels: list[tuple[str, Parcel]]) -> list[dict[str, Any]]:
        """As `deliver_all`, for those who know where this listens."""
        self._pool.warm_up()
        waiting: list[tuple[Client, list[asyncio.Future[Any]]]] = []
        events: list[Event] = []
        for client, parcel in parcels:
            sender = self._heard_of(client, parcel.sender)
            self._figures.came(parcel)
            taken = [self._hold(entry, parcel.payload, client, sender.weight) for entry in parcel.entries]
            events += [held.given for held in taken]
            if parcel.number < sender.hurried:
                events.append(Flushed())
            sender.queued += len(taken)
            waiting.append((sender, [held.done for held in taken]))
        self._feed(*events)
        try:
            # One after the other, not gathered: what is settled already costs no turn of the loop.
            answers = [[await outcome for outcome in done] for _, done in waiting]
        finally:
            for sender, done in waiting:
                sender.queued -= len(done)
        now = self._clock.monotonic()
        return [
            {"answers": settled, "window_bytes": self._clients.window(sender, now)}
            for settled, (sender, _) in zip(answers, waiting, strict=True)
        ]

    async def submit(
        self,
        rows: Any,
        run_id: str | None = None,
        *,
        sequence: int | None = None,
        idempotency_key: str | None = None,
        producer_id: str | None = None,
    ) -> dict[str, Any]:
        """Write rows that were sent without a client, and return when they are durable.

        The gate runs here, beside the loop. An outcome that is lost with this actor cannot be looked up
        without an `idempotency_key`, or a `producer_id` and its `sequence`.

        Raises:
            WriterError: as `LogWriter.write_log_rows`.
        """
        started = self._clock.monotonic()
        self._pool.warm_up()
        loop = asyncio.get_running_loop()
        if producer_id is not None:
            check_producer_id(producer_id)
        elif sequence is not None:
            raise WriterValidationError(
                f"sequence is {sequence!r} without a producer_id", suggestions=["give both, or an idempotency_key"]
            )
        own = f"{self._service}-{self._life}" if producer_id is None else producer_id
        identity = identity_of(sequence, idempotency_key, own, expires=producer_id is None)
        gated, batch, findings, gate_secs = await loop.run_in_executor(
            self._direct.thread, self._direct.admit, rows, run_id
        )
        result = {
            "success": True,
            "rows_written": 0,
            "run_id": batch.run_id,
            "batch_id": None,
            "table_fqn": self._log_table,
            "version": None,
            "duration_secs": 0.0,
            "quarantined_rows": 0,
            "quality_results": findings.quality,
            "anomalies": findings.anomalies,
            "already_written": False,
        }
        if gated.given or identity.number is not None:
            content, (shares,) = await loop.run_in_executor(self._direct.thread, pack, [batch], self._quarantine_table)
            entry = Entry(
                identity.producer_id,
                identity.number,
                batch.digest,
                uuid.uuid4().hex[:16],
                assigned=identity.number is None,
                resent=False,
                checked=identity.checked,
                expires=identity.expires,
                patient=False,
                wait_secs=self._config.queue_timeout_secs,
                replaces=replaced_tables(self._config, batch),
                shares=shares,
                gate_secs=gate_secs,
            )
            weight = self._config.weight_of(producer_id)
            answer = await self._take(entry, Payload(inline=content), producer_id or DIRECT, weight)
            if isinstance(answer[-1], WriterError):
                raise answer[-1]
            producer, number, version, already, beside = answer
            result["batch_id"], result["version"], result["already_written"] = f"{producer}:{number}", version, already
            if not already:
                result["rows_written"], result["quarantined_rows"] = gated.accepted, gated.quarantined
            if findings.anomalies is not None:
                self._direct.thread.submit(self._direct.remember, gated)
            if self._direct.router is not None:
                receipt = Receipt(Token(producer, number), version, already, beside)
                result.update(tables_of(self._config, batch, receipt))
        result["duration_secs"] = self._clock.monotonic() - started
        return result

    async def watermark(self, producer_id: str) -> int | None:
        """The producer's highest committed number, read from the log table afresh."""
        table = self._tables.of(self._log_table).table
        marks = await asyncio.get_running_loop().run_in_executor(
            self._thread(self._log_table), table.last_sequence, [producer_id]
        )
        return marks[producer_id].sequence

    async def hurry(self, client: str, producer_id: str | None, parcels: int) -> None:
        """Stage what is collected without waiting for more, and so many parcels of a client when they come."""
        sender = self._heard_of(client, producer_id)
        sender.hurried = max(sender.hurried, parcels)
        self._feed(Flushed())

    async def enter(self, client: str, producer_id: str | None = None) -> dict[str, Any]:
        """Welcome a client: the configuration that it gates with, and its window.

        Args:
            client: its own name for itself.
            producer_id: by which its weight is looked up; None for a random one.
        """
        welcomed = self._heard_of(client, producer_id)
        self._pool.warm_up()
        return {
            "config": self._config,
            "window_bytes": self._clients.window(welcomed, self._clock.monotonic()),
            "version": __version__,
            "offer": await self._listener.offer(),
        }

    async def tell(self, client: str, acks: tuple[Ack, ...]) -> None:
        """Take down the latencies that a client saw and has no parcel for."""
        self._clients.seen(client, self._clock.monotonic())
        self._figures.heard(acks)

    async def leave(self, client: str, acks: tuple[Ack, ...] = ()) -> None:
        """A client goes: its window is the others'."""
        self._clients.gone(client)
        self._figures.heard(acks)

    # ------------------------------------------------------------ what operators call

    async def ping(self) -> dict[str, Any]:
        """Who and where it is."""
        return {
            "pid": os.getpid(),
            "node_id": self._node_id,
            "life": self._life,
            "born": self._born,
            "state": "draining" if self._draining else "ok",
            "memory_bytes": process_memory().own,
            "restarts": self._restarts,
        }

    async def configuration(self) -> WriterConfig:
        """What the service runs with. The first writer starts with this call, which every start makes."""
        self._pool.warm_up()
        return self._config

    async def origins(self) -> dict[str, str]:
        """Option to where its value came from, as far as `Service.start` was told."""
        return self._origins

    async def look(self, *, whole: bool = True) -> dict[str, Any]:
        """Counts, bytes in flight and clients; `whole`: latencies, too, with histograms and tallies as such."""
        machine = self._machine
        counts = {
            **self._figures.counts(),
            "life": self._life,
            "engine": self._config.engine,
            "writer_deaths_total": self._pool.deaths,
            "in_flight_bytes": machine.budget.used,
            "budget_bytes": machine.budget.total,
            "in_flight_batches": machine.in_flight,
            "clients": len(self._clients),
            "memory_bytes": process_memory().own,
        }
        if not whole:
            return counts
        shares = {"client_queues": self._clients.queues(), "client_weights": self._clients.weights()}
        return {**counts, **self._figures.times(), **shares}

    async def commits(self) -> dict[str, int]:
        """Table to commits of this life."""
        return dict(self._figures.commits)

    async def writers(self) -> list[dict[str, Any]]:
        """Each writer's state."""
        return await self._pool.look()

    async def ledger(self) -> dict[str, Any]:
        """What this life has accepted, committed, refused and has in flight for each producer, beside the table's W."""
        producers = {
            identity: {
                "accepted": producer.accepted,
                "committed": producer.committed,
                "refused": producer.refused,
                "quarantined": self._figures.quarantined_of[identity],
                "in_flight": producer.in_flight,
                "believed": stand.committed,
                "known": stand.known,
                "committing": bool(producer.flight),
            }
            for identity, producer in self._machine.producers.items()
            if (stand := producer.stands.get(self._log_table)) is not None
        }
        table = self._tables.of(self._log_table).table
        marks = await asyncio.get_running_loop().run_in_executor(
            self._thread(self._log_table), table.last_sequence, list(producers)
        )
        for identity, entry in producers.items():
            entry["table"] = marks[identity].sequence
        return {"producers": producers, "quarantined_rows": self._figures.quarantined}

    async def drain(self, timeout: float | None = None) -> dict[str, Any]:
        """Take nothing more, and return when everything accepted is settled or time has run out."""
        self._draining = True
        self._feed(Closed())
        if self._machine.in_flight:
            quiet: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._quiet.append(quiet)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(quiet, timeout)
        return {"drained": not self._machine.in_flight, "in_flight_batches": self._machine.in_flight}

    async def retire(self) -> int | None:
        """Stop the writers; the caller kills this actor next. Returns the pid of a Ray that ends with the service."""
        self._pool.stop()
        self._listener.close()
        return self._started_ray

    # ------------------------------------------------------------ the machine

    def _take(self, entry: Entry, payload: Payload, client: str, weight: float) -> asyncio.Future[Any]:
        held = self._hold(entry, payload, client, weight)
        self._feed(held.given)
        return held.done

    def _hold(self, entry: Entry, payload: Payload, client: str, weight: float) -> _Held:
        """Note a batch that the machine is to be told of."""
        ticket = next(self._count)
        parts = [self._part(share, entry.replaces) for share in entry.shares]
        now = self._clock.monotonic()
        given = Submitted(
            ticket,
            entry.producer_id,
            entry.sequence,
            entry.digest,
            entry.stamp,
            tuple(parts),
            WIRE_FACTOR * sum(part.nbytes for part in parts) + 4096,
            assigned=entry.assigned,
            resent=entry.resent,
            checked=entry.checked,
            expires=entry.expires,
            patient=entry.patient,
            wait_until=None if entry.wait_secs is None else now + entry.wait_secs,
            client=client,
            weight=weight,
        )
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        held = self._held[ticket] = _Held(entry, payload, given, done)
        self._began[ticket] = now
        if entry.sequence is not None:
            self._newest[entry.producer_id, entry.sequence] = ticket
        return held

    def _part(self, share: Share, replaces: frozenset[str]) -> Part:
        name = share.table or self._log_table
        return Part(name, share.rows, share.nbytes, name in replaces)

    def _thread(self, table: str) -> ThreadPoolExecutor:
        """The one thread that calls a table."""
        if table not in self._threads:
            self._threads[table] = ThreadPoolExecutor(1, thread_name_prefix=f"commit-{table}")
        return self._threads[table]

    def _feed(self, *events: Event) -> None:
        now = self._clock.monotonic()
        self._figures.retries += sum(isinstance(event, TRIED_AGAIN) for event in events)
        for command in self._machine.handle_all(events, now):
            self._carry_out(command)
        self._set_alarm(now)
        if self._quiet and not self._machine.in_flight:
            waiting, self._quiet = self._quiet, []
            for future in waiting:
                if not future.done():
                    future.set_result(None)

    def _carry_out(self, command: Command) -> None:
        if isinstance(command, Answer):
            self._settle(command)
        elif isinstance(command, Stage):
            self._begin(self._stage(command))
        elif isinstance(command, Commit):
            calls = self._tables.of(command.table)
            producers = [step.producer_id for step in command.group.advances]
            self._begin(self._on_thread(command.table, lambda: calls.commit(command.group), producers))
        elif isinstance(command, ReadWatermarks):
            calls = self._tables.of(command.table)
            self._begin(self._on_thread(command.table, lambda: calls.read(command.producers), None))
        elif isinstance(command, Discard):
            self._thread(command.table).submit(self._tables.of(command.table).discard, command.staged)
        elif isinstance(command, Abandon):
            self._pool.abandon(command.job)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)  # the loop itself holds tasks only weakly
        task.add_done_callback(self._tasks.discard)

    async def _stage(self, command: Stage) -> None:
        began = self._clock.monotonic()
        for ticket, token in command.batches:
            if ticket in self._began:
                self._figures.took("wait", began - self._began[ticket], [command.table], [token.producer_id])
        work: dict[int, tuple[Payload, list[Slice]]] = {}
        used: dict[Token, _Held] = {}
        table = None if command.table == self._log_table else command.table
        for ticket, token in command.batches:
            held = self._holder(ticket, token)
            if held is None:
                continue
            used[token] = held
            share = next(share for share in held.entry.shares if share.table == table)
            slices = work.setdefault(id(held.payload), (held.payload, []))[1]
            slices.append(Slice(token, share.stream, share.offset, share.rows, share.nbytes))
        spec = _staging_spec(self._tables.of(command.table).table)
        event = await self._pool.stage(command.job, spec, list(work.values()))
        if isinstance(event, StagingFailed) and any(
            self._holder(ticket, token) is not used.get(token) for ticket, token in command.batches
        ):
            # Somebody has sent one of them again: the rows of a client that died may have gone with it.
            event = replace(event, worker_died=True)
        producers = dict.fromkeys(token.producer_id for _, token in command.batches)
        self._figures.took("stage", self._clock.monotonic() - began, [command.table], producers)
        self._feed(event)

    async def _on_thread(self, table: str, call: Callable[[], Event], commit_of: Sequence[str] | None) -> None:
        began = self._clock.monotonic()
        event = await asyncio.get_running_loop().run_in_executor(self._thread(table), call)
        if commit_of is not None:
            self._figures.took("commit", self._clock.monotonic() - began, [table], commit_of)
        self._figures.commits[table] += isinstance(event, CommitLanded)
        self._feed(event)
        if isinstance(event, CommitLanded):
            self._thread(table).submit(get_ready, self._tables.of(table).table.spec, to_commit=True)

    def _holder(self, ticket: int, token: Token) -> _Held | None:
        """Who has a batch's rows: whoever sent it last, since those before may be dead, and their rows with them."""
        newest = self._newest.get((token.producer_id, token.sequence), ticket)
        return self._held.get(newest) or self._held.get(ticket)

    def _settle(self, command: Answer) -> None:
        held = self._held.pop(command.ticket)
        entry, answer = held.entry, command.answer
        if entry.sequence is not None and self._newest.get((entry.producer_id, entry.sequence)) == command.ticket:
            del self._newest[entry.producer_id, entry.sequence]
        took = self._clock.monotonic() - self._began.pop(command.ticket)
        self._figures.took("total", took, (), ())  # by table and producer with their rows
        if isinstance(answer, Acknowledged):
            self._figures.acknowledged(entry, answer, took)
            token = answer.token
            outcome: tuple[Any, ...] = (
                token.producer_id, token.sequence, answer.version, answer.already, dict(answer.beside),
            )  # fmt: skip
        else:
            self._figures.refusals += 1
            outcome = (answer.reason.name, answer.expected, self._error(answer, held.given))
        if not held.done.done():
            held.done.set_result(outcome)

    def _error(self, refused: Refused, given: Submitted) -> WriterError:
        if refused.reason is Reason.CLOSED:
            return WriterError(
                f"service {self._service!r} is draining or was stopped, and takes nothing more; nothing of the call is "
                "written",
                suggestions=["start it again, and send the call again with the same sequence or idempotency_key"],
                retriable=True,
            )
        return refusal_error(refused, given, self._limits.budget_bytes)

    def _set_alarm(self, now: float) -> None:
        wake_at = self._machine.wake_at()
        if self._alarm is not None:
            if (
                wake_at is not None
                and abs(self._alarm.when() - asyncio.get_running_loop().time() - (wake_at - now)) < 0.001
            ):
                return
            self._alarm.cancel()
            self._alarm = None
        if wake_at is not None:
            self._alarm = asyncio.get_running_loop().call_later(max(0.0, wake_at - now), self._tick)

    def _tick(self) -> None:
        self._alarm = None
        self._feed(Ticked())

    def _heard_of(self, client: str, producer_id: str | None) -> Client:
        return self._clients.heard_of(client, self._clock.monotonic(), self._config.weight_of(producer_id))


def _staging_spec(table: Table) -> TableSpec:
    """By which a table's rows are staged elsewhere: where Spark writes them once more, it divides them."""
    spec: TableSpec = getattr(table, "staging_spec", table.spec)
    return spec


CoordinatorActor = ray.remote(Coordinator)
