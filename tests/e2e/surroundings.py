"""Processes found by a mark in their surroundings (a folder in a variable), whatever session or parent they have, and their end."""

import os
import pathlib
import signal
import time

from job import reap_orphans, send, stat_of


def members(mark):
    """Living processes whose surroundings name the folder `mark`, but for this one."""
    found = []
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and int(name) != os.getpid() and os.fsencode(mark) in pathlib.Path(f"/proc/{name}/environ").read_bytes():
                found.append(int(name))
        except OSError:
            continue
    return [pid for pid in found if (stat_of(pid) or (0, 0, "Z"))[2] not in "ZX"]


def end_all(mark):
    """Ends all of them, those that come up meanwhile too."""
    until = time.monotonic() + 5
    while members(mark) and time.monotonic() < until:
        send(members(mark), signal.SIGKILL)
        reap_orphans()
        time.sleep(0.05)


def guard(mark):
    """A process that ends them when this one is gone, however that went: (its id, the pipe that holds it)."""
    wait, hold = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(hold)
        os.setsid()
        os.read(wait, 1)
        end_all(mark)
        os._exit(0)
    os.close(wait)
    return pid, hold


def dismiss(watcher):
    """Lets the guard end them and go."""
    os.close(watcher[1])
    os.waitpid(watcher[0], 0)
