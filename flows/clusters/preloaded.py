"""Imports for the process that workers of this machine are forked from, which runs nothing else.

Python's garbage collector rests meanwhile: looking at all that was imported so far, again and again, takes a third of
the imports, and looking at it in each fork copies its pages. A module that cannot be imported is left to the workers:
one that needs it reports why, and the terminal is the flow's.
"""

import gc
import io
from contextlib import redirect_stderr, suppress
from importlib import import_module

from flows.clusters.environment import MODULES, PRELOADED

gc.disable()
with redirect_stderr(io.StringIO()):
    for name in (*MODULES, *PRELOADED):
        with suppress(Exception):
            import_module(name)
gc.freeze()
gc.enable()
