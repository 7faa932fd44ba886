"""Runs plans: schedulers, threads, the I/O loop, processes, and graphs from end to end."""
