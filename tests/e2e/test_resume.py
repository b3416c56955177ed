# test: tier=default timeout=420
"""A run that was stopped and resumed, on whatever ranks, ends in the bits of one that was not; signals stop it with a checkpoint."""

import os
import pathlib
import signal
import sys
import time

from job import DATA, IO, OK, STOPPED, USAGE, check, main

MANY = 100000  # steps of runs that are signalled: they do not end by themselves
INTERRUPTED = 130


def losses(case, run):
    return {row["step"]: (row["loss"], row["grad_norm"], row["tokens"], row["epoch"]) for row in case.metrics(run, "step")}


def check_same(case, run, reference, steps):
    check(case.steps(run) == list(range(1, steps + 1)), f"metrics.jsonl should have each step once, has {case.steps(run)}")
    check(losses(case, run) == losses(case, reference), "the steps of the resumed run differ from those of the undisturbed one")
    check(case.digest(run) == case.digest(reference), "the resumed run ends in other weights than the undisturbed one")


def stopped_and_resumed(case, plan, **keys):
    """Trains 12 steps at once on one rank, and in pieces of 4 steps on the ranks of `plan`."""
    case.train(0, "whole", train__steps=12, **keys)
    for ranks in plan[:-1]:
        case.train(ranks, "pieces", STOPPED, train__steps=12, train__stop_after=4, **keys)
    case.train(plan[-1], "pieces", train__steps=12, **keys)
    check_same(case, "pieces", "whole", 12)


def windows_on_2_4_1(case):
    stopped_and_resumed(case, [2, 4, 1])


def packed_bf16_on_4_1_2(case):
    stopped_and_resumed(case, [4, 1, 2], run__dtype="bf16", data__train=[str(DATA / "plant_notes.jsonl")], data__placement="packed",
                        train__micro_batches=4, train__micro_batch_tokens=512, checkpoint__writers=2, run__sharding="none")
    check(case.metrics("whole", "step")[-1]["epoch"] > 1, "the run was meant to cross an epoch")


def bf16_without_masters_on_2_1(case):
    keys = {"run__dtype": "bf16", "optim__master": "none"}
    stopped_and_resumed(case, [2, 1, 2], **keys)
    for ranks, dtype in ((0, "fp32"), (2, "bf16")):
        case.start(ranks, "pieces", run__dtype=dtype, train__steps=12).expect_failure(USAGE, "weights are bf16", "optim.master: none")
    case.train(1, "masters", STOPPED, run__dtype="bf16", train__steps=12, train__stop_after=2)
    case.start(2, "masters", train__steps=12, **keys).expect_failure(USAGE, "weights are fp32", "optim.master: fp32")


def evaluations_and_saves_go_on(case):
    stopped_and_resumed(case, [1, 2, 0], data__valid=[str(DATA / "shakespeare_valid.txt")], train__eval_every=3, train__eval_batches=4,
                        checkpoint__every=3)
    found = {run: [(row["step"], row["valid_loss"]) for row in case.metrics(run, "eval")] for run in ("whole", "pieces")}
    check([step for step, _ in found["whole"]] == [3, 6, 9, 12], f"evaluations at {found['whole']}")
    check(found["whole"] == found["pieces"], f"the resumed run's evaluations differ: {found}")


def a_finished_run_stays_as_it_is(case):
    case.train(2, train__steps=6)
    before, steps = case.digest(), case.steps()
    case.train(1, train__steps=6)
    check(case.digest() == before and case.steps() == steps, "a finished run was changed by starting it again")


def never_begins_anew(case):
    case.train(2, "whole", train__steps=8)
    case.train(2, train__steps=8, train__micro_batches=4, checkpoint__every=2)
    check((case.folder / "run" / "done").exists(), "a finished run has no marker that says so")
    case.train(2, "run", STOPPED, ["--resume", "never"], train__steps=8, train__stop_after=3)
    check(not (case.folder / "run" / "done").exists(), "the marker of the earlier run is still there")
    check(case.steps() == [1, 2, 3], f"--resume never: metrics.jsonl holds steps {case.steps()}")
    check(sorted(case.checkpoints()) == [3], f"--resume never: step 3 was saved, but there are {sorted(case.checkpoints())}")
    left = list((case.folder / "run" / "checkpoints").glob("*.left"))
    check(len(left) == 2, f"the checkpoints of the earlier run should have been set aside, there are {left}")
    case.train(1, train__steps=8)
    check_same(case, "run", "whole", 8)


def from_a_path(case):
    case.train(1, "whole", train__steps=8)
    case.train(2, train__steps=8, checkpoint__every=2, checkpoint__keep_last=4)
    check(sorted(case.checkpoints()) == [2, 4, 6, 8], f"keep_last 4, but there are {sorted(case.checkpoints())}")
    text = case.train(4, "run", OK, ["--resume", case.checkpoints()[4]], train__steps=8).stderr
    check("step-00000004" in text, "it does not say what it resumed from")
    check_same(case, "run", "whole", 8)
    for ranks in (0, 2):
        case.start(ranks, "run", ["--resume", case.folder / "absent"]).expect_failure(IO, "absent")


