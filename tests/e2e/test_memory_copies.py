# test: tier=default timeout=180
"""In-memory copies over hosts: a host is lost, and slurm/until_done.sh starts the run again in place on those that are left, which go on from
what their memory holds, to the undisturbed run's bits. test_memory_copies.py ESPALIER"""

import json
import os
import re
import shutil
import subprocess

from hosts import LAUNCHER, HostJob, Hosts, script
from job import LIGHT, OK, ROOT, STOPPED, Job, check, main

KEYS = {"train__steps": 100000, "checkpoint__memory_every": 2, "run__watchdog": 20}
COPIES = "dev/shm/espalier-0"


def until_done(case, hosts, a_host, run="run", **keys):
    """Training under slurm/until_done.sh with one restart in place."""
    hosts.n_jobs += 1
    probe = script(hosts.folder / "probe", f'#!/bin/sh\nexec nsenter -t "$(cat {hosts.folder}/$1.pid)" --net true\n')
    environment = {"IN_PLACE": "1", "NODES": " ".join(hosts.names), "RANKS_A_NODE": str(a_host), "PROBE": probe, "SILENT": "3"}
    launcher = ["bash", str(ROOT / "slurm" / "until_done.sh"), str(case.folder / run), "0", *LAUNCHER, "--mca", "plm_rsh_agent", hosts.agent]
    return HostJob(hosts, hosts.folder / f"job-{hosts.n_jobs}", "train", case.config(run, **keys), "--resume", "auto", launcher=launcher,
                   before=[hosts.voice], environment=environment)


def copied(case, run="run"):
    return max((row["step"] for row in case.metrics(run, "memory_copy")), default=0)


def memory_of(hosts, name):
    """Files of in-memory copies that a host has, as this process reaches them."""
    root = f"/proc/{hosts.running[name][1]}/root/{COPIES}"
    return sorted(os.path.join(place, file) for place, _, files in os.walk(root) for file in files)


def some_copies(case, hosts, job, run="run"):
    before = copied(case, run)
    job.wait_for("copies", lambda: copied(case, run) > before + 2)


def resumed_in_memory(case, job):
    """The step that the run went on from."""
    found = re.search(r"resumed from the in-memory copy .*/step-(\d+): step (\d+) of", job.stderr)
    check(found, "it did not go on from an in-memory copy", job)
    return int(found[1])


def a_host_is_lost(case):
    """Four hosts, of which three are left: two ranks, because sums are trees. The run takes long enough to lose a host on its way."""
    keys = {**KEYS, "train__steps": 60}
    with Hosts(case.folder / "hosts", 4) as hosts:
        job = until_done(case, hosts, 1, **keys)
        some_copies(case, hosts, job)
        hosts.power_off("n2")
        at = case.last_step()
        check(not case.checkpoints(), "a checkpoint would do as well", job)
        job.expect(OK)
        check("restart 1 of 1 in place: 2 ranks on n1 n3" in job.stdout and "run is done" in job.stdout, f"not in place:\n{job.stdout}")
        step = resumed_in_memory(case, job)
        check(at - 2 * KEYS["checkpoint__memory_every"] <= step, f"step {at} was done, it went on from step {step}", job)
        left = {name: memory_of(hosts, name) for name in hosts.running if name != "head"}
        check(not any(left[name] for name in ("n1", "n3")), f"files are left: {left}")
        print(f"    lost at step {at}, went on from the copy of step {step}", flush=True)
    case.train(1, "whole", **{**keys, "checkpoint__memory_every": 0})
    check(case.digest() == case.digest("whole"), "the run ends in other weights than the undisturbed one on one rank")


