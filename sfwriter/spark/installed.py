"""What this machine has of Spark: PySpark, delta-spark, Java, and Delta's jars.

Receives: nothing but the machine.
Produces: versions and paths, or a `WriterConfigurationError` that names the command that helps.
Guarantees: whatever is missing is said before a JVM is started, whose own errors say little.
Never does: start Spark; the jars are fetched by Spark's own Ivy in a process of its own, which opens no session.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from sfwriter.exceptions import WriterConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

OLDEST_JAVA = 17
"""What Spark 4 is compiled for."""

SCALA = "2.13"

EXTENSION = "io.delta.sql.DeltaSparkSessionExtension"
CATALOG = "org.apache.spark.sql.delta.catalog.DeltaCatalog"

DELTA_CONF: Mapping[str, str] = {
    "spark.sql.extensions": EXTENSION,
    "spark.sql.catalog.spark_catalog": CATALOG,
}
"""What makes a session with Delta's jars one that knows Delta tables."""

_INSTALL = "pip install 'sfwriter[spark]'"
_UNITY = "0.6.0"
_FETCH_TIMEOUT_S = 600.0

# Compiled against this pair; other pairs are told so instead of being tried.
_PAIRS = {"4.4.0": "4.2"}


def version_of(distribution: str) -> str:
    """The installed version. Raises `WriterConfigurationError` where there is none."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        raise WriterConfigurationError(
            f"{distribution} is not installed, and the Spark engine needs it.",
            suggestions=[f"Install it: {_INSTALL}"],
            code="spark_missing",
        ) from None


def check_versions() -> tuple[str, str]:
    """The versions of pyspark and delta-spark, where they go together."""
    spark, delta = version_of("pyspark"), version_of("delta-spark")
    wanted = _PAIRS.get(delta)
    if wanted is None or not spark.startswith(f"{wanted}."):
        raise WriterConfigurationError(
            f"delta-spark {delta} and pyspark {spark} are installed, and sfwriter knows"
            f" {' or '.join(f'delta-spark {known} with pyspark {line}.x' for known, line in _PAIRS.items())}.",
            context={"pyspark": spark, "delta-spark": delta},
            suggestions=[f"Install the pair that goes together: {_INSTALL}"],
            code="spark_versions",
        )
    pandas = _version_or_none("pandas")
    if pandas is not None and int(pandas.split(".")[0]) >= 3:
        raise WriterConfigurationError(
            f"pandas {pandas} is installed, and PySpark {spark} does not work with pandas 3.",
            context={"pandas": pandas, "pyspark": spark},
            suggestions=["Install an older one: pip install 'pandas<3'"],
            code="spark_versions",
        )
    return spark, delta


def _version_or_none(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_java(environ: Mapping[str, str] | None = None) -> int:
    """The major version of the Java that Spark would start."""
    found = java_program(os.environ if environ is None else environ)
    advice = [
        "Install one, on Debian and Ubuntu: apt-get install openjdk-17-jre-headless",
        "Or point JAVA_HOME at a Java of version 17 or 21.",
    ]
    if found is None:
        raise WriterConfigurationError(
            f"There is no Java on this machine (neither JAVA_HOME nor PATH has one), and Spark needs {OLDEST_JAVA}"
            " or newer.",
            suggestions=advice,
            code="java_missing",
        )
    try:
        told = subprocess.run([found, "-version"], capture_output=True, text=True, timeout=30, check=False)  # noqa: S603  the Java that Spark itself starts
    except (OSError, subprocess.TimeoutExpired) as error:
        raise WriterConfigurationError(
            f"Java at {found} does not start: {error}", suggestions=advice, code="java_missing"
        ) from error
    text = f"{told.stderr}\n{told.stdout}"
    version = re.search(r'version "(\d+)(?:\.(\d+))?', text)
    if version is None:
        raise WriterConfigurationError(
            f"Java at {found} does not tell its version: {' '.join(text.split())[:200]!r}",
            suggestions=advice,
            code="java_missing",
        )
    major = int(version[2] or 0) if version[1] == "1" else int(version[1])
    if major < OLDEST_JAVA:
        raise WriterConfigurationError(
            f"Java {major} at {found} is too old: Spark needs {OLDEST_JAVA} or newer.",
            context={"java": found, "version": major},
            suggestions=advice,
            code="java_too_old",
        )
    return major


def java_program(environ: Mapping[str, str]) -> str | None:
    """The Java that Spark's own scripts would start, None where there is none."""
    home = environ.get("JAVA_HOME")
    if home:
        program = Path(home) / "bin" / "java"
        return str(program) if program.is_file() else None
    return shutil.which("java", path=environ.get("PATH", ""))


