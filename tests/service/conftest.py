"""One Ray for all tests of the service."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

import pytest
import ray

from actors import Service
from actors.cluster import use_token
from sfwriter import WriterConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_NUMBERS = itertools.count()


def _start_ray(tries: int = 3) -> None:
    """Ray allows itself 30 s to start, which a busy machine may not give it the first time."""
    try:
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=200 << 20,
            log_to_driver=False,
            configure_logging=False,
        )
    except Exception:
        ray.shutdown()
        if tries == 1:
            raise
        _start_ray(tries - 1)


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """Address of the session's Ray, which this process and (through the environment) its children use."""
    use_token(make=True)
    _start_ray()
    address = ray.get_runtime_context().gcs_address
    before = os.environ.get("RAY_ADDRESS")
    os.environ["RAY_ADDRESS"] = address
    yield address
    if before is None:
        del os.environ["RAY_ADDRESS"]
    else:
        os.environ["RAY_ADDRESS"] = before
    ray.shutdown()


@pytest.fixture
def start(ray_address: str, tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Start services with a warehouse and a name of their own; they are stopped at the end of the test."""
    services: list[Service] = []

    def start_service(**options: object) -> Service:
        config = WriterConfig(**{"warehouse": str(tmp_path / "warehouse"), "memory_fraction": 0.02, **options})
        service = Service.start(config, name=f"t{os.getpid()}-{next(_NUMBERS)}")
        services.append(service)
        return service

    yield start_service
    for service in services:
        service.stop()
