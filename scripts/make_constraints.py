"""Writes constraints.txt: one version of every package, for every Python and system that pyproject.toml allows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = "# The versions that `make setup` installs. Made by `make constraints`; do not edit.\n"


def main() -> None:
    """Resolve afresh and replace the file; the old one stays where the resolution fails."""
    uv = Path(sys.executable).parent / "uv"
    options = ["--universal", "--python-version", "3.10", "--all-extras", "--upgrade", "--no-header", "--no-annotate"]
    made = subprocess.run(
        [uv, "pip", "compile", "--quiet", *options, "--no-emit-index-url", "--no-emit-find-links", "pyproject.toml"],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    stray = [line for line in made.stdout.splitlines() if "/" in line or line.startswith("-")]
    if stray:
        raise SystemExit(f"an address or an option got into the pins: {stray}")
    (ROOT / "constraints.txt").write_text(HEADER + made.stdout, encoding="utf-8")


if __name__ == "__main__":
    main()
