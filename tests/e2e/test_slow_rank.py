# test: tier=default timeout=150 sanitized=no
"""A rank that is slow step after step is named with its host, and no other one: test_slow_rank.py ESPALIER"""

import os
import signal
import sys
import time

from job import check, main

KEYS = {"train__steps": 100000, "train__micro_batches": 12, "train__micro_batch_tokens": 256, "run__reduction": "fast",
        "run__straggler_factor": 2, "run__straggler_steps": 5}


def pulse(pid, seconds, until):
    """The process runs a tenth of the time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not until():
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.018)
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.002)


def slow_rank(case):
    job = case.start(3, **KEYS)
    job.wait_for("ten steps", lambda: case.last_step() >= 10)
    check("is slow" not in job.stderr, "a rank is called slow, and none was", job)
    pulse(job.pids()[1], 60, lambda: case.metrics(event="straggler"))
    told = case.metrics(event="straggler")
    check(told and all(row["rank"] == 1 and row["host"] and row["ratio"] > 2 and row["steps"] >= 5 for row in told), f"stragglers: {told}", job)
    job.wait_for("the warning", lambda: "times the median compute time for 5 steps" in job.stderr)
    check("rank 1 on " in job.stderr, "another rank is named", job)
    row = [row for row in case.metrics(event="step") if row["step"] <= told[0]["step"]][-1]
    check(row["slowest_rank"] == 1 and row["slowest_ratio"] > 2, f"the step's line: {row}", job)
    seen = case.last_step()
    job.wait_for("the end of it", lambda: "is no longer slow" in job.stderr and case.last_step() > seen)
    job.end()


def one_rank(case):
    """Alone there is no one to wait for."""
    case.train(0, train__steps=2)
    check(all(row["slowest_rank"] is None and row["slowest_ratio"] is None for row in case.metrics(event="step")), "a run of one rank names one")


if __name__ == "__main__":
    sys.exit(main([slow_rank, one_rank]))
