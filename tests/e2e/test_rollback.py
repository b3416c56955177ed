# test: tier=default timeout=300
"""What steps far from those before them do: told, skipped, rolled back with their data left out, or the end; with the same bits on any number of
ranks, resumed or not.

test_rollback.py ESPALIER
"""

import random
import sys

from job import LIGHT, NUMERIC, OK, STOPPED, USAGE, Job, check, main

SENTENCE = "The gardener waters the roses in the morning, and the roses grow. "
KEYS = {"train__steps": 36, "train__micro_batch_tokens": 64, "train__micro_batches": 4, "optim__lr": 6e-3, "optim__schedule": "constant",
        "model__dropout": 0.0, "train__spike_window": 8, "train__spike_factor": 2, "checkpoint__every": 4, "checkpoint__keep_last": 3}
SPIKES = [29, 33]  # where the text below has them, with these keys, once the loss is low


def noisy_text(case):
    """A sentence again and again, and at some places what no model can expect."""
    draw = random.Random(7)
    parts = ["".join(chr(draw.randrange(33, 126)) for _ in range(60)) + SENTENCE * 90 for _ in range(7)]
    case.text.write_text(SENTENCE * 20 + "".join(parts), encoding="utf-8")


def trace(case, run):
    return [(row["step"], row["loss"], row["grad_norm"]) for row in case.metrics(run, "step")], case.digest(run)


def events(case, run, event):
    return [row["step"] for row in case.metrics(run, event)]


def told_or_skipped(case):
    noisy_text(case)
    case.train(0, "ignored", train__on_spike="ignore", **KEYS)
    check("spike" in case.train(0, "told", **KEYS).stderr, "a spike is not told")
    check(events(case, "told", "spike") == SPIKES and not events(case, "ignored", "spike"), f"spikes at {events(case, 'told', 'spike')}, expected {SPIKES}")
    check(trace(case, "told") == trace(case, "ignored"), "telling of a spike changes the run")
    for ranks in (0, 2):
        case.train(ranks, f"skipped-{ranks}", train__on_spike="skip", **KEYS)
    check(trace(case, "skipped-0") == trace(case, "skipped-2"), "with steps skipped, 1 and 2 ranks differ")
    check(case.metrics("skipped-2", "step")[-1]["skipped_steps"] >= 2 and events(case, "skipped-2", "spike")[0] == SPIKES[0], "nothing was skipped")
    check(case.digest("skipped-2") != case.digest("told"), "a skipped step was not skipped")


def ended(case):
    noisy_text(case)
    case.start(0, "stopped", train__on_spike="stop", **KEYS).expect_failure(NUMERIC, f"step {SPIKES[0]}: a spike", "train.on_spike: stop")
    case.start(2, "limited", train__on_spike="skip", train__max_nonfinite_steps=0, **KEYS).expect_failure(NUMERIC, "1 steps in a row were spikes")


def rolled_back(case):
    """Back to step 24 at each spike, again and again, and on with the data behind it."""
    noisy_text(case)
    keys = {**KEYS, "train__on_spike": "rollback", "train__max_rollbacks": 9, "checkpoint__every": 8}
    case.train(0, "told", **KEYS)
    for ranks in (2, 4) if LIGHT else (1, 4):
        case.train(ranks, f"run-{ranks}", **keys)
    check(trace(case, "run-4") == trace(case, "run-2" if LIGHT else "run-1"), "rolled back, 4 ranks differ")
    rows = {row["step"]: row for row in case.metrics("run-4", "step")}
    before = {row["step"]: row for row in case.metrics("told", "step")}
    back = case.metrics("run-4", "rollback")
    check([row["rollbacks"] for row in back] == list(range(1, len(back) + 1)) and len(back) >= 2, f"rollbacks: {back}")
    check([(row["after"], row["bad"], row["from"], row["to"]) for row in back][:2] == [(24, 29, [0, 96], [0, 116]), (24, 33, [0, 96], [0, 152])], f"rollbacks: {back}")
    check(list(rows) == list(range(1, 37)), f"each step is there once: {list(rows)}")
    check(all(rows[s]["loss"] == before[s]["loss"] for s in range(1, 25)), "what came before the checkpoint changed")
    left = (rows[36]["epoch"] - before[36]["epoch"]) / before[1]["epoch"]
    expected = (back[-1]["to"][1] - 4 * back[-1]["after"]) / 4
    check(abs(left - expected) < 1e-6, f"the data of {left} steps were left out, expected {expected}")
    check(not events(case, "run-4", "spike"), "a spike is still there")
    job = Job(case.folder, 0, "report", case.folder / "run-4", case.folder / "told", "--format", "md", "--output", case.folder / "report.md")
    job.expect(OK)
    page = (case.folder / "report.md").read_text(encoding="utf-8")
    check("rollback to this step from step 29" in page and f"| {SPIKES[1]} | spike: loss " in page, f"the report does not tell:\n{page[:3000]}")


def resumed(case):
    """A run that is stopped behind a rollback, or ends before the checkpoint that would remember it, is gone on with to the same bits."""
    noisy_text(case)
    keys = {**KEYS, "train__on_spike": "rollback", "train__max_rollbacks": 9, "checkpoint__every": 8}
    case.train(2, "whole", **keys)
    case.train(2, "stopped", STOPPED, train__stop_after=30, **keys)
    check(len(case.metrics("stopped", "rollback")) >= 1, "it was meant to stop behind a rollback")
    case.train(1, "stopped", **keys)
    check(trace(case, "stopped") == trace(case, "whole"), "stopped behind a rollback and resumed, it differs")
    case.start(2, "limited", **{**keys, "train__max_rollbacks": 1}).expect_failure(NUMERIC, "bad again after 1 rollbacks", "train.max_rollbacks is 1")
    case.train(4, "limited", **keys)
    check(trace(case, "limited") == trace(case, "whole"), "ended by train.max_rollbacks and resumed with more, it differs")


def not_finite(case):
    """Weights that an update ruined are left behind; with nothing to go back to, the run ends and says so."""
    keys = {**KEYS, "checkpoint__every": 2, "train__on_nonfinite": "rollback", "train__max_nonfinite_steps": 1, "train__max_rollbacks": 2}
    case.start(0, "refused", **{**keys, "checkpoint__every": 0}).expect_failure(USAGE, "train.on_nonfinite is rollback, but checkpoint.every is 0")
    case.train(2, "run", STOPPED, train__stop_after=4, **keys)
    good = case.digest("run/checkpoints/step-00000004")
    wild = {**keys, "optim__lr": 1e30, "train__clip_norm": 0.0, "train__rollback_margin": 0}
    job = case.start(2, "run", **wild)
    job.expect(NUMERIC, "rollback 2 of 2", "after 2 rollbacks")
    check(case.digest("run") == good, "the newest checkpoint is not the good one", job)
    case.start(2, "nothing", **wild).expect(NUMERIC, "there is no checkpoint to go back to")


if __name__ == "__main__":
    sys.exit(main([rolled_back, not_finite] if LIGHT else [told_or_skipped, ended, rolled_back, resumed, not_finite]))
