"""Calls on files that fail, or wait, in one rank of a job: file_faults.c in front of libc there."""

import pathlib
import subprocess

from job import LIGHT, Skipped

SOURCE = pathlib.Path(__file__).with_suffix(".c")

FRONT = """#!/bin/sh
[ "$OMPI_COMM_WORLD_RANK" = "$FILE_FAULT_RANK" ] && export LD_PRELOAD={library}
exec "$@"
"""


class FileFault:
    """FileFault(folder, rank, "rename *.tmp 2 2 wait"): for Job, `before` and `environment`."""

    def __init__(self, folder, rank, what):
        if LIGHT:
            raise Skipped("libraries cannot be put in front of a sanitized program")
        library, front = folder / "file_faults.so", folder / "file_faults.sh"
        if not library.exists():
            subprocess.run(["cc", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True, timeout=60)
            front.write_text(FRONT.format(library=library), encoding="utf-8")
            front.chmod(0o755)
        self.before = [str(front)]
        self.file, self.leave = folder / "file_fault.log", folder / "file_fault.go"
        for path in (self.file, self.leave):
            path.unlink(missing_ok=True)
        self.environment = {"FILE_FAULT": what, "FILE_FAULT_RANK": str(rank), "FILE_FAULT_LOG": str(self.file), "FILE_FAULT_GO": str(self.leave)}

    def log(self):
        return self.file.read_text(encoding="utf-8") if self.file.exists() else ""

    def go(self):
        """Calls that wait go on."""
        self.leave.touch()
