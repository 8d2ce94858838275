"""The world in which the simulator runs the core: tables, hosts and callers, all of them models."""
