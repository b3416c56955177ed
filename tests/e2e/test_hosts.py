# test: tier=default timeout=240 sanitized=no
"""Training over hosts that lose their power, their link, or a rank: all that is left of the job is down in time and says why, a restart goes on
from the last checkpoint and ends in the undisturbed run's bits, and what lives on behind a cut link publishes nothing. test_hosts.py ESPALIER"""

import json
import os
import re
import signal

from file_faults import FileFault
from hosts import Hosts
from job import OK, STOPPED, Job, check, main, send, within

WATCHDOG = 5
GRACE = 5  # seconds that a launcher's abort gets before ranks leave by themselves (comm/watchdog.c)
LATE = 3  # seconds for a busy machine
KEYS = {"train__steps": 100000, "checkpoint__every": 2, "checkpoint__keep_last": 3, "run__watchdog": WATCHDOG}


def begun(case, job):
    """Some steps after the start there is a new checkpoint; returns the newest."""
    first = max(case.checkpoints(), default=0)
    job.wait_for("a checkpoint", lambda: max(case.checkpoints(), default=0) > first)
    return max(case.checkpoints())


def named(case, job, ranks):
    """Each of `ranks` says with its host, step and operation what it waited for, or leaves because another did."""
    said = {rank: [line for line in text.splitlines() if line.startswith("espalier: ")] for rank, text in job.said().items()}
    lines = [line for rank in ranks for line in said.get(rank, [])]
    check(lines, f"none of the ranks {ranks} says why", job)
    for rank, line in ((rank, line) for rank in ranks for line in said.get(rank, [])):
        found = re.fullmatch(r"espalier: watchdog: rank (\d+) on (n\d+): no progress for \d+ s at step (\d+) in ([^;]+); .*", line)
        check(found, f"not a line of the watchdog: {line}")
        check((int(found[1]), found[2]) == (rank, f"n{rank // 2 + 1}"), f"rank {rank} says: {line}")
        check(abs(int(found[3]) - case.last_step()) <= 1, f"the last step was {case.last_step()}: {line}")
    print(f"    {lines[0]}", flush=True)


def lose_power(hosts, job):
    hosts.power_off("n2")
    return [0, 1]


def lose_link(hosts, job):
    hosts.cut("n2")
    return [0, 1, 2, 3]


def stop_a_rank(hosts, job):
    os.kill(hosts.on(job, "n2")[2], signal.SIGSTOP)
    return [0, 1, 3]


def link_hardly_carries(hosts, job):
    hosts.slow("n2", "40kbit")
    return [0, 1, 2, 3]


def goes_on(case, job, saved):
    """After a start that found the checkpoint of `saved`, which is the last."""
    job.wait_for("resuming", lambda: "resumed from" in job.stderr)
    check(f"step-{saved:08d}: step {saved} of" in job.stderr, f"it should have gone on from step {saved}", job)


def ends_as_the_undisturbed_one(case, job):
    """The job was told to stop."""
    job.expect(STOPPED)
    steps = case.last_step()
    case.train(1, "whole", STOPPED, train__stop_after=steps, **{**KEYS, "checkpoint__every": 0})
    check(case.steps() == list(range(1, steps + 1)), f"metrics.jsonl has steps {case.steps()}")
    check(case.digest() == case.digest("whole"), "the run ends in other weights than the undisturbed one on one rank")


def faults_of_hosts(case):
    faults = [lose_power, lose_link, stop_a_rank, link_hardly_carries]
    with Hosts(case.folder / "hosts", 2) as hosts:
        job, saved = hosts.start(case, 2, **KEYS), None
        for fault in faults:
            begun(case, job)
            ranks = fault(hosts, job)
            seconds = within(WATCHDOG + GRACE + LATE, "an end of all ranks on all hosts", lambda job=job: not job.pids(), job)
            code = job.process.poll()  # a launcher waits for the host it lost, until a batch system ends it
            job.end()
            check(code not in (OK, STOPPED), f"a job that lost a part of it exits with {code}", job)
            named(case, job, ranks)
            saved = max(case.checkpoints())
            print(f"    {fault.__name__}: down after {seconds:.1f} s, exit {code}; step {case.last_step()}, saved {saved}", flush=True)
            Job(case.folder, 0, "verify", case.checkpoints()[saved]).expect(OK)
            hosts.mend()
            last = fault is faults[-1]
            job = hosts.start(case, 2, **KEYS, **({"train__stop_after": 4} if last else {}))
            goes_on(case, job, saved)
        ends_as_the_undisturbed_one(case, job)


