# test: tier=default timeout=240
# test: tier=long timeout=3600 arguments=--count 200
"""Random faults, one after the other, on one run: whatever breaks, the job is down in time and says why, a valid checkpoint is there, the next start
goes on from no older one than was committed, and in the end the weights are those of a run that nothing disturbed.

test_faults.py ESPALIER [--count N] [--seed N] [--kinds NAME,...]
"""

import argparse
import collections
import errno
import os
import random
import re
import resource
import shutil
import signal
import sys
import time

from disk import Disk
from file_faults import FileFault
from hosts import Hosts
from job import DEADLINE, IN_DATA, IO, LIGHT, OK, STOPPED, Job, Skipped, check, main, send, within

WATCHDOG = 8
GRACE = 5  # seconds that a launcher's abort gets before ranks leave by themselves (comm/watchdog.c)
LATE = 8  # seconds for a busy machine
KILLED = 137
EVERY = 2
KEYS = {"train__steps": 100000, "train__micro_batches": 4, "checkpoint__every": EVERY, "checkpoint__keep_last": 3, "run__watchdog": WATCHDOG}
RUN = "disk/run"
WATCHED = r"^espalier: watchdog: rank \d+ on \S+: no progress for \d+ s at step \d+ in .*; ending the job"

options = argparse.Namespace(count=None, seed=None, kinds=None)


def steps_of(job):
    return [int(step) for step in re.findall(r"^step (\d+)/", job.stderr, re.M)]


def expect_end(job, found, codes, *patterns):
    """One of `codes` (None: a launcher that was ended by us), and each pattern on stderr."""
    check(found is None or found in codes, f"expected exit {codes}, got {found}", job)
    for pattern in patterns:
        check(re.search(pattern, job.stderr, re.M), f"expected '{pattern}' on stderr", job)


class Course:
    """One run through all faults: where it stands, and what has been seen."""

    def __init__(self, case, disk, draw):
        self.case, self.disk, self.draw = case, disk, draw
        self.rows = collections.defaultdict(list)  # kind -> (seconds to down, steps lost) of each
        self.committed = self.reached = 0  # the step that the next start must not fall behind; the last one that was made
        self.resumed = self.clusters = 0
        self.damaged = None  # a step whose checkpoint we have changed, until a run has left it
        self.stuck = 0  # launchers that had to be ended

    def keys(self):
        return {**KEYS, "checkpoint__writers": self.draw.choice([1, 2]), "checkpoint__background": self.draw.random() < 0.8}

    def start(self, **how):
        """On two or four ranks of this machine."""
        return self.case.start(self.draw.choice([2, 4]), RUN, **how, **self.keys())

    def hosts(self):
        self.clusters += 1
        return Hosts(self.case.folder / f"hosts-{self.clusters}", 2)

    def saves(self):
        found = self.case.checkpoints(RUN)
        found.pop(self.damaged, None)
        return found

    def under_way(self, job, saves=1):
        """Waits for the job to go on, for some saves of it, and then for a moment anywhere in a step or a save."""
        job.wait_for("its first step", lambda: steps_of(job))
        self.check_resumed(job)
        first = max(self.saves(), default=0)
        job.wait_for(f"{saves} saves", lambda: max(self.saves(), default=0) >= first + EVERY * saves)
        goal = steps_of(job)[-1] + self.draw.randrange(4)
        job.wait_for("the moment", lambda: steps_of(job)[-1] >= goal)
        time.sleep(self.draw.uniform(0.0, 0.06))

    def check_resumed(self, job):
        """The job has made a step."""
        self.damaged = None
        found = re.search(r"^resumed from .*: step (\d+) of", job.stderr, re.M)
        self.resumed = int(found[1]) if found else 0
        check(self.resumed >= self.committed, f"step {self.committed} was committed, the run goes on from step {self.resumed}", job)

    def down(self, job, seconds, launcher=True):
        """Waits until the job is down, and notes what stands. Returns (seconds, exit code or None)."""
        took, code = job.down(seconds, LATE if launcher else 0)
        self.stuck += launcher and code is None
        self.note(job)
        return took, code

    def note(self, job):
        self.committed = max(self.saves(), default=0)
        self.reached = max([self.committed, *steps_of(job)])

    def ended(self, job, codes, *patterns, seconds=LATE, launcher=True):
        """The job goes down by itself; the launcher, too, unless it waits for a host that is lost."""
        took, code = self.down(job, seconds, launcher)
        expect_end(job, code, codes, *patterns)
        return took

    def stopped(self, job, code=STOPPED):
        """The job that went on is asked to leave."""
        send(job.pids().values(), signal.SIGUSR1)
        job.expect(code)
        self.note(job)
        return 0.0


