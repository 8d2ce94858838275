"""The simulator is a check that can fail: each of these mistakes in the core is found by it.

A mutant is one edit of the core's source. It lives in a copy of the package, and the simulator runs over
that copy in a process of its own. An edit that no longer applies fails the test, so that it is not
forgotten when the code changes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sfwriter

STEPS = 40_000
"""Most are found within 2,000 steps; an unharmed core is not stopped by 5,000,000."""

MUTANTS = {
    "skip the look at the table after a doubt": (
        "committing.py",
        "                piece.stand.known = False\n                self._core.want(piece.stand)\n",
        "                piece.stand.known = False\n",
    ),
    "count one number too many": (
        "producers.py",
        "        self.committed = step.upto\n",
        "        self.committed = step.upto + 1\n",
    ),
    "acknowledge before the commit has landed": (
        "committing.py",
        "        core.out.append(Commit(lane.table, plan.group))\n",
        (
            "        core.out.append(Commit(lane.table, plan.group))\n"
            "        for job in jobs:\n"
            "            for piece in job.pieces:\n"
            "                piece.stand.land(piece)\n"
            "                core.land(piece, 1, already=False)\n"
        ),
    ),
    "take a conflict for a commit that has landed": (
        "committing.py",
        '        """Look at the table and plan anew."""\n',
        (
            '        """Look at the table and plan anew."""\n'
            '        return self.landed(type("Landed", (), {"group_id": event.group_id, "version": 1})())\n'
        ),
    ),
    "take a doubt for a commit that has landed": (
        "committing.py",
        '        """Look at the table before anything else is done with those producers."""\n',
        (
            '        """Look at the table before anything else is done with those producers."""\n'
            '        return self.landed(type("Landed", (), {"group_id": event.group_id, "version": 1})())\n'
        ),
    ),
    "let a number leave a gap": (
        "admission.py",
        "        if number == expected:\n",
        "        if number >= expected:\n",
    ),
    "forget to give memory back": (
        "core.py",
        "            self.budget.release(batch.given.cost)\n",
        "            pass\n",
    ),
    "give memory back twice": (
        "core.py",
        "            self.budget.release(batch.given.cost)\n",
        "            self.budget.release(batch.given.cost)\n            self.budget.release(batch.given.cost)\n",
    ),
    "reserve only half of what a batch needs": (
        "admission.py",
        "        core.budget.reserve(batch.given.cost)\n",
        "        core.budget.reserve(batch.given.cost // 2)\n",
    ),
    "commit beyond the contiguous prefix": (
        "plan.py",
        "        if piece.ordinal != due or not stand.known",
        "        if not stand.known",
    ),
    "commit rows before their quarantine": ("plan.py", " or (piece.answers and piece.batch.open_parts)", ""),
    "delete files that a commit in doubt has named": (
        "staging.py",
        "        if job.staged is not None and not job.uncertain:\n",
        "        if job.staged is not None:\n",
    ),
    "refuse a batch and write those behind it": (
        "core.py",
        "            behind.append(flight[other])\n",
        "            if flight[other] is batch:\n                behind.append(flight[other])\n",
    ),
    "take another call's number for this one's": (
        "producers.py",
        "    elif given.assigned or given.sequence is None:\n        ours = False\n",
        "    elif given.assigned or given.sequence is None:\n        ours = True\n",
    ),
    "take other content for the same": (
        "producers.py",
        "        ours = not given.checked or mark.digest == given.digest\n",
        "        ours = True\n",
    ),
    "let small batches overtake those that wait": (
        "admission.py",
        "        if not core.queue and core.budget.fits(batch.given.cost):\n",
        "        if core.budget.fits(batch.given.cost):\n",
    ),
    "let everybody have the same, whatever the weights are": (
        "turns.py",
        "max(given.cost, 1) / given.weight",
        "max(given.cost, 1)",
    ),
    "give turns by batches instead of bytes": (
        "turns.py",
        "max(given.cost, 1) / given.weight",
        "1 / given.weight",
    ),
    "let a client that was away make up for it": (
        "turns.py",
        "            share.start = max(self._now, share.finish)\n",
        "            share.start = share.finish\n",
    ),
    "never let time pass for the turns": (
        "turns.py",
        "        self._now = share.start\n",
        "        pass\n",
    ),
    "never seal what waits for company": (
        "lane.py",
        "        return now >= self.open_until or (self.eager and self.idle and not self.expects(now))\n",
        "        return self.eager and self.idle and not self.expects(now)\n",
    ),
    "wait for ever for those whom the last commit answered": (
        "lane.py",
        "        return now >= self.open_until or (self.eager and self.idle and not self.expects(now))\n",
        "        return self.eager and self.idle and not (self.faithful and self.expected > 0)\n",
    ),
    "stage what was refused meanwhile together with the rest": (
        "staging.py",
        "            if job.state is JobState.STAGED and any(not piece.open for piece in job.pieces):\n",
        "            if False:\n",
    ),
}


def simulate(home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sfwriter.testing.simulator", "--steps", str(STEPS), "--seed", "1"],
        env={**os.environ, "PYTHONPATH": str(home)},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("mutants")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(sfwriter.__file__).parent, home / "sfwriter", ignore=ignored)
    return home


@pytest.mark.parametrize("name", MUTANTS)
def test_the_simulator_finds_a_core_that_would(name: str, package: Path) -> None:
    file, right, wrong = MUTANTS[name]
    path = package / "sfwriter" / "flow" / file
    source = path.read_text()
    assert source.count(right) == 1, f"the edit of {file} applies {source.count(right)} times"
    path.write_text(source.replace(right, wrong))
    try:
        ran = simulate(package)
    finally:
        path.write_text(source)
    assert ran.returncode == 1, f"nothing was found in {STEPS} steps: {ran.stderr[-500:]}"
    assert "again: python -m sfwriter.testing.simulator --replay" in ran.stderr