def a_slow_link_changes_no_bit(case):
    with Hosts(case.folder / "hosts", 2) as hosts:
        job = hosts.start(case, 2, **{**KEYS, "run__watchdog": 50})
        begun(case, job)
        fast = case.last_step()
        hosts.slow("n2", "20mbit")
        slow = case.last_step() + 2  # of the next one a part went before
        job.wait_for("slow steps", lambda: case.last_step() >= slow + 1)
        send(job.pids().values(), signal.SIGUSR1)
        ends_as_the_undisturbed_one(case, job)
    seconds = {row["step"]: row["step_seconds"] for row in case.metrics(event="step")}
    check(max(seconds[step] for step in (slow, slow + 1)) > 2 * min(seconds[step] for step in range(1, fast + 1)), f"the link was not slow from step {slow} on: {seconds}")


def late_writer(case, hosts, run, pattern):
    """Rank 0 is about to publish when its host is cut off, and does so only after another attempt has saved that very step."""
    fault = FileFault(case.folder, 0, f"rename {pattern} 2 2 wait")
    keys = {**KEYS, "run__watchdog": 20, "checkpoint__keep_last": 100}
    old = hosts.start(case, 2, run, before=fault.before, environment=fault.environment, **keys)
    old.wait_for("the second publication", lambda: "waits" in fault.log())
    hosts.cut("n1")
    os.kill(old.process.pid, signal.SIGKILL)  # as when the job is taken off the other hosts, to be started anew
    check(sorted(case.checkpoints(run)) == [2] and sorted(hosts.on(old, "n1")) == [0, 1], f"{sorted(case.checkpoints(run))}, {old.pids()}", old)
    new = hosts.start(case, 2, run, names=["n2"], **{**KEYS, "train__stop_after": 8, "checkpoint__keep_last": 100})
    new.wait_for("step 4", lambda: {4, 6} <= set(case.checkpoints(run)))
    check(0 in hosts.on(old, "n1"), "the late writer is gone before it wrote", old)
    before = (case.checkpoints(run)[4] / "manifest.json").read_bytes()
    fault.go()
    within(LATE, "the late writer's attempt", lambda: "late rename" in fault.log(), old)
    check(fault.log().endswith("ENOENT\n"), f"the late writer was to be refused: {fault.log()}")
    new.expect(STOPPED, "step-00000002: step 2 of")
    check((case.checkpoints(run)[4] / "manifest.json").read_bytes() == before, "the late writer published over the new attempt")
    attempts = {step: json.loads((path / "manifest.json").read_text())["attempt"] for step, path in case.checkpoints(run).items()}
    check(attempts == {2: 1, 4: 2, 6: 2, 8: 2, 10: 2}, f"checkpoints are of the attempts {attempts}")
    for path in case.checkpoints(run).values():
        Job(case.folder, 0, "verify", path).expect(OK)
    old.end()
    hosts.mend()


def late_writers_publish_nothing(case):
    with Hosts(case.folder / "hosts", 2) as hosts:
        for i, pattern in enumerate(("*/manifest.json.tmp", "*.attempt-[0-9].tmp")):
            late_writer(case, hosts, f"run-{i}", pattern)
    case.train(1, "whole", STOPPED, train__stop_after=10, **{**KEYS, "checkpoint__every": 0})
    check(case.digest("run-0") == case.digest("run-1") == case.digest("whole"), "a run ends in other weights than the undisturbed one")


if __name__ == "__main__":
    raise SystemExit(main([faults_of_hosts, a_slow_link_changes_no_bit, late_writers_publish_nothing]))
