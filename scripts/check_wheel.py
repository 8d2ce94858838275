"""Builds the wheel, installs it alone into a new environment, and uses it from there.

What it catches: files that the wheel lacks, a base install that needs an extra, an import that loads
Ray, pandas or Spark.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = Path(sys.executable).parent

IMPORT = """
import sys
import sfwriter
from sfwriter import LogWriter, WriterConfig, WriterError
from sfwriter.models import LogRow, WriteMode

assert "site-packages" in sfwriter.__file__, sfwriter.__file__
loaded = {"ray", "pandas", "pyspark"} & set(sys.modules)
assert not loaded, loaded
assert WriterConfig().table_fqn == "analytics.pipeline_logs"
print("imported", sfwriter.__version__)
"""

MEMBERS = ("sfwriter/__init__.py", "sfwriter/py.typed", "actors/py.typed")


def main() -> None:
    """Go through all steps; any one that fails ends the program with its output."""
    with tempfile.TemporaryDirectory(prefix="sfwriter-wheel-") as name:
        folder = Path(name)
        # Without isolation: hatchling is in this environment already.
        run(TOOLS / "uv", "build", "--wheel", "--no-build-isolation", "--python", sys.executable, "--out-dir", folder)
        (wheel,) = folder.glob("*.whl")
        held = set(zipfile.ZipFile(wheel).namelist())
        missing = [member for member in MEMBERS if member not in held]
        stray = sorted(member for member in held if member.split("/")[0] not in {"sfwriter", "actors"})
        stray = [member for member in stray if ".dist-info/" not in member]
        if missing or stray:
            raise SystemExit(f"{wheel.name}: missing {missing}, not to be there {stray}")
        venv.create(folder / "env", with_pip=False)
        python = folder / "env" / "bin" / "python"
        run(TOOLS / "uv", "pip", "install", "--python", python, "--constraint", ROOT / "constraints.txt", wheel)
        run(python, "-I", "-c", IMPORT, cwd=folder)
        run(folder / "env" / "bin" / "sfwriter", "--help", cwd=folder)
        print(f"{wheel.name}: built, installed without extras, imported, and its command runs")


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    """Run a command; show what it said only where it fails."""
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    main()
