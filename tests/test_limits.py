from __future__ import annotations

from typing import TYPE_CHECKING

import psutil
import pytest

from sfwriter.limits import available_memory_bytes, process_memory, usable_memory_bytes

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
V1_NO_LIMIT = (1 << 63) - 4096


class Machine:
    """A fake `/proc` and `/sys` in a folder."""

    def __init__(self, root: Path, *, ram_mib: int = 16_000, free_mib: int = 8_000) -> None:
        self.root = root
        self.write(
            "proc/meminfo", f"MemTotal: {ram_mib * 1024} kB\nMemFree: 1 kB\nMemAvailable: {free_mib * 1024} kB\n"
        )

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def v2(self, group: str, *, mounted: str = "/") -> None:
        self.write("proc/self/cgroup", f"0::{group}\n")
        self.write("proc/self/mountinfo", f"30 20 0:26 {mounted} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n")

    def v1(self, group: str, *, mounted: str = "/") -> None:
        self.write("proc/self/cgroup", f"5:cpu,cpuacct:/other\n4:memory:{group}\n1:name=systemd:/\n")
        lines = [
            "31 20 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct",
            f"32 20 0:28 {mounted} /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory",
        ]
        self.write("proc/self/mountinfo", "\n".join(lines))


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_without_control_groups_the_ram_is_the_limit(machine):
    assert usable_memory_bytes(machine.root) == 16_000 * MIB
    assert available_memory_bytes(machine.root) == 8_000 * MIB


def test_a_limit_of_an_ancestor_counts_where_the_own_group_has_none(machine):
    machine.v2("/kubepods/pod1/container")
    machine.write("sys/fs/cgroup/kubepods/pod1/container/memory.max", "max\n")
    machine.write("sys/fs/cgroup/kubepods/pod1/memory.max", f"{512 * MIB}\n")
    machine.write("sys/fs/cgroup/kubepods/memory.max", f"{4096 * MIB}\n")
    assert usable_memory_bytes(machine.root) == 512 * MIB


def test_the_lowest_limit_on_the_way_up_counts(machine):
    machine.v2("/a/b")
    machine.write("sys/fs/cgroup/a/b/memory.max", f"{900 * MIB}")
    machine.write("sys/fs/cgroup/a/memory.max", f"{700 * MIB}")
    assert usable_memory_bytes(machine.root) == 700 * MIB


def test_a_limit_above_the_ram_is_the_ram(machine):
    machine.v2("/a")
    machine.write("sys/fs/cgroup/a/memory.max", f"{64_000 * MIB}")
    assert usable_memory_bytes(machine.root) == 16_000 * MIB


def test_a_limit_that_changes_is_seen(machine):
    machine.v2("/a")
    machine.write("sys/fs/cgroup/a/memory.max", f"{900 * MIB}")
    assert usable_memory_bytes(machine.root) == 900 * MIB
    machine.write("sys/fs/cgroup/a/memory.max", f"{300 * MIB}")
    assert usable_memory_bytes(machine.root) == 300 * MIB


def test_inside_a_container_the_mount_s_own_root_counts(machine):
    machine.v2("/", mounted="/")
    machine.write("sys/fs/cgroup/memory.max", f"{256 * MIB}")
    assert usable_memory_bytes(machine.root) == 256 * MIB


def test_a_group_outside_of_what_is_mounted_falls_back_to_the_mount_s_root(machine):
    machine.v1("/docker/abc/nested", mounted="/elsewhere")
    machine.write("sys/fs/cgroup/memory/memory.limit_in_bytes", f"{128 * MIB}")
    assert usable_memory_bytes(machine.root) == 128 * MIB


def test_a_mount_that_shows_a_subtree_is_walked_from_the_group_below_it(machine):
    machine.v1("/docker/abc/nested", mounted="/docker/abc")
    machine.write("sys/fs/cgroup/memory/memory.limit_in_bytes", f"{V1_NO_LIMIT}")
    machine.write("sys/fs/cgroup/memory/nested/memory.limit_in_bytes", f"{64 * MIB}")
    assert usable_memory_bytes(machine.root) == 64 * MIB


