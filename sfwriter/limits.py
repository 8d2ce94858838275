"""How much memory this process may use, and how much it does.

Neither psutil nor Ray reads the limit of a nested control group: the group of the process may have
none while one of its ancestors has. So the tree is walked up to its root.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

import psutil

V1_UNLIMITED = 1 << 62
"""Version 1 says "no limit" with a number just below 2**63, rounded down to a page."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Memory of one process, in bytes.

    Attributes:
        rss: resident.
        vms: virtual.
        own: what would be freed if it ended: USS, or resident less shared where that is not known.
            Pages of a shared object store count in `rss` and not here.
    """

    rss: int
    vms: int
    own: int


def usable_memory_bytes(root: Path = Path("/")) -> int:
    """Bytes that this process may use: the machine's RAM, or the lowest limit of its control groups.

    The limit files are looked for once and read at each call, as limits may change while it runs.

    Args:
        root: where `proc` and `sys` are; another folder in tests.
    """
    limits = (_limit(path) for path in _limit_files(root))
    return min([_ram(root), *(limit for limit in limits if limit is not None)])


def process_memory(pid: int | None = None) -> Usage:
    """Memory of a process, by default this one."""
    process = psutil.Process(pid)
    basic = process.memory_info()
    try:
        own = int(process.memory_full_info().uss)
    except (psutil.AccessDenied, AttributeError):
        own = int(basic.rss) - int(getattr(basic, "shared", 0))
    return Usage(rss=int(basic.rss), vms=int(basic.vms), own=own)


@lru_cache(maxsize=16)
def _limit_files(root: Path) -> tuple[Path, ...]:
    """The limit files of this process's control groups and of all their ancestors."""
    mounts = _mounts(root)
    files: list[Path] = []
    for hierarchy, controllers, group in _groups(root):
        if hierarchy == "0" and "cgroup2" in mounts:
            files += _upward(*mounts["cgroup2"], group, "memory.max", root)
        elif "memory" in controllers.split(",") and "cgroup" in mounts:
            files += _upward(*mounts["cgroup"], group, "memory.limit_in_bytes", root)
    return tuple(files)


def _upward(mount: PurePosixPath, mounted: PurePosixPath, group: str, name: str, root: Path) -> list[Path]:
    """The files `name` from the group up to the root of the mount, which shows the tree below `mounted`."""
    path = PurePosixPath(group)
    # Inside a container the process's group may lie outside of what is mounted: then only the mount's root is seen.
    inside = path.relative_to(mounted) if path.is_relative_to(mounted) else PurePosixPath()
    base = root / mount.relative_to("/")
    folders = [base / step for step in (inside, *inside.parents)]
    return [folder / name for folder in folders if (folder / name).is_file()]


def _groups(root: Path) -> list[tuple[str, str, str]]:
    """Lines `hierarchy:controllers:path` of this process."""
    parts = (line.split(":", 2) for line in _lines(root / "proc/self/cgroup"))
    return [(entry[0], entry[1], entry[2]) for entry in parts if len(entry) == 3]


def _mounts(root: Path) -> dict[str, tuple[PurePosixPath, PurePosixPath]]:
    """Kind of hierarchy (`cgroup2`, `cgroup` with the memory controller) to mount point and mounted path."""
    found: dict[str, tuple[PurePosixPath, PurePosixPath]] = {}
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        kind, *_, options = after.split(" ") if after else ("", "")
        fields = before.split(" ")
        if len(fields) < 5 or kind not in {"cgroup", "cgroup2"}:
            continue
        if kind == "cgroup2" or "memory" in options.split(","):
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


def _limit(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    if not text.isdigit() or int(text) >= V1_UNLIMITED:
        return None  # "max"
    return int(text)


def _ram(root: Path) -> int:
    for line in _lines(root / "proc/meminfo"):
        name, _, rest = line.partition(":")
        if name == "MemTotal" and rest.split()[:1]:
            return int(rest.split()[0]) << 10
    return int(psutil.virtual_memory().total)