# ---- Processes. A fault takes the course and returns the seconds until the job was down.


def rank_killed(course):
    job = course.start()
    course.under_way(job)
    rank, pid = course.draw.choice(sorted(job.pids().items()))
    os.kill(pid, signal.SIGKILL)
    return course.ended(job, [KILLED], rf"rank {rank} with PID \d+ on node \S+ exited on signal 9")


def rank_stopped(course):
    job = course.start()
    course.under_way(job)
    rank, pid = course.draw.choice(sorted(job.pids().items()))
    os.kill(pid, signal.SIGSTOP)
    return course.ended(job, [IO], WATCHED, rf"rank {rank} is stopped at step \d+ in", seconds=WATCHDOG + GRACE + LATE)


def launcher_killed(course):
    """Nobody is left to say anything: its exit code is the signal's."""
    job = course.start()
    course.under_way(job)
    job.process.send_signal(signal.SIGKILL)
    return course.ended(job, [-signal.SIGKILL], seconds=WATCHDOG + GRACE + LATE)


def out_of_memory(course):
    """From a random moment on one rank gets no more memory. A run on its way needs none; one that starts ends with a line of its own, or, where a
    library does not look at what malloc says, with the launcher's."""
    job = course.start()
    if course.draw.random() < 0.3:
        course.under_way(job)
    else:
        job.wait_for("a line of its own", lambda: job.stderr)  # before, it is MPI that starts
        time.sleep(course.draw.uniform(0.0, 0.3))
    pids = sorted(job.pids().values())
    if pids:
        resource.prlimit(course.draw.choice(pids), resource.RLIMIT_AS, (1 << 20, 1 << 20))
    goal = len(steps_of(job)) + 2 * EVERY
    within(DEADLINE, "an end, or steps", lambda: job.process.poll() is not None or len(steps_of(job)) > goal, job)
    if job.process.poll() is None:
        return course.stopped(job)
    return course.ended(job, range(1, 256), rf"{WATCHED}|out of \w+ memory|Cannot allocate memory|rank \d+ .* exited on signal|Exit code: +\d+",
                        seconds=WATCHDOG + GRACE + LATE)


# ---- Hosts.


def host_lost(course):
    with course.hosts() as hosts:
        job = hosts.start(course.case, course.draw.choice([1, 2]), RUN, **course.keys())
        course.under_way(job)
        hosts.power_off(course.draw.choice(hosts.names))
        seconds = course.ended(job, [IO], WATCHED, seconds=WATCHDOG + GRACE + LATE, launcher=False)
    return seconds


def link_cut(course):
    """The cut-off host holds rank 0 in front of a publication, which it tries once the next attempt has saved."""
    draw, case = course.draw, course.case
    fault = FileFault(case.folder, 0, f"rename {draw.choice(['*/manifest.json.tmp', '*.attempt-*[0-9].tmp'])} {draw.randint(2, 4)} 100 wait")
    with course.hosts() as hosts:
        old = hosts.start(case, draw.choice([1, 2]), RUN, before=fault.before, environment=fault.environment, **{**course.keys(), "run__watchdog": 20})
        old.wait_for("a publication", lambda: "waits" in fault.log())
        course.check_resumed(old)
        course.note(old)
        hosts.cut("n1")
        old.process.kill()
        new = hosts.start(case, draw.choice([1, 2]), RUN, names=["n2"], **course.keys())
        course.under_way(new, saves=2)
        check(old.pids(), "the late writer is gone before it wrote", old)
        before = {step: (path / "manifest.json").read_bytes() for step, path in course.saves().items()}
        fault.go()
        within(LATE, "the late writer's attempt", lambda: "late rename" in fault.log(), old)
        check("ENOENT" in fault.log(), f"the late writer was to be refused: {fault.log()}")
        for step, path in course.saves().items():
            check(before.get(step) in (None, (path / "manifest.json").read_bytes()), f"the late writer published step {step}")
        send(new.pids().values(), signal.SIGKILL)
        seconds = course.ended(new, [KILLED])
        within(20 + GRACE + LATE, "an end of the late writer", lambda: not old.pids(), old)
    return seconds


