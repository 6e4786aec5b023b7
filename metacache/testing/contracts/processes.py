"""`in_new_process`: call a function in a new Python process, whose hashes of str and bytes differ from ours."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Final
from unittest import SkipTest

__all__ = ["in_new_process"]

_NOT_IMPORTABLE: Final = 3  # exit status
_SEEDS: Final = ("1", "2")
_TIME: Final = 60  # seconds
_PROGRAM: Final = f"""\
import importlib.util, json, pickle, sys
stdout, sys.stdout = sys.stdout, sys.stderr
sys.path[:], name, path = pickle.load(sys.stdin.buffer)
try:
    importlib.import_module(name)
except ImportError:  # pytest imports files of tests that are not on sys.path, with --import-mode=importlib
    spec = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
try:
    call, arguments = pickle.load(sys.stdin.buffer)
except (ImportError, AttributeError) as error:
    print(error, file=sys.stderr)
    sys.exit({_NOT_IMPORTABLE})
json.dump(call(*arguments), stdout)
"""


def in_new_process(call: Callable[..., object], contract: type, *arguments: object) -> object:
    """Return ``call(contract, *arguments)``, called in a new process, which imports the module of *contract*.

    The result consists of lists, numbers and str.

    Raises SkipTest if the arguments cannot be imported there, AssertionError if the call fails there.
    """
    name = contract.__module__
    try:
        place = (sys.path, name, getattr(sys.modules[name], "__file__", None))
        sent = pickle.dumps(place) + pickle.dumps((call, (contract, *arguments)))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise SkipTest(f"another process cannot import this: {error}") from None
    # A seed that differs from the seed of this process.
    seed = next(seed for seed in _SEEDS if seed != os.environ.get("PYTHONHASHSEED"))
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        input=sent,
        capture_output=True,
        check=False,
        timeout=_TIME,
        env={**os.environ, "PYTHONHASHSEED": seed},
    )
    errors = done.stderr.decode(errors="replace").strip()
    if done.returncode == _NOT_IMPORTABLE:
        raise SkipTest(f"another process cannot import this: {errors}")
    assert done.returncode == 0, f"the call failed in another process: {errors}"
    result: object = json.loads(done.stdout)
    return result