def flip(path):
    with open(path, "r+b") as file:
        file.seek(os.path.getsize(path) // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def as_planned(case, files):
    """The plan has room for two generations, on two hosts each; files have a little around the state."""
    planned = Job(case.folder, 0, "plan", case.config("run", **KEYS), "--ranks", "2", "--ranks-per-node", "1", "--peak", "1", "--json")
    planned.expect(OK)
    steps = [os.path.basename(os.path.dirname(path)) for path in files if path.endswith("/manifest.json")]
    newest = max(step for step in steps if steps.count(step) == 2)  # on both hosts: the job was ended anywhere
    found = sum(os.path.getsize(path) for path in files if f"/{newest}/shard-" in path)
    expected = 2 * json.loads(planned.stdout)["copy_bytes"] / 2
    check(expected <= found <= 1.05 * expected, f"a copy has {found} bytes on all hosts, {expected} were planned")


def a_copy_is_damaged(case):
    """All ranks are killed; a flipped byte in one host's file, and the other host's takes its place."""
    with Hosts(case.folder / "hosts", 2) as hosts:
        job = hosts.start(case, 1, **KEYS)
        some_copies(case, hosts, job)
        job.end()
        as_planned(case, [path for name in hosts.names for path in memory_of(hosts, name)])
        files = [path for path in memory_of(hosts, "n1") if path.endswith("shard-00000.h5")]
        check(files, "no copies are left on n1")
        for path in files:
            flip(path)
        job = hosts.start(case, 1, **{**KEYS, "train__stop_after": 4})
        job.expect(STOPPED, "in-memory copy on n1: ", "checksum does not match; it is not used")
        resumed_in_memory(case, job)
        check(not memory_of(hosts, "n1") + memory_of(hosts, "n2"), "a run that is stopped leaves files in memory")
        steps = case.last_step()
    case.train(1, "whole", STOPPED, train__stop_after=steps, **{**KEYS, "checkpoint__memory_every": 0})
    check(case.digest() == case.digest("whole"), "the run ends in other weights than the undisturbed one on one rank")


def a_host_was_away(case):
    """The run was stopped without the host, which then has what nobody will look for; it is gone when the run starts there again."""
    with Hosts(case.folder / "hosts", 2) as hosts:
        keys = {**KEYS, "train__stop_after": 2}
        job = hosts.start(case, 1, **KEYS)
        some_copies(case, hosts, job)
        job.end()
        hosts.start(case, 1, names=["n1"], **keys).expect(STOPPED)
        check(memory_of(hosts, "n2") and not memory_of(hosts, "n1"), f"n1 has {memory_of(hosts, 'n1')}, n2 has {memory_of(hosts, 'n2')}")
        hosts.start(case, 1, **keys).expect(STOPPED)
        check(not memory_of(hosts, "n2"), "n2 has kept what the run left there")


def there_is_no_room(case):
    """One host's memory is too small: that is said once, and the run goes on with checkpoints alone."""
    place = case.folder / "memory"
    place.mkdir()
    with Hosts(case.folder / "hosts", 2) as hosts:
        subprocess.run([*hosts.enter("n2"), "mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", place], check=True)
        job = hosts.start(case, 1, checkpoint__memory_folder=place, **{**KEYS, "train__steps": 6})
        said = job.expect(OK, "in-memory copies are given up until the next start: rank 1: ", " on n2 has room for 0.5 MiB, the copies that the host is to keep take ")
        check(said.count("given up") == 1 and not case.metrics(event="memory_copy"), "copies were tried again", job)
        check(case.checkpoints() and not list(place.rglob("*.h5")), "files are left, or nothing was saved", job)


def killed(case, place, run="run", ranks=2):
    """A run that a lost rank has ended; returns the step of its copy."""
    before = max(copied(case, run), 2)
    job = case.start(ranks, run, checkpoint__memory_folder=place, **KEYS)
    job.wait_for("copies", lambda: copied(case, run) > before)
    os.kill(job.pids()[ranks - 1], 9)
    job.down(job.seconds_left(), 10)
    kept = sorted(place.glob("espalier-*/run-*/attempt-*/step-????????/manifest.json"))
    check(kept, "no copy is left", job)
    return int(kept[-1].parent.name[5:])


def on_one_machine(case):
    """Without other hosts: a killed rank loses no more than the steps since the copy; a course that begins anew does not find it."""
    place = case.folder / "memory"
    step = killed(case, place)
    found = Job(case.folder, 0, "status", case.folder / "run")
    found.expect(OK)
    check(re.search(r"memory copy  step \d+, \d+ s ago", found.stdout), f"status says nothing of copies:\n{found.stdout}")
    again = {**KEYS, "checkpoint__memory_folder": place, "train__stop_after": 1}
    job = case.train(1, code=STOPPED, **again)
    check(resumed_in_memory(case, job) == step, f"the copy was of step {step}", job)
    killed(case, place)
    job = case.train(1, code=STOPPED, arguments=("--resume", "never"), **again)
    check("resumed" not in job.stderr and not any(place.iterdir()), "copies of the course that was left", job)


def nothing_is_left_to_train(case):
    """The run ends at the very step of the copy that it goes on from: no disk has that state until it has ended."""
    place = case.folder / "memory"
    step = killed(case, place)
    check(step not in case.checkpoints(), "the disk has it, too")
    job = case.train(1, **{**KEYS, "checkpoint__memory_folder": place, "train__steps": step})
    check(resumed_in_memory(case, job) == step, f"the copy was of step {step}", job)
    check(list(case.checkpoints()) == [step] and not any(place.iterdir()), f"it has ended at step {step} with checkpoints {case.checkpoints()}", job)


def a_run_is_given_up(case):
    """Its copies stay until its folder is deleted and the next run starts."""
    place = case.folder / "memory"
    killed(case, place, "runs/first")
    keys = {"train__steps": 1, "checkpoint__memory_folder": place}
    case.train(1, "runs/second", **keys)
    check(any(place.iterdir()), "a run's copies went while it could go on")
    shutil.rmtree(case.folder / "runs" / "first")
    job = case.train(1, "runs/third", **keys)
    check(not any(place.iterdir()), "copies of a run that was deleted stay", job)


if __name__ == "__main__":
    raise SystemExit(main([on_one_machine, nothing_is_left_to_train, *([] if LIGHT else [a_run_is_given_up, a_copy_is_damaged, a_host_is_lost, a_host_was_away, there_is_no_room])]))
