# test: tier=default timeout=120
"""espalier status says how a run stands, while it runs and after each kind of end: test_status.py ESPALIER"""

import json
import signal

from job import IN_DATA, NUMERIC, OK, STOPPED, Job, check, main

KEYS = {"train__steps": 100000, "checkpoint__every": 4}


def status_of(case, run="run"):
    """The status as an object, and as text."""
    printed, text = Job(case.folder, 0, "status", "--json", case.folder / run), Job(case.folder, 0, "status", case.folder / run)
    printed.expect(OK)
    text.expect(OK)
    found = json.loads(printed.stdout)
    check(f"{case.folder / run}: {found['state']}" in text.stdout, f"the text says otherwise than {found}:\n{text.stdout}")
    return found, text.stdout


def a_running_one(case):
    job = case.start(2, environment={"SLURM_JOB_ID": "4711", "SLURM_RESTART_COUNT": "2"}, **{**KEYS, "run__walltime": "1:00:00"})
    job.wait_for("a checkpoint", lambda: case.checkpoints() and case.last_step() > 8)
    found, text = status_of(case)
    check(found["state"] == "running" and found["total_steps"] == 100000 and found["step"] >= 8, f"{found}", job)
    check(found["seconds_left"] > 1 and found["tokens_per_second"] > 0 and 0 <= found["heard"] < 60 and "ended" not in found, f"{found}")
    check(found["checkpoint"]["step"] >= 4 and found["checkpoint"]["age"] < 60 and "step " in text, f"{found}")
    check(found["job"]["SLURM_JOB_ID"] == "4711" and "SLURM_RESTART_COUNT=2" in text, f"{found}")
    job.process.send_signal(signal.SIGUSR1)
    job.expect(STOPPED)
    found, text = status_of(case)
    check(found["state"] == "stopped" and found["ended"] == "stopped by SIGUSR1" and "seconds_left" not in found, f"{found}")
    check(found["checkpoint"]["step"] == found["step"], f"{found}")
    case.train(1, train__steps=found["step"] + 2)
    found, text = status_of(case)
    check(found["state"] == "done" and found["step"] == found["total_steps"] and found["ended"] == "done", f"{found}")


def a_failed_one(case):
    case.start(2, optim__lr=1e30, train__max_nonfinite_steps=0, train__steps=8).expect(NUMERIC)
    found, text = status_of(case)
    check(found["state"] == "failed" and "were not finite" in found["ended"] and "checkpoint   none yet" in text, f"{found}\n{text}")


def what_is_no_run(case):
    Job(case.folder, 0, "status", case.folder).expect_failure(IN_DATA, "expected the folder of a run")


if __name__ == "__main__":
    raise SystemExit(main([a_running_one, a_failed_one, what_is_no_run]))