def test_version_one_s_word_for_no_limit_is_none(machine):
    machine.v1("/a")
    machine.write("sys/fs/cgroup/memory/a/memory.limit_in_bytes", f"{V1_NO_LIMIT}")
    assert usable_memory_bytes(machine.root) == 16_000 * MIB


def test_both_versions_at_once_are_both_read(machine):
    machine.write("proc/self/cgroup", "4:memory:/a\n0::/b\n")
    machine.write(
        "proc/self/mountinfo",
        "32 20 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
        "33 20 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
    )
    machine.write("sys/fs/cgroup/memory/a/memory.limit_in_bytes", f"{800 * MIB}")
    machine.write("sys/fs/cgroup/unified/b/memory.max", f"{600 * MIB}")
    assert usable_memory_bytes(machine.root) == 600 * MIB


@pytest.mark.parametrize("text", ["", "lots", "-1", "12 MB", "\u0663"])
def test_a_limit_that_is_no_number_is_none(machine, text):
    machine.v2("/a")
    machine.write("sys/fs/cgroup/a/memory.max", text)
    assert usable_memory_bytes(machine.root) == 16_000 * MIB


def test_broken_tables_of_mounts_and_groups_are_passed_over(machine):
    machine.write("proc/self/cgroup", "nonsense\n\n0::/a\n")
    machine.write(
        "proc/self/mountinfo", "\nshort line\n1 2 3 - cgroup2\n30 20 0:26 / /sys/fs/cg\\040x rw - cgroup2 c rw\n"
    )
    machine.write("sys/fs/cg x/a/memory.max", f"{77 * MIB}")
    assert usable_memory_bytes(machine.root) == 77 * MIB


def test_what_is_available_is_what_the_tightest_group_leaves_and_could_reclaim(machine):
    machine.v2("/a/b")
    machine.write("sys/fs/cgroup/a/memory.max", f"{1000 * MIB}")
    machine.write("sys/fs/cgroup/a/memory.current", f"{900 * MIB}")
    machine.write("sys/fs/cgroup/a/memory.stat", f"anon 1\ninactive_file {300 * MIB}\n")
    machine.write("sys/fs/cgroup/a/b/memory.max", "max")
    machine.write("sys/fs/cgroup/a/b/memory.current", f"{900 * MIB}")
    assert available_memory_bytes(machine.root) == 400 * MIB


def test_a_group_beyond_its_limit_leaves_nothing(machine):
    machine.v1("/a")
    machine.write("sys/fs/cgroup/memory/a/memory.limit_in_bytes", f"{10 * MIB}")
    machine.write("sys/fs/cgroup/memory/a/memory.usage_in_bytes", f"{11 * MIB}")
    assert available_memory_bytes(machine.root) == 0


def test_a_machine_that_tells_nothing_is_asked_through_psutil(tmp_path):
    assert usable_memory_bytes(tmp_path) == psutil.virtual_memory().total
    told = process_memory(tmp_path)
    asked = psutil.Process().memory_info()
    assert told.rss == pytest.approx(asked.rss, rel=0.2)
    assert told.vms == pytest.approx(asked.vms, rel=0.2)


def test_proc_tells_what_psutil_tells():
    told, asked = process_memory(), psutil.Process().memory_info()
    assert told.rss == pytest.approx(asked.rss, rel=0.2)
    assert told.vms == pytest.approx(asked.vms, rel=0.2)
    assert told.rss - told.own == pytest.approx(asked.shared, rel=0.2)


def test_this_process_uses_less_than_it_may():
    memory = process_memory()
    assert 0 < memory.own <= memory.rss <= memory.vms
    assert memory.rss < usable_memory_bytes() <= psutil.virtual_memory().total
    assert 0 < memory.available <= usable_memory_bytes()
