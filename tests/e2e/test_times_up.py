# test: tier=default timeout=120
"""A run whose time is up leaves by itself, with a checkpoint, early enough, and goes on where it was: test_times_up.py ESPALIER"""

import os
import pathlib
import signal
import stat
import time

from job import DEADLINE, LIGHT, OK, STOPPED, USAGE, check, main, within

KEYS = {"train__steps": 100000, "checkpoint__every": 2, "run__walltime_margin": 2}


def began(pid):
    """When a process began, in seconds since the system did (proc(5): starttime)."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")


def leaves_before_the_end(case, job, seconds):
    """Exit 75, and no process of a rank takes longer than the walltime (the launcher's own start and end are not in it); returns the step of
    the checkpoint it left."""
    job.wait_for("all ranks", lambda: len(job.pids()) == job.ranks)
    first = min(map(began, job.pids().values()))
    within(DEADLINE, "an end of all ranks", lambda: not job.pids(), job)
    took = time.clock_gettime(time.CLOCK_BOOTTIME) - first
    text = job.expect(STOPPED, "stopped by the job's walltime", "the job ends at", "the run will save and leave from")
    check(took < seconds, f"it took {took:.2f} s of {seconds}", job)
    print(f"    {took:.2f} s of {seconds}", flush=True)
    check("(a save took " in text, "the time of a save is told once it is known", job)
    check(f"checkpoint of step {max(case.checkpoints())} saved" in text, "the last step is saved", job)
    return max(case.checkpoints())


def its_own_walltime(case):
    seconds = 7
    step = leaves_before_the_end(case, case.start(2, run__walltime=str(seconds), **KEYS), seconds)
    again = case.train(1, code=STOPPED, train__stop_after=1, **KEYS)
    check("resumed from" in again.stderr and max(case.checkpoints()) == step + 1, "it goes on from where it was", again)


def a_save_at_half_time(case):
    """Where no checkpoint is due, one is made all the same, to have its time."""
    job = case.start(0, run__walltime="8", **{**KEYS, "checkpoint__every": 0, "run__walltime_margin": 0.1})
    job.wait_for("a checkpoint", case.checkpoints)
    job.process.send_signal(signal.SIGUSR1)
    text = job.expect(STOPPED, "stopped by SIGUSR1", "(a save took ")
    check(text.count("checkpoint of step") == 2, "expected the save at half time and the last one", job)


def script(folder, name, lines):
    path = folder / name
    path.write_text("#!/bin/sh\n" + lines, encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def told_source(case, environment, source, **keys):
    """The run says where it has the end from, and does one step where that is at hand; a source of None: it knows of no end."""
    job = case.start(0, "told", train__steps=2, environment={"PATH": f"{case.folder}:{os.environ['PATH']}", **environment}, **keys)
    text = job.expect(OK if source is None else STOPPED)
    check((f"({source})" in text) if source else "the job ends" not in text, f"expected the source {source} for {environment}", job)


def what_batch_systems_say(case):
    script(case.folder, "squeue", 'echo "$*" >> asked; cat squeue-says\n')
    script(case.folder, "flux", "cat flux-says\n")
    slurm = {"SLURM_JOB_ID": "17"}
    told_source(case, {**slurm, "SLURM_JOB_END_TIME": str(int(time.time()) + 30)}, "SLURM_JOB_END_TIME", arguments=["--resume", "never"])
    check(not (case.folder / "asked").exists(), "Slurm is asked although its variable is there")
    for says, source in (("0:30", "squeue"), ("0:00:31", "squeue"), ("UNLIMITED", None), ("", None))[:1 if LIGHT else 4]:
        (case.folder / "squeue-says").write_text(says + "\n", encoding="utf-8")
        told_source(case, slurm, source, arguments=["--resume", "never"])
    told_source(case, {**slurm, "SLURM_ARRAY_JOB_ID": "16", "SLURM_ARRAY_TASK_ID": "3"}, source, arguments=["--resume", "never"])
    asked = (case.folder / "asked").read_text(encoding="utf-8")
    check("-h -j 17 -o %L" in asked and "-h -j 16_3 -o %L" in asked, f"squeue is asked for this job, and for this task of an array:\n{asked}")
    told_source(case, {"PBS_WALLTIME": "40"}, "PBS_WALLTIME", arguments=["--resume", "never"])
    for says, source in (("30", "flux job timeleft"), ("4294967295", None))[:1 if LIGHT else 2]:
        (case.folder / "flux-says").write_text(says + "\n", encoding="utf-8")
        told_source(case, {"FLUX_JOB_ID": "f1"}, source, arguments=["--resume", "never"])


def nonsense_is_refused(case):
    case.start(1, run__walltime="90:00").expect_failure(USAGE, "run.walltime", "'90:00' is no time")


if __name__ == "__main__":
    raise SystemExit(main([its_own_walltime, a_save_at_half_time, what_batch_systems_say, nonsense_is_refused]))