def an_older_checkpoint_is_a_new_course(case):
    """After going back to an older checkpoint, what is newest is what was saved since, not what lies at a higher step."""
    case.train(1, train__steps=8, checkpoint__every=2, checkpoint__keep_last=4)
    case.train(2, "run", STOPPED, ["--resume", case.checkpoints()[4]], train__steps=8, train__stop_after=1, optim__lr=2e-3, checkpoint__keep_last=4)
    check(sorted(case.checkpoints()) == [2, 4, 5], f"checkpoints {sorted(case.checkpoints())}")
    text = case.train(1, train__steps=8, optim__lr=2e-3).stderr
    check("step 5 of 8" in text, "the run did not go on from step 5")
    check(case.steps() == list(range(1, 9)), f"metrics.jsonl has steps {case.steps()}")


def begun(case, ranks, **keys):
    """A job that has gone on for some steps, and the last of these."""
    job = case.start(ranks, train__steps=MANY, **keys)
    begin = case.last_step() + 3
    job.wait_for(f"step {begin}", lambda: case.last_step() >= begin)
    return job, begin


def ends_as_the_undisturbed_one(case, ranks):
    """Goes on a little, and compares with a run that did all these steps at once."""
    case.train(ranks, "run", STOPPED, train__steps=MANY, train__stop_after=2)
    steps = case.last_step()
    case.train(1, "whole", STOPPED, train__steps=MANY, train__stop_after=steps)
    check_same(case, "run", "whole", steps)


def signalled(case, targets):
    """One run, signalled at some steps and started again each time on other ranks; targets: (ranks, signal, who gets it)."""
    for ranks, number, who in targets:
        job, begin = begun(case, ranks)
        who(job, number)
        job.expect(STOPPED, number.name)
        steps = case.steps()
        check(max(case.checkpoints()) == steps[-1] >= begin, f"stopped after step {steps[-1]}, saved {sorted(case.checkpoints())}", job)
    ends_as_the_undisturbed_one(case, 2)


def one_rank(rank):
    return lambda job, number: job.process.send_signal(number) if job.process.args[0] != "mpirun" else signal_ranks(job, number, [rank])


def signal_ranks(job, number, ranks):
    found = job.pids()
    for rank in ranks:
        os.kill(found[rank], number)


def all_ranks(job, number):
    signal_ranks(job, number, range(job.ranks))


def launcher(job, number):
    job.process.send_signal(number)


def signals_to_ranks(case):
    signalled(case, [(0, signal.SIGTERM, one_rank(0)), (2, signal.SIGUSR1, one_rank(1)), (4, signal.SIGINT, all_ranks), (2, signal.SIGTERM, one_rank(0)),
                     (1, signal.SIGINT, all_ranks)])


def signals_to_the_launcher(case):
    signalled(case, [(2, signal.SIGUSR1, launcher), (4, signal.SIGUSR1, launcher)])


def a_launcher_that_ends_its_ranks(case):
    """On SIGTERM or SIGINT Open MPI's mpirun gives ranks a second before it kills them, and exits with 1: saved or not, the run can go on."""
    for number in (signal.SIGTERM, signal.SIGINT):
        job, _ = begun(case, 2, checkpoint__every=2)
        job.wait_for("a checkpoint", case.checkpoints)
        launcher(job, number)
        check(job.finish() != OK, "mpirun should say that the run did not end", job)
        check(case.checkpoints(), "there should be a checkpoint", job)
    ends_as_the_undisturbed_one(case, 4)


def is_pending(pid, number):
    """Whether a signal was sent that the process has not taken yet: a second one would melt into it."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(("SigPnd:", "ShdPnd:")) and int(line.split()[1], 16) >> (number - 1) & 1:
            return True
    return False


def a_second_interrupt_leaves_at_once(case):
    job = case.start(0, data__train=[str(DATA / "shakespeare.txt")], train__micro_batches=3000)  # a step takes many seconds
    job.wait_for("the first step", lambda: "steps of" in job.stderr)
    time.sleep(0.5)
    job.process.send_signal(signal.SIGINT)
    job.wait_for("the interrupt to be taken", lambda: not is_pending(job.process.pid, signal.SIGINT))
    time.sleep(0.5)
    check(job.process.poll() is None, "one interrupt should wait for the end of the step", job)
    job.process.send_signal(signal.SIGINT)
    job.expect(INTERRUPTED)
    check(not case.checkpoints(), "there should be no checkpoint")


if __name__ == "__main__":
    sys.exit(main([windows_on_2_4_1, packed_bf16_on_4_1_2, bf16_without_masters_on_2_1, evaluations_and_saves_go_on, a_finished_run_stays_as_it_is, never_begins_anew, from_a_path, an_older_checkpoint_is_a_new_course,
                   signals_to_ranks, signals_to_the_launcher, a_launcher_that_ends_its_ranks,
                   a_second_interrupt_leaves_at_once]))
