"""Compound-AI programs as people write them in plain Python, and as they would with asyncio.

Each module has a ``program``, which runs as it is, call after call, and which ``xcs.jit.enhanced``
runs unchanged; ``by_hand``, the same with asyncio, where everything overlaps that may; and
``ARGUMENTS`` for both. Models, tools and their latencies are mocks that depend on what they are
asked alone.
"""

PROGRAMS = (
    "self_consistency",
    "tree_of_thoughts",
    "map_reduce",
    "debate",
    "retrieval",
    "plan_and_execute",
    "self_refine",
    "code_repair",
    "agent",
    "report",
    "prompt_chain",
    "triage",
)
