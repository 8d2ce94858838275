"""The commands that start, look at and end a service."""

from __future__ import annotations

import os
import signal
import sys
import threading
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from sfwriter.cli.entry import FAILED, printed
from sfwriter.clock import SystemClock
from sfwriter.config import ENVIRONMENT_PREFIX, WriterConfig
from sfwriter.config_file import read_options
from sfwriter.exceptions import WriterConfigurationError, WriterError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SERVICE_GROUP = "sfwriter.service"
"""Entry points by which the service makes itself known: this package never imports it."""

MIB = 2**20

LOOK_S = 2.0
"""How often a service that is served in the foreground is looked for."""


def loaded(what: str) -> Any:
    """What the service's package offers under this name.

    Raises:
        WriterError: it is not installed, or cannot be loaded.
    """
    found = next(iter(entry_points(group=SERVICE_GROUP, name=what)), None)
    advice = ["install it: pip install 'sfwriter[service]'"]
    try:
        offered = None if found is None else found.load()
    except ImportError as error:
        raise WriterError(f"the service cannot be loaded: {error}", suggestions=advice) from error
    if offered is None:
        raise WriterError("the service is not installed here", suggestions=advice)
    return offered


def serve(
    name: str,
    *,
    config_file: str | None,
    settings: Sequence[str],
    warehouse: str | None,
    drain_timeout: float,
    detach: bool,
    as_json: bool,
) -> int:
    """Start a service, and end it when this process is asked to end."""
    config, origins = configured(config_file, os.environ, settings, warehouse)
    service_class = loaded("service")
    ended = threading.Event()
    runs_already = _runs(service_class, name)
    # A plain SIGTERM would leave what is half started; this unwinds it.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    service = service_class.start(config, name=name, origins=origins)
    if not (detach or runs_already):
        # Not before: Ray takes SIGTERM for itself when a process joins it.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: _asked(ended, number))
    started = {"service": name, "started": not runs_already, "configuration": service.configuration()}
    if as_json:
        print(printed(started), flush=True)
    else:
        word = "runs already" if runs_already else "runs"
        print(f"service {name} {word}: {config.table_fqn} in {config.warehouse}", flush=True)
        for option, entry in started["configuration"].items():
            print(f"  {option} = {entry['value']}  ({entry['origin']})", flush=True)
    if detach or runs_already:
        return 0
    while not ended.wait(LOOK_S):
        if not _runs(service_class, name):
            print(f"sfwriter: service {name} was stopped by somebody else", file=sys.stderr, flush=True)
            return 0
    print(f"sfwriter: draining service {name}, {drain_timeout:g} s at most", file=sys.stderr, flush=True)
    return _stopped(service.stop(drain_timeout), name, as_json=False, quiet=as_json)


def _asked(ended: threading.Event, number: int) -> None:
    if ended.is_set():  # somebody does not want to wait
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    ended.set()


def _runs(service_class: Any, name: str) -> bool:
    """Whether there is such a service; an error where nobody can tell."""
    try:
        service_class.attach(name)
    except WriterConfigurationError:
        raise
    except WriterError as error:
        if error.code in {"unreachable", "unauthenticated"}:
            raise
        return False
    return True


def status(name: str, *, as_json: bool, prometheus: bool) -> int:
    """Print what a service is, and say by the exit code whether it is well."""
    service = loaded("service").attach(name)
    if prometheus:
        print(service.prometheus(), end="")
        return 0
    health = service.health()
    found: dict[str, Any] = {"service": name, **health}
    if health["coordinator"]["state"] != "down":
        # Ledger and table are read one after the other: a commit between the two is no fault, and no second one.
        found["consistent"] = any(service.reconcile()["consistent"] for _ in range(3))
        found["configuration"] = service.configuration()
        found["figures"] = _metrics(service)
    print(printed(found) if as_json else _described(found))
    return 0 if found["status"] == "ok" and found.get("consistent", False) else FAILED


def top(name: str, *, interval: float, once: bool, as_json: bool) -> int:
    """Show figures again and again, until Ctrl-C."""
    service = loaded("service").attach(name)
    console, clock = Console(), SystemClock()
    if as_json or once or not console.is_terminal:
        while True:
            figures = _metrics(service)
            if as_json:
                print(printed(figures), flush=True)
            else:
                console.print(_screen(name, figures))
            if once:
                return 0
            clock.sleep(interval)
    with Live(_screen(name, _metrics(service)), console=console, auto_refresh=False, screen=True) as live:
        while True:
            clock.sleep(interval)
            live.update(_screen(name, _metrics(service)), refresh=True)


def drain(name: str, *, timeout: float | None, as_json: bool) -> int:
    """Have a service take nothing more and settle what it has."""
    said = loaded("service").attach(name).drain(timeout)
    if as_json:
        print(printed(said))
    elif said["drained"]:
        print(f"service {name} is drained: everything it took is settled, and it takes nothing more")
    else:
        print(f"service {name}: {said['in_flight_batches']} batches are not settled yet; it takes nothing more")
    return 0 if said["drained"] else FAILED


def stop(name: str, *, timeout: float | None, as_json: bool) -> int:
    """Drain and end a service; nothing to do is no error."""
    service_class = loaded("service")
    if not _runs(service_class, name):
        said = {"stopped": False, "drained": True, "in_flight_batches": 0}
        print(printed(said) if as_json else f"no service {name} runs")
        return 0
    return _stopped(service_class.attach(name).stop(timeout), name, as_json=as_json)