# ---- Files.


def power_cut(course):
    """Everything of the job dies at once, and what was not on the disk is gone. What the run said to be saved must be there."""
    course.disk.must_be_real()
    job = course.start()
    course.under_way(job)
    said = max([course.resumed, *map(int, re.findall(r"^checkpoint of step (\d+) saved", job.stderr, re.M))])
    course.disk.cut_power()
    send(job.members(), signal.SIGKILL)
    within(LATE, "an end of all", lambda: not job.members())
    job.end()
    course.disk.mount_again()
    course.note(job)
    check(course.committed >= said, f"step {said} was said to be saved, step {course.committed} is there", job)
    return 0.0


def disk_full(course):
    """Saves fail, the run goes on; with room again they work."""
    course.disk.must_be_real()
    job = course.start()
    course.under_way(job)
    course.disk.fill()
    job.wait_for("a save that fails", lambda: re.search(r"checkpoint of step \d+ is not saved: .*No space left", job.stderr))
    course.committed = max(course.saves())
    course.disk.make_room()
    job.wait_for("a save", lambda: max(course.saves()) > course.committed)
    return course.stopped(job)


def file_error(course):
    """A call on a file of a checkpoint fails in one rank, once or from then on."""
    draw = course.draw
    what, first, forever = draw.choice(["open", "write", "fsync", "rename"]), draw.randint(1, 6), draw.random() < 0.3
    error = draw.choice(["EIO", "ENOSPC", "EDQUOT"])
    fault = FileFault(course.case.folder, 0, f"{what} */checkpoints/step-* {first} {1 << 30 if forever else first} {error}")
    job = course.start(before=fault.before, environment=fault.environment)
    def over():
        return job.process.poll() is not None

    within(DEADLINE, "a call that fails", lambda: over() or fault.log(), job)
    told = rf"^(warning|espalier): .*{os.strerror(getattr(errno, error))}"
    if not forever:  # a library may try again by itself: then the save of that step succeeds
        told += rf"|^checkpoint of step {int(re.search(r'/step-([0-9]+)', fault.log())[1])} saved"
    within(DEADLINE, f"a word about it\n{fault.log()}", lambda: over() or re.search(told, job.stderr, re.M), job)
    within(DEADLINE, "a step, or an end", lambda: over() or steps_of(job), job)
    if over():  # it failed while it looked at what is there
        return course.ended(job, [IO], told)
    course.check_resumed(job)
    failed = max(course.saves(), default=0)
    if forever:
        seconds = course.stopped(job, IO)
        check(course.committed == failed, f"step {course.committed} was saved, although every call fails", job)
        return seconds
    job.wait_for("a save", lambda: max(course.saves(), default=0) > failed)
    return course.stopped(job)


def damage(course, change):
    """A job is killed, and then a file of its newest checkpoint is changed: it is told, and the run goes on from the one before."""
    job = course.start()
    course.under_way(job, saves=2)
    send(job.members(), signal.SIGKILL)
    within(LATE, "an end of all", lambda: not job.members())
    job.end()
    course.note(job)
    newest, before = sorted(course.saves())[:-3:-1]
    path = course.draw.choice(sorted([*course.saves()[newest].glob("shard-*.h5"), course.saves()[newest] / "manifest.json"]))
    blob = bytearray(path.read_bytes())
    path.write_bytes(change(blob, course.draw))
    Job(course.case.folder, 0, "verify", course.saves()[newest]).expect_failure(IN_DATA, path.name)
    Job(course.case.folder, 0, "verify", course.saves()[before]).expect(OK)
    course.committed, course.damaged = before, newest
    return 0.0