def delta_jars(ivy: str | None = None) -> list[str]:
    """Paths of the jars that Delta needs; fetched once, through Spark's own Ivy, where they are not there.

    Only these: what else the POM asks for are older versions of what Spark has itself.

    Args:
        ivy: folder of Ivy's cache; None for Spark's own choice.
    """
    spark, delta = check_versions()
    folder = Path(ivy) if ivy else Path.home() / ".ivy2.5.2"
    names = jar_names(spark, delta)
    missing = [name for name in names if not (folder / "jars" / name).is_file()]
    if missing:
        _fetch(coordinates(spark, delta), folder)
        missing = [name for name in names if not (folder / "jars" / name).is_file()]
    if missing:
        raise _not_fetched(coordinates(spark, delta), f"{', '.join(missing)} did not come with it")
    return [str(folder / "jars" / name) for name in names]


def coordinates(spark: str, delta: str) -> str:
    """Delta's name in Maven's repositories."""
    return f"io.delta:delta-spark_{'.'.join(spark.split('.')[:2])}_{SCALA}:{delta}"


def jar_names(spark: str, delta: str) -> list[str]:
    """The jars' names in Ivy's cache."""
    line = ".".join(spark.split(".")[:2])
    parts = [
        f"delta-spark_{line}_{SCALA}", "delta-storage", "delta-kernel-api", "delta-kernel-defaults",
        "delta-kernel-unitycatalog",
    ]  # fmt: skip
    unity = ["unitycatalog-client", "unitycatalog-hadoop"]
    return [f"io.delta_{part}-{delta}.jar" for part in parts] + [
        f"io.unitycatalog_{part}-{_UNITY}.jar" for part in unity
    ]


def _fetch(package: str, ivy: Path) -> None:
    """Let Ivy resolve the package: 20 to 40 s, and 40 MB."""
    import pyspark

    check_java()
    submit = Path(pyspark.__file__).parent / "bin" / "spark-submit"
    with tempfile.TemporaryDirectory(prefix="sfwriter-jars-") as folder:
        program = Path(folder) / "nothing.py"
        program.write_text("", encoding="utf-8")
        command = [
            str(submit), "--master", "local[1]", "--packages", package, "--conf", f"spark.jars.ivy={ivy}",
            # Half of the bytes, and Spark has them.
            "--exclude-packages", "org.apache.hadoop:hadoop-client-runtime,org.apache.hadoop:hadoop-client-api",
            str(program),
        ]  # fmt: skip
        try:
            done = subprocess.run(  # noqa: S603  Spark's own script
                command, capture_output=True, text=True, timeout=_FETCH_TIMEOUT_S, check=False, cwd=folder
            )
        except subprocess.TimeoutExpired:
            raise _not_fetched(package, f"it took more than {_FETCH_TIMEOUT_S:g} s") from None
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        told = [line for line in lines if "unresolved dependency" in line or "Exception" in line or "Error" in line]
        raise _not_fetched(package, (told or lines or ["no reason was given"])[0][:300])


def _not_fetched(package: str, why: str) -> WriterConfigurationError:
    return WriterConfigurationError(
        f"Delta's jars ({package}) could not be fetched: {why}",
        context={"package": package},
        suggestions=[
            "The first start needs a Maven repository; later ones take the jars from Ivy's cache in your home.",
            "Without a network: copy ~/.ivy2.5.2 from a machine that has fetched them.",
        ],
        code="delta_jars_missing",
    )
