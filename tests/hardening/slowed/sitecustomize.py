"""Stops the interpreter of a doomed step half-way through a file of its publication; read where PYTHONPATH leads."""

import os
import shutil
import time
from pathlib import Path

if os.environ.get("HARDENING_PAUSE") == "publication":
    _copyfile = shutil.copyfile

    def copyfile(source, target, **options):
        if "/artifacts/sha256-" not in str(target):
            return _copyfile(source, target, **options)
        content = Path(source).read_bytes()
        Path(target).write_bytes(content[: len(content) // 2])
        Path(os.environ["HARDENING_MARKER"]).touch()
        time.sleep(60)
        raise AssertionError("nobody killed it")

    shutil.copyfile = copyfile
