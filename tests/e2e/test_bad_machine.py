# test: tier=default timeout=420
"""What machines do: folders that cannot be written, disks that fill up during a save, ranks that stop or die. The job always ends by itself,
with a line that says why, and what was saved before is there."""

import os
import re
import shutil
import signal
import sys

from job import IO, LIGHT, OK, STOPPED, USAGE, Job, Skipped, check, main

WATCHDOG_EXIT = 5
LATE = 10  # seconds for a launcher without ranks
MANY = 100000  # steps: the run does not end by itself


def unwritable_run_folder(case):
    file = case.folder / "file"
    file.write_text("not a folder", encoding="utf-8")
    for ranks in (0, 2):
        case.start(ranks, run__dir=file / "run").expect_failure(IO, str(file))
    if os.geteuid() != 0:
        locked = case.folder / "locked"
        locked.mkdir(mode=0o500)
        for ranks in (0, 2):
            case.start(ranks, run__dir=locked / "run").expect_failure(IO, str(locked))
            case.start(ranks, run__dir=locked).expect_failure(IO, str(locked))


def saved_before(case):
    """A run that was stopped after 4 steps with a checkpoint of 4, and its undisturbed twin."""
    case.train(1, "whole")
    case.train(2, "run", STOPPED, train__stop_after=4)
    check(sorted(case.checkpoints()) == [4], f"checkpoints {sorted(case.checkpoints())}")


def older_one_is_good(case):
    check(sorted(case.checkpoints()) == [4], f"checkpoints {sorted(case.checkpoints())}")
    leftovers = [p.name for p in (case.folder / "run" / "checkpoints").iterdir() if p.name.endswith(".tmp")]
    check(not leftovers, f"the failed save left {leftovers}")
    Job(case.folder, 0, "verify", case.checkpoints()[4]).expect(OK)


def went_on(job, run):
    """A save that fails between steps is a warning: only the last one is worth an exit."""
    check("checkpoint of step 6 is not saved" in job.stderr, "no warning of the save at step 6", job)
    check("step 8" in (run / "log.txt").read_text(), "the run did not come to its last step", job)


def ends_as_if_nothing_had_been(case):
    case.train(2)
    check(case.digest() == case.digest("whole"), "the run ends in other weights than the undisturbed one")
    check(case.steps() == list(range(1, 9)), f"metrics.jsonl has steps {case.steps()}")


def file_size_limit(case):
    """No file may be larger than a megabyte: every save fails, in the foreground and in the background. (On one rank: Open MPI needs larger
    files for itself.)"""
    saved_before(case)
    limit = ["sh", "-c", 'ulimit -f 2048 && exec "$@"', "sh"]
    for background in (True, False):
        job = case.start(0, around=limit, checkpoint__every=2, checkpoint__background=background)
        job.expect_failure(IO, "checkpoint of step 8 is not saved", "File too large")
        went_on(job, case.folder / "run")
        older_one_is_good(case)
    ends_as_if_nothing_had_been(case)


FILL = """mount -t tmpfs -o size=4m tmpfs "$1" || exit 99
cp -r "$2/." "$1/" && shift 2 && "$@"
code=$?
rm -rf "$OUT" && cp -r "$RUN" "$OUT"
exit $code"""


def full_disk(case):
    """The run folder lies on a file system that holds one checkpoint, but not two. It is gone with the job, so a copy is made at its end."""
    saved_before(case)
    disk, keep = case.folder / "disk", case.folder / "keep"
    disk.mkdir()
    shutil.copytree(case.folder / "run", keep)
    for ranks in (0, 2):
        around = ["unshare", "-rm", "sh", "-c", FILL, "sh", str(disk), str(keep)]
        environment = {"RUN": str(disk), "OUT": str(case.folder / "run")}
        job = case.start(ranks, around=around, environment=environment, run__dir=disk, checkpoint__every=2)
        if job.process.wait(job.seconds_left()) in (1, 99) and "unshare" in job.stderr + job.stdout or job.process.returncode == 99:
            raise Skipped("a file system of its own cannot be mounted here (unshare -rm, mount -t tmpfs)")
        job.expect_failure(IO, "checkpoint of step 8 is not saved", "No space left")
        went_on(job, case.folder / "run")
        older_one_is_good(case)
    ends_as_if_nothing_had_been(case)


def started(case, run, ranks, **keys):
    """A long run that has passed its third step and has a checkpoint."""
    job = case.start(ranks, run, train__steps=MANY, checkpoint__every=2, **keys)
    job.wait_for("a checkpoint", lambda: case.checkpoints(run) and case.last_step(run) >= 3)
    return job


def told_of_all(line, ranks):
    """The line accounts for every rank but its own: those at its place are counted, the others named with theirs (ranks that have to wait do so in a
    step or before a save, whichever came first for them)."""
    there = re.search(r"of its node (\d+) other ranks? (?:is|are) there", line)
    return there and int(there[1]) + len(re.findall(r", rank \d+ is (?:stopped )?at step \d+ in ", line)) == ranks - 1


def a_rank_stops(case):
    for victim, ranks in ((1, 2),) if LIGHT else ((1, 2), (0, 4)):
        run = f"run-{ranks}"
        job = started(case, run, ranks, run__watchdog=6)
        os.kill(job.pids()[victim], signal.SIGSTOP)
        _, code = job.down(job.seconds_left(), LATE)
        check(code in (None, WATCHDOG_EXIT), f"expected exit {WATCHDOG_EXIT}, got {code}", job)
        lines = job.complaints()
        check(lines and all("watchdog: rank" in line and "no progress for" in line and " in " in line for line in lines),
              "expected a line of the watchdog with rank and operation", job)
        # The first to look; while the launcher ends the job it lets stopped ranks go on, and later lines find them at their place.
        check(any(told_of_all(line, ranks) and f"rank {victim} is stopped at step " in line for line in lines), "the rank that has not arrived is not named", job)
        Job(case.folder, 0, "verify", case.folder / run).expect(OK)


def a_rank_dies(case):
    for victim, ranks, number in ((1, 2, signal.SIGKILL),) if LIGHT else ((1, 2, signal.SIGKILL), (0, 4, signal.SIGKILL), (1, 2, signal.SIGSEGV)):
        run = f"run-{ranks}-{number.name}"
        job = started(case, run, ranks)
        os.kill(job.pids()[victim], number)
        _, code = job.down(job.seconds_left(), LATE)
        check(code not in (OK, STOPPED), f"a job that lost a rank exits with {code}", job)
        Job(case.folder, 0, "verify", case.folder / run).expect(OK)


def a_rank_never_comes(case):
    """It is there, but not in MPI: the other one says so and goes."""
    before = ["sh", "-c", '[ "$OMPI_COMM_WORLD_RANK" = 0 ] || exec sleep 80; exec "$@"', "sh"]
    job = case.start(2, before=before, environment={"ESPL_START_SECONDS": "3"})
    job.expect_failure(WATCHDOG_EXIT, "watchdog: rank 0 on ", "MPI has not brought the ranks together within 3 s", "ESPL_START_SECONDS: 3")
    case.start(2, environment={"ESPL_START_SECONDS": "3 s"}).expect_failure(USAGE, "ESPL_START_SECONDS is '3 s'", "expected the seconds")


if __name__ == "__main__":
    sys.exit(main([unwritable_run_folder, file_size_limit, full_disk, a_rank_stops, a_rank_dies, a_rank_never_comes]))
