"""What every test and doctest runs under: eight simulated CPU devices, and bounded random search.

JAX reads its environment when it is first imported, so this comes before it.
"""

import os
import signal
import sys

if "jax" in sys.modules:
    raise RuntimeError("JAX was imported before conftest.py could give it eight CPU devices")

DEVICES = "--xla_force_host_platform_device_count"
flags = os.environ.get("XLA_FLAGS", "")
if DEVICES not in flags:
    os.environ["XLA_FLAGS"] = f"{flags} {DEVICES}=8".strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# A job in the background of a shell may ignore Ctrl-C; tests of that would wait.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from hypothesis import HealthCheck, settings

# Time is limited by pytest, for the whole test: the first example of a property often compiles.
settings.register_profile("dev", max_examples=25, deadline=None)
settings.register_profile(
    "ci",
    max_examples=60,
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev")
)