def flipped_byte(course):
    def flip(blob, draw):
        blob[draw.randrange(len(blob))] ^= 1 << draw.randrange(8)
        return blob
    return damage(course, flip)


def torn_file(course):
    return damage(course, lambda blob, draw: blob[:draw.randrange(len(blob))])


SHORT = [rank_killed, rank_stopped, launcher_killed, out_of_memory, power_cut, disk_full, file_error, flipped_byte, torn_file]
KINDS = SHORT + [host_lost, link_cut]
SANITIZED = [rank_killed, power_cut, flipped_byte]


# ---- The course.


def chosen_kinds(draw):
    """The short form has each kind once, but for those of hosts (test_hosts.py); the long one draws."""
    named = [kind for kind in KINDS if kind.__name__ in (options.kinds or "").split(",")]
    if options.count is None:
        kinds = named or list(SANITIZED if LIGHT else SHORT)
        draw.shuffle(kinds)
        return kinds
    return [draw.choice(named or KINDS) for _ in range(options.count)]


def one_fault(course, kind, number):
    """Returns False when this machine cannot show it."""
    try:
        seconds = kind(course)
    except Skipped as why:
        print(f"    {number}: {kind.__name__} left out: {why}", flush=True)
        return False
    if course.committed > 0:
        Job(course.case.folder, 0, "verify", course.saves()[course.committed]).expect(OK)
    for left in (course.case.folder / RUN / "checkpoints").glob("*.left"):
        shutil.rmtree(left)
    lost = course.reached - course.committed
    course.rows[kind.__name__].append((seconds, lost))
    print(f"    {number}: {kind.__name__}: down after {seconds:.1f} s, step {course.reached}, goes on from {course.committed}", flush=True)
    return True


def table(course):
    print(f"    {'kind':16} {'count':>5} {'seconds to down':>22} {'steps lost':>20}")
    for name, rows in sorted(course.rows.items()):
        seconds, lost = sorted(row[0] for row in rows), sorted(row[1] for row in rows)
        print(f"    {name:16} {len(rows):5} {f'median {seconds[len(rows) // 2]:.1f}, most {seconds[-1]:.1f}':>22} "
              f"{f'median {lost[len(rows) // 2]}, most {lost[-1]}':>20}")
    print(f"    {sum(map(len, course.rows.values()))} faults: 0 checkpoints lost, 0 ranks that lived on; {course.stuck} launchers had to be ended", flush=True)


def whatever_breaks(case):
    seed = options.seed if options.seed is not None else int(os.environ.get("ESPL_TEST_SEED", random.SystemRandom().getrandbits(31)))
    print(f"    --seed {seed}", flush=True)
    draw = random.Random(seed)
    with Disk(case.folder) as disk:
        course = Course(case, disk, draw)
        for number, kind in enumerate(chosen_kinds(draw), 1):
            one_fault(course, kind, number)
        job = case.start(2, RUN, **{**KEYS, "train__stop_after": 2})
        job.expect(STOPPED)
        course.check_resumed(job)
        steps = case.last_step(RUN)
        case.train(1, "whole", STOPPED, **{**KEYS, "checkpoint__every": 0, "train__stop_after": steps})
        check(case.digest(RUN) == case.digest("whole"), "the run ends in other weights than the undisturbed one")
        print(f"    step {steps}: digest {case.digest(RUN)}, as undisturbed on one rank")
        table(course)


def read_options():
    parser = argparse.ArgumentParser()
    parser.add_argument("espalier")
    parser.add_argument("--count", type=int, help="of random faults; without it, a short form")
    parser.add_argument("--seed", type=int, help="repeats what was drawn")
    parser.add_argument("--kinds", help="only these: " + ", ".join(kind.__name__ for kind in KINDS))
    parser.parse_args(namespace=options)
    sys.argv[2:] = []


if __name__ == "__main__":
    read_options()
    sys.exit(main([whatever_breaks]))
