"""How much memory this process may use, and how much it does.

Neither psutil nor Ray reads the limit of a nested control group: the group of the process may have
none while one of its ancestors has. So the tree is walked up to its root.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

V1_UNLIMITED = 1 << 62
"""Version 1 says "no limit" with a number just below 2**63, rounded down to a page."""


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """Memory of this process, in bytes.

    Attributes:
        rss: resident.
        vms: virtual.
        own: resident less shared: pages of a shared object store count in `rss`, not here.
        available: what it could still get from the machine and its control groups.
    """

    rss: int
    vms: int
    own: int
    available: int


@dataclass(frozen=True, slots=True)
class _Files:
    """Names of a control group's files, by the hierarchy's version."""

    limit: str
    used: str
    reclaimable: str
    """Key in `memory.stat` of the page cache that goes when memory is asked for."""


_V1 = _Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = _Files("memory.max", "memory.current", "inactive_file")


def usable_memory_bytes(root: Path = Path("/")) -> int:
    """Bytes that this process may use: the machine's RAM, or the lowest limit of its control groups.

    The groups are looked for once; their limits are read at each call, as they may change while it runs.

    Args:
        root: where `proc` and `sys` are; another folder in tests.
    """
    limits = (_number(folder / files.limit) for folder, files in _folders(root))
    return min([_ram(root, "MemTotal"), *(limit for limit in limits if limit is not None)])


def available_memory_bytes(root: Path = Path("/")) -> int:
    """Bytes that this process could still get: what the machine has free, or the tightest group leaves."""
    free = [_ram(root, "MemAvailable")]
    for folder, files in _folders(root):
        limit, used = _number(folder / files.limit), _number(folder / files.used)
        if limit is not None and used is not None:
            free.append(limit - used + _stat(folder, files.reclaimable))
    return max(0, min(free))


def process_memory(root: Path = Path("/")) -> ProcessMemory:
    """Memory of this process. About half a millisecond: USS, which needs a walk over all pages, is not asked for.

    Args:
        root: where `proc` and `sys` are; another folder in tests.
    """
    vms, rss, shared = _sizes(root)
    return ProcessMemory(rss=rss, vms=vms, own=rss - shared, available=available_memory_bytes(root))


def resident_bytes(root: Path = Path("/")) -> int:
    """Resident bytes of this process: one look into /proc, 20 µs."""
    return _sizes(root)[1]


def _sizes(root: Path) -> tuple[int, int, int]:
    """Virtual, resident and shared bytes of this process."""
    pages = "".join(_lines(root / "proc/self/statm")).split()[:3]
    if len(pages) == 3:
        size = os.sysconf("SC_PAGE_SIZE")
        return int(pages[0]) * size, int(pages[1]) * size, int(pages[2]) * size
    # Imported where /proc does not tell: it takes a tenth of a writer's start.
    import psutil

    memory = psutil.Process().memory_info()
    return int(memory.vms), int(memory.rss), int(getattr(memory, "shared", 0))


@lru_cache(maxsize=16)
def _folders(root: Path) -> tuple[tuple[Path, _Files], ...]:
    """This process's control groups that have a limit file, and all their ancestors that have one."""
    mounts = _mounts(root)
    found: list[tuple[Path, _Files]] = []
    for hierarchy, controllers, group in _groups(root):
        if hierarchy == "0" and "cgroup2" in mounts:
            found += [(folder, _V2) for folder in _upward(*mounts["cgroup2"], group, root)]
        elif "memory" in controllers.split(",") and "cgroup" in mounts:
            found += [(folder, _V1) for folder in _upward(*mounts["cgroup"], group, root)]
    return tuple((folder, files) for folder, files in found if (folder / files.limit).is_file())


def _upward(mount: PurePosixPath, mounted: PurePosixPath, group: str, root: Path) -> list[Path]:
    """Folders from the group up to the root of the mount, which shows the tree below `mounted`."""
    path = PurePosixPath(group)
    # Inside a container the process's group may lie outside of what is mounted: then only the mount's root is seen.
    inside = path.relative_to(mounted) if path.is_relative_to(mounted) else PurePosixPath()
    base = root / mount.relative_to("/")
    return [base / step for step in (inside, *inside.parents)]


def _groups(root: Path) -> list[tuple[str, str, str]]:
    """Lines `hierarchy:controllers:path` of this process."""
    parts = (line.split(":", 2) for line in _lines(root / "proc/self/cgroup"))
    return [(entry[0], entry[1], entry[2]) for entry in parts if len(entry) == 3]


def _mounts(root: Path) -> dict[str, tuple[PurePosixPath, PurePosixPath]]:
    """Kind of hierarchy (`cgroup2`, `cgroup` with the memory controller) to mount point and mounted path."""
    found: dict[str, tuple[PurePosixPath, PurePosixPath]] = {}
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields, (kind, *rest) = before.split(" "), after.split(" ")
        if len(fields) < 5 or not rest:
            continue
        if kind == "cgroup2" or (kind == "cgroup" and "memory" in rest[-1].split(",")):
            found.setdefault(kind, (PurePosixPath(_unescaped(fields[4])), PurePosixPath(_unescaped(fields[3]))))
    return found


def _unescaped(field: str) -> str:
    """A path of mountinfo: the kernel writes blanks and backslashes as three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []  # not Linux, or hidden


def _number(path: Path) -> int | None:
    """The file's number; None for "max", for version 1's word for it, and where there is none."""
    text = "".join(_lines(path)).strip()
    if not re.fullmatch("[0-9]+", text) or int(text) >= V1_UNLIMITED:
        return None
    return int(text)


def _stat(folder: Path, key: str) -> int:
    for line in _lines(folder / "memory.stat"):
        name, _, value = line.partition(" ")
        if name == key and value.isdigit():
            return int(value)
    return 0


def _ram(root: Path, key: str) -> int:
    for line in _lines(root / "proc/meminfo"):
        name, _, rest = line.partition(":")
        if name == key and rest.split()[:1]:
            return int(rest.split()[0]) << 10
    # Imported where /proc does not tell: it takes a tenth of a writer's start.
    import psutil

    memory = psutil.virtual_memory()
    return int(memory.total if key == "MemTotal" else memory.available)
