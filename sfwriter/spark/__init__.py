"""Spark sessions for the Spark engine: making a tuned one, and looking whether one that exists will do.

Importing this loads neither Spark nor Java.
"""

from __future__ import annotations

from sfwriter.spark.readiness import Readiness as Readiness
from sfwriter.spark.readiness import check as check
from sfwriter.spark.readiness import examine as examine
from sfwriter.spark.readiness import is_connect as is_connect
from sfwriter.spark.sessions import session as session
