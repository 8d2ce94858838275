"""The service: `sfwriter` behind Ray actors, for many processes and machines.

Importing this package loads Ray; `sfwriter` alone never does.
"""

from actors.client import LogClient
from actors.service import Service, connect

__all__ = ["LogClient", "Service", "connect"]
