"""Plain Python at the latency of its critical path: the strategy ``enhanced`` of ``jit``.

A program is rewritten once and run at each call. Its operator calls return at once, as pending
values; what is pure given its operands is lifted into the dataflow; everything else waits. What is
lifted, what waits and what an operator promises is said in ``docs/design/enhanced.md``.
"""
