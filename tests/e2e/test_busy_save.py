# test: tier=default timeout=120 sanitized=no
"""A save that is due while the one before is still being written waits for it, or is left out and told: test_busy_save.py ESPALIER"""

import sys
import time

from file_faults import FileFault
from job import STOPPED, check, main

KEYS = {"train__steps": 400, "checkpoint__every": 2, "checkpoint__keep_last": 1000, "run__watchdog": 0}


def start_held_up(case, **keys):
    """A run whose first save is held up in its file's fsync."""
    fault = FileFault(case.folder, 0, "fsync *.tmp/shard-* 1 1 wait")
    job = case.start(2, before=fault.before, environment=fault.environment, **{**KEYS, **keys})
    job.wait_for("a save that is held up", lambda: "waits" in fault.log())
    return fault, job


def one_waits(case):
    fault, job = start_held_up(case)
    job.wait_for("the next save", lambda: case.last_step() >= 4)
    time.sleep(1.5)  # a busy machine takes some of it between the step's line and the wait
    check(case.last_step() == 4 and not case.checkpoints(), f"at step {case.last_step()} with {sorted(case.checkpoints())} saved, it was to wait at step 4", job)
    fault.go()
    job.wait_for("later saves", lambda: len(case.checkpoints()) >= 4)
    check(sorted(case.checkpoints())[:3] == [2, 4, 6] and not case.metrics(event="no_checkpoint"), "saves were left out", job)
    check(case.metrics(event="step")[4]["save_seconds"] > 0.3 and case.metrics(event="step")[0]["save_seconds"] == 0, "the time it took does not show", job)
    job.end()


def one_is_left_out(case):
    fault, job = start_held_up(case, checkpoint__if_busy="skip", train__stop_after=40)
    job.wait_for("steps beyond it", lambda: case.last_step() >= 10)
    check(not case.checkpoints(), "the save was to be held up", job)
    left = [(row["step"], row["under_way"]) for row in case.metrics(event="no_checkpoint")]
    check(left[:3] == [(4, 2), (6, 2), (8, 2)], f"left out: {left}", job)
    fault.go()
    job.expect(STOPPED, "no checkpoint of step 4: the one before is still being written")
    check({2, 40} <= set(case.checkpoints()) and not {4, 6, 8} & set(case.checkpoints()), f"saved: {sorted(case.checkpoints())}", job)


if __name__ == "__main__":
    sys.exit(main([one_waits, one_is_left_out]))
