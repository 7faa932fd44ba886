"""The program: from a question to an answer, as one staged function.

::

    question ─► embed ─► relevance ─► shortlist ─► fetch × 12 ─► focus × 12 ─► shortlist
                  │                                                               │
                  │                                    Quote × 4 ◄────────────────┤
                  │                                    Define × 4 ◄───────────────┤
                  │                                    ... six readers            │
                  └───────────────────► judge ◄── embed × 24 ◄── 24 drafts ◄──────┘
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import BaseModel

import ember_xcs as xcs
from examples.demo import numeric
from examples.demo.corpus import Passage
from examples.demo.library import Library
from examples.demo.readers import READERS, Draft, Reader
from examples.demo.text import paragraphs, quote_code, sentences, terms

CANDIDATES = 12
READ = 4
