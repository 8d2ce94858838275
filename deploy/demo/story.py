"""The demo's acts, in their order."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import psutil

from actors import Service
from deploy.demo import proof
from deploy.demo.backfill import Backfill, BackfillError, generate
from deploy.demo.crew import Crew, PipelineError
from deploy.demo.findings import find
from deploy.demo.packages import dealt, installed
from deploy.demo.processes import RayError
from sfwriter import WriterConfig

if TYPE_CHECKING:
    from argparse import Namespace
    from pathlib import Path

    from deploy.demo.place import Place
    from deploy.demo.processes import Household
    from deploy.demo.proof import Proof
    from deploy.demo.show import Bars, Show

SERVICE = "demo"
SCHEMA = "logs"
RUNS = "pipeline_runs"
BACKFILLED = "backfilled"
KILL_AT = 0.4
"""Share of the work after which the writer is killed, and the backfill."""

KILL_AT_LAST = 0.7
"""Share after which the writer is killed though nothing is acknowledged yet: on a machine that is very busy."""

TRIES_TO_CATCH = 60
"""Looks for a writer that is just staging; then any one is killed."""

DRAIN_S = 30.0
MIB = 1 << 20


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


class Demo:
    """One telling of the story."""

    def __init__(self, options: Namespace, place: Place, household: Household, show: Show) -> None:
        """Begin with nothing told.

        Args:
            options: of the command line.
            place: the folder that takes everything.
            household: starts the processes.
            show: tells.
        """
        self._options = options
        self._folder: Path = place.folder
        self._moved_to = place.moved_to
        self._household = household
        self._show = show
        self._runs = self._folder / SCHEMA / RUNS
        self._began = time.monotonic()
        self._good = True

    def play(self) -> bool:
        """All acts; returns whether everything that was claimed is so.

        Raises:
            DemoError: a part of it could not be done.
        """
        self._show.console.print(f"[bold]sfwriter demo[/bold]  tables go to {self._shown(self._folder)}")
        if self._moved_to is not None:
            self._show.say(f"the tables of the demo before are in {self._shown(self._moved_to)} now")
        try:
            runs = self._pipelines()
            backfilled = self._backfill()
        except (BackfillError, PipelineError, RayError) as error:
            raise DemoError(str(error)) from error
        self._findings()
        self._prove(runs, backfilled)
        return self._good

    # ------------------------------------------------------------ the pipelines

    def _pipelines(self) -> Path:
        """Returns the ledger's folder."""
        options, show = self._options, self._show
        packages = installed(options.files)[: options.packages]
        files = sum(len(package.files) for package in packages)
        hands = dealt(packages, min(options.pipelines, len(packages)))
        show.section(
            f"1  {len(packages)} pipelines over {files:,} files of the installed packages, {len(hands)} processes"
        )
        began = time.monotonic()
        self._household.start_ray()
        config = WriterConfig(
            warehouse=self._folder, table_schema=SCHEMA, table_name=RUNS, parallel_write_threads=2, memory_fraction=0.1
        )
        service = Service.start(config, name=SERVICE)
        show.say(f"service up after {time.monotonic() - began:.1f} s, in a Ray of its own")
        began = time.monotonic()
        crew = Crew(self._household, self._folder, SERVICE, hands)
        totals = {f"process {number}": sum(len(p.files) for p in hand) for number, hand in enumerate(hands)}
        with show.bars(totals, "files").drawn() as bars:
            at_kill = self._work(service, crew, bars, files)
        self._tell_of_work(service, crew, at_kill, time.monotonic() - began)
        self._end_service(service)
        return crew.ledger

    def _work(self, service: Service, crew: Crew, bars: Bars, files: int) -> int:
        """Listen until all is done, and kill a writer on the way. Returns rows acknowledged before that."""
        done, at_kill = 0, -1
        while crew.running:
            heard = crew.listen(0.5)
            if heard is None or heard[1]["event"] != "gave":
                continue
            number, event = heard
            bars.advance(f"process {number}", event["files"])
            done += event["files"]
            acknowledged = sum(crew.acknowledged)
            # Early enough that load goes on behind it, late enough that the first commits are there.
            if at_kill < 0 and done >= (KILL_AT if acknowledged else KILL_AT_LAST) * files:
                at_kill = acknowledged
                self._kill_writer(service, at_kill)
        return at_kill

    def _kill_writer(self, service: Service, acknowledged: int) -> None:
        """SIGKILL a writer actor's process, one that is staging where one can be caught at it."""
        ours = {process.pid for process in self._household.members()}
        writer: dict[str, Any] | None = None
        for _ in range(TRIES_TO_CATCH):
            self._household.check()
            writers = [entry for entry in service.health()["writers"] if entry["pid"] in ours]
            writer = next(
                (entry for entry in writers if entry["state"] == "staging"), writers[0] if writers else writer
            )
            if writer is not None and writer["state"] == "staging":
                break
        if writer is None:
            self._fail("no writer process was found to be killed")
            return
        os.kill(writer["pid"], signal.SIGKILL)
        psutil.wait_procs([p for p in self._household.members() if p.pid == writer["pid"]], timeout=2)
        doing = "while it staged" if writer["state"] == "staging" else "while it waited"
        self._show.done_to(
            f"SIGKILL to {writer['name']} (pid {writer['pid']}) {doing}; {acknowledged:,} rows acknowledged so far"
        )

    def _tell_of_work(self, service: Service, crew: Crew, at_kill: int, seconds: float) -> None:
        given, acknowledged = sum(crew.given), sum(crew.acknowledged)
        self._show.good(f"the pipelines went on: {acknowledged - at_kill:,} more rows acknowledged after the kill")
        health, figures = service.health(), service.metrics()
        writers = ", ".join(f"{entry['name']} (pid {entry['pid']})" for entry in health["writers"])
        state = "; ".join([f"service is {health['status']}", *health["reasons"]])
        self._show.say(f"{state}; writers now: {writers or 'none'}")
        pace = f"{acknowledged / seconds:,.0f} rows/s, at the pace of the parsing"
        self._show.say(f"{acknowledged:,} of {given:,} rows acknowledged in {seconds:.1f} s ({pace})")
        median = figures["latency_secs"]["total"]["p50"]
        self._show.say(
            f"{figures['batches_total']:,} batches in {figures['commits_total']:,} commits; "
            f"a batch was durable {median:.2f} s after it had come (median)"
        )
        if acknowledged != given:
            self._fail(f"{given - acknowledged:,} rows were given and not acknowledged")

    def _end_service(self, service: Service) -> None:
        drained = service.drain(DRAIN_S)
        reconciled = service.reconcile()
        producers = len(reconciled["producers"])
        if drained["drained"] and reconciled["consistent"]:
            self._show.good(
                f"drained; reconcile(): accepted = committed + refused + in flight for {producers} producers"
            )
        else:
            self._fail(f"the service does not reconcile: {drained}, {reconciled}")
        service.stop(DRAIN_S)
        self._household.stop_ray()

    # ------------------------------------------------------------ the backfill

    def _backfill(self) -> list[Path]:
        """Returns the source files."""
        rows, show = self._options.rows, self._show
        show.section(f"2  A backfill of {rows:,} rows by the command line, killed and started again")
        source = self._folder / "source"
        began = time.monotonic()
        paths = generate(source, rows)
        size = sum(path.stat().st_size for path in paths) / MIB
        show.say(
            f"{rows:,} rows generated into {len(paths)} Parquet files, {size:.0f} MiB, {time.monotonic() - began:.1f} s"
        )
        backfill = Backfill(
            self._household, self._folder, source, f"{SCHEMA}.{BACKFILLED}", self._folder / "backfill.log"
        )
        with show.bars({"backfill": rows}, "rows").drawn() as bars:
            first = backfill.run(lambda done: bars.at("backfill", done), kill_at=max(1, int(KILL_AT * rows)))
            if first.killed:
                show.done_to(f"SIGKILL after {first.seconds:.1f} s; {first.committed:,} rows are committed")
            second = backfill.run(lambda done: bars.at("backfill", done))
        said = second.said
        if not first.killed:
            show.say("the first run was done before it could be killed")
        show.good(
            f"the same command again: {said['already_written']:,} rows were there, {said['rows_written']:,} written "
            f"in {said['duration_secs']:.1f} s ({said['rows_per_sec']:,.0f} rows/s)"
        )
        if said["already_written"] + said["rows_written"] != rows:
            self._fail(f"the command counts {said['already_written'] + said['rows_written']:,} rows")
        return paths

    # ------------------------------------------------------------ what came of it

    def _findings(self) -> None:
        found, show = find(proof.live_files(self._runs)), self._show
        show.section("3  What the pipelines did, asked from the table")
        show.table(("phase", "steps", "failed", "rows processed", "seconds"), found.phases)
        show.console.print()
        show.table(("longest pipelines", "steps", "failed", "seconds"), found.pipelines)
        show.console.print()
        show.table(("slowest steps", "pipeline", "seconds"), found.slowest)
        if found.errors:
            show.console.print()
            show.table(("failures", "times", "for example"), found.errors)

    def _prove(self, ledger: Path, sources: list[Path]) -> None:
        show = self._show
        show.section("4  The proof: files from the Delta log's JSON, rows counted by DuckDB")
        runs = proof.prove_given(self._runs, ledger)
        backfilled = proof.prove_backfilled(self._folder / SCHEMA / BACKFILLED, sources)
        proofs = {f"{SCHEMA}.{RUNS}": runs, f"{SCHEMA}.{BACKFILLED}": backfilled}
        show.table(
            ("table", "given", "in the table", "missing", "too many", "twice", "files", "commits", "MiB"),
            [
                (name, p.given, p.held, p.missing, p.surplus, p.doubled, len(p.live.paths), p.live.commits,
                 p.live.size_bytes / MIB)
                for name, p in proofs.items()
            ],
        )  # fmt: skip
        show.say(
            "given: by the pipelines' own ledger, and in the backfill's source files; every (run_id, step_name) counted"
        )
        for name, one in proofs.items():
            self._judge(name, one)
        acknowledged = proof.acknowledged_rows(ledger)
        if acknowledged != runs.given:
            self._fail(f"the ledger has {acknowledged:,} rows acknowledged of {runs.given:,} given")
        if backfilled.differing == ():
            show.good("backfill: the content of every column is that of the source")
        self._last_word(runs.held + backfilled.held)

    def _judge(self, name: str, one: Proof) -> None:
        if one.holds:
            self._show.good(f"{name}: every row that was given is there, once")
            return
        self._fail(f"{name}: the table is NOT what was given")
        for example in one.examples:
            self._show.say(example)
        if one.differing:
            self._show.say(f"other content in {', '.join(one.differing)}")
        if one.held != one.live.log_rows:
            self._show.say(f"the log's statistics say {one.live.log_rows:,} rows")

    def _last_word(self, rows: int) -> None:
        show, seconds = self._show, time.monotonic() - self._began
        if not self._good:
            show.verdict("THE PROOF FAILED: the lines with ✗ say what is wrong", good=False)
            return
        show.verdict(f"{rows:,} rows given, {rows:,} rows there, each once. {seconds:.0f} s.", good=True)
        folder = self._shown(self._folder)
        table = f"{folder}/{SCHEMA}/{RUNS}"
        show.console.print("\nTry next:")
        show.command(f"SFWRITER_WAREHOUSE={folder} .venv/bin/sfwriter info --table {SCHEMA}.{RUNS}")
        show.command(
            f"SFWRITER_WAREHOUSE={folder} .venv/bin/sfwriter backfill {folder}/source --table {SCHEMA}.{BACKFILLED}"
        )
        show.command(
            f""".venv/bin/python -c "import polars as pl; print(pl.scan_delta('{table}')"""
            """.group_by('phase', 'success').agg(pl.len(), pl.sum('duration_secs')).collect())\""""
        )
        show.say("README.md says how to write your own pipelines' rows.")

    # ------------------------------------------------------------ small things

    def _fail(self, text: str) -> None:
        self._good = False
        self._show.bad(text)

    def _shown(self, path: Path) -> str:
        project = self._household.project
        return str(path.relative_to(project) if path.is_relative_to(project) else path)