def _stopped(said: Mapping[str, Any], name: str, *, as_json: bool, quiet: bool = False) -> int:
    if as_json:
        print(printed(said))
    elif not quiet and said["drained"]:
        print(f"service {name} has ended; everything it took is settled")
    if said["drained"]:
        return 0
    left = said["in_flight_batches"]
    print(
        f"sfwriter: service {name} has ended with {'an unknown number of' if left is None else left} batches not "
        "settled; their clients know which, and may send them again",
        file=sys.stderr,
    )
    return FAILED


def configured(
    config_file: str | None, environ: Mapping[str, str], settings: Sequence[str], warehouse: str | None
) -> tuple[WriterConfig, dict[str, str]]:
    """The configuration of a service, and where each option comes from: file, environment, flags, in this order.

    Raises:
        WriterConfigurationError: something is wrong with one of them.
    """
    flags: dict[str, str] = {}
    for setting in settings:
        option, equals, text = setting.partition("=")
        if not equals or option not in WriterConfig.model_fields:
            text = f"--set {setting!r} is not OPTION=VALUE with an option of WriterConfig"
            raise WriterConfigurationError(
                text, problems=[text], suggestions=["e.g. --set compression=zstd"], code="usage"
            )
        flags[option] = text
    if warehouse is not None:
        flags["warehouse"] = warehouse
    # A flag reads as a variable does, and takes its place.
    as_variables = {ENVIRONMENT_PREFIX + option.upper(): text for option, text in flags.items()}
    variables = {**environ, **as_variables}
    config = WriterConfig.from_env(variables) if config_file is None else WriterConfig.from_file(config_file, variables)
    origins = {} if config_file is None else {option: str(config_file) for option in read_options(config_file)}
    for option in WriterConfig.model_fields:
        variable = ENVIRONMENT_PREFIX + option.upper()
        if option in flags:
            origins[option] = "flag"
        elif variable in environ:
            origins[option] = variable
    return config, origins


# ---------------------------------------------------------------- what is printed


def _metrics(service: Any) -> dict[str, Any]:
    try:
        found: dict[str, Any] = service.metrics()
    except WriterError:
        found = {}
    return found


def _described(found: Mapping[str, Any]) -> str:
    lines = [f"service {found['service']}: {found['status']}", *(f"  {reason}" for reason in found["reasons"])]
    roles = [role for role in ("coordinator", "metrics", "maintenance", "spark") if role in found]
    actors = {**{role: found[role] for role in roles}, **{writer["name"]: writer for writer in found["writers"]}}
    figures = found.get("figures", {})
    memory = figures.get("actor_memory_bytes", {})
    for name, actor in actors.items():
        nbytes = memory.get(name)
        size = "" if nbytes is None else f"  {nbytes / MIB:,.0f} MiB"
        lines.append(f"  {name:<24} {actor['state']:<10} pid {actor['pid']}{size}")
    if "consistent" in found:
        lines.append(f"  ledger and table {'agree' if found['consistent'] else 'DO NOT AGREE'}")
    if figures:
        lines.append(
            f"  {figures['rows_total']:,} rows in {figures['batches_total']:,} batches and "
            f"{figures['commits_total']:,} commits; {figures['in_flight_batches']:,} batches in flight"
        )
    for option, entry in found.get("configuration", {}).items():
        lines.append(f"  {option} = {entry['value']}  ({entry['origin']})")
    return "\n".join(lines)


def _screen(name: str, figures: Mapping[str, Any]) -> Any:
    if not figures:
        return f"service {name}: the metrics actor does not answer"
    rates = Table("", "rows", "batches", "commits", "MiB", box=None, title=f"service {name}", title_justify="left")
    for label, ending, form in (("each second", "_per_sec", ",.1f"), ("in all", "_total", ",")):
        counts = [format(figures[f"{what}{ending}"], form) for what in ("rows", "batches", "commits")]
        rates.add_row(label, *counts, f"{figures[f'bytes{ending}'] / MIB:,.1f}")
    latencies = Table("ms", "p50", "p95", "p99", box=None)
    for stage, found in figures["latency_secs"].items():
        latencies.add_row(stage, *(f"{found[p] * 1000:,.1f}" for p in ("p50", "p95", "p99")))
    budget = Table.grid(padding=(0, 1))
    used, total = figures["in_flight_bytes"], figures["budget_bytes"]
    budget.add_row(
        "in flight", ProgressBar(total=total, completed=used, width=30),
        f"{used / MIB:,.0f} of {total / MIB:,.0f} MiB, {figures['in_flight_batches']:,} batches, "
        f"{figures['clients']} clients",
    )  # fmt: skip
    memory = Table("actor", "MiB", box=None)
    for actor, nbytes in figures["actor_memory_bytes"].items():
        memory.add_row(actor, "-" if nbytes is None else f"{nbytes / MIB:,.0f}")
    care = figures.get("maintenance") or {}
    job = care.get("running")
    doing = "maintenance: idle" if job is None else f"maintenance: {job['table']}: {job['step']}"
    return Group(rates, latencies, budget, memory, doing)
