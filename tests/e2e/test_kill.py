# test: tier=default timeout=180 sanitized=no
# test: tier=long timeout=1500 arguments=kills=50
"""kill -9 at random moments, start-up, steps and saves included: the run always goes on, on any ranks, and ends in the undisturbed run's bits.

test_kill.py ESPALIER [kills=N]
"""

import os
import signal
import sys
import time

from job import OK, Job, check, main, seeded, send, session_members

STEPS = 24
RANKS = [0, 1, 2, 4]
KEYS = {"train__steps": STEPS, "checkpoint__every": 2, "train__micro_batches": 4}
kills = 6


def steps_and_losses(case, run):
    return [(row["step"], row["loss"], row["grad_norm"]) for row in case.metrics(run, "step")]


def moment(draw):
    """When to kill: seconds after the start (one in four), or some steps after the first one and then some milliseconds."""
    return (None, draw.uniform(0.0, 1.0)) if draw.random() < 0.25 else (draw.randrange(12), draw.uniform(0.0, 0.06))


def kill_at(job, steps, seconds, last_step):
    """Ends all processes of the job at a moment; False when it was over before."""
    goal = last_step() + 1 + (steps or 0)
    while steps is not None and last_step() < goal and job.process.poll() is None:
        time.sleep(0.002)
    time.sleep(seconds)
    if job.process.poll() is not None:
        job.expect(OK)
        return False
    members = session_members(job.process.pid)
    send(members, signal.SIGKILL)
    job.end()
    return True


def check_committed(case, run):
    """What is under its final name is whole, whenever the kill came."""
    for path in case.checkpoints(run).values():
        Job(case.folder, 0, "verify", path).expect(OK)


def one_life(case, run, whole, left, draw):
    """Starts `run` again and again, killing it at most `left` times, until it has ended; returns the number of kills."""
    dead = 0
    while True:
        ranks = draw.choice(RANKS)
        job = case.start(ranks, run, **KEYS)
        if dead == left:
            job.expect(OK)
            break
        if not kill_at(job, *moment(draw), lambda: case.last_step(run)):
            break
        dead += 1
        saving = [name for name in os.listdir(case.folder / run / "checkpoints") if name.endswith(".tmp")] if case.checkpoints(run) else []
        print(f"    {run}, kill {dead}: {ranks} ranks, step {case.last_step(run)}, saved {sorted(case.checkpoints(run))}, under way {saving}", flush=True)
        check_committed(case, run)
    check(steps_and_losses(case, run) == steps_and_losses(case, whole), f"{run}: steps or losses differ from the undisturbed run's")
    check(case.digest(run) == case.digest(whole), f"{run} ends in other weights than the undisturbed one")
    return dead


def killed_at_random_moments(case):
    draw = seeded()
    case.train(2, "whole", **KEYS)
    done, lives = 0, 0
    while done < kills:
        lives += 1
        done += one_life(case, f"run-{lives}", "whole", min(kills - done, draw.randint(2, 6)), draw)
    print(f"    {done} kills in {lives} runs, all of which ended in the digest {case.digest('whole')}")


if __name__ == "__main__":
    for word in [w for w in sys.argv[2:] if w.startswith("kills=")]:
        kills = int(word[6:])
        sys.argv.remove(word)
    sys.exit(main([killed_at_random_moments]))
