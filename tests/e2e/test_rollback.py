# test: tier=default timeout=300
"""What steps far from those before them do: told, skipped, rolled back with their data left out, or the end; with the same bits on any number of
ranks, resumed or not.

test_rollback.py ESPALIER
"""

import json
import random
import sys

from job import GPUS, MODEL, NUMERIC, OK, STOPPED, USAGE, Job, check, main, needs_emulated_gpus

SENTENCE = "The gardener waters the roses in the morning, and the roses grow. "
KEYS = {"train__steps": 36, "train__micro_batch_tokens": 64, "train__micro_batches": 4, "optim__lr": 6e-3, "optim__schedule": "constant",
        "model__dropout": 0.0, "train__spike_window": 8, "train__spike_factor": 2, "checkpoint__every": 4, "checkpoint__keep_last": 3}
SPIKES = [29, 33]  # where the text below has them, with these keys, once the loss is low


def noisy_text(case, places=7, between=90):
    """A sentence again and again, and at some places what no model can expect."""
    draw = random.Random(7)
    parts = ["".join(chr(draw.randrange(33, 126)) for _ in range(60)) + SENTENCE * between for _ in range(places)]
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
    for ranks in (1, 4):
        case.train(ranks, f"run-{ranks}", **keys)
    check(trace(case, "run-4") == trace(case, "run-1"), "rolled back, 4 ranks differ")
    rows = {row["step"]: row for row in case.metrics("run-4", "step")}
    before = {row["step"]: row for row in case.metrics("told", "step")}
    back = case.metrics("run-4", "rollback")
    check([row["rollbacks"] for row in back] == list(range(1, len(back) + 1)) and len(back) >= 2, f"rollbacks: {back}")
    check(rollbacks(case, "run-4")[:2] == [(24, 29, [0, 96], [0, 116]), (24, 33, [0, 96], [0, 152])], f"rollbacks: {back}")
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


def rollbacks(case, run):
    return [(row["after"], row["bad"], row["from"], row["to"]) for row in case.metrics(run, "rollback")]


def more_is_left_out(case):
    """train.rollback_skip: behind the bad step's data there is noise again after eight steps. Nine steps reach over it; eight end in front of it."""
    noisy_text(case)
    keys = {**KEYS, "train__steps": 30, "train__on_spike": "rollback", "train__max_rollbacks": 1, "checkpoint__every": 8}
    case.train(0, "over", train__rollback_skip=9, **keys)
    check(rollbacks(case, "over") == [(24, 29, [0, 96], [0, 116 + 9 * 4])], f"rollbacks: {rollbacks(case, 'over')}")
    rows = {row["step"]: row for row in case.metrics("over", "step")}
    check(rows[25]["epoch"] / rows[1]["epoch"] * 4 == 116 + 9 * 4 + 4, f"step 25 read up to {rows[25]['epoch'] / rows[1]['epoch'] * 4} micro-batches")
    case.start(0, "before", train__rollback_skip=8, **keys).expect_failure(NUMERIC, "step 25 is bad again after 1 rollbacks")
    check(rollbacks(case, "before") == [(24, 29, [0, 96], [0, 116 + 8 * 4])], f"rollbacks: {rollbacks(case, 'before')}")


def a_gpu_goes_back(case):
    """State goes to the emulated device again, recordings stay: one and two ranks have the same bits, and go back when and where the CPU does."""
    needs_emulated_gpus()
    noisy_text(case, 12, 30)
    case.model.write_text(json.dumps({**MODEL, "n_embd": 32, "n_head": 2}), encoding="utf-8")
    keys = {**KEYS, "data__sequence_length": 32, "train__steps": 15, "train__micro_batches": 2, "optim__lr": 2e-2, "train__spike_factor": 1.5}
    back = {**keys, "train__on_spike": "rollback", "train__max_rollbacks": 9}
    for ranks, run, device, settings in ((0, "told", "emu", keys), (0, "one", "emu", back), (2, "two", "emu", back), (0, "cpu", "cpu", back)):
        case.start(ranks, run, environment=GPUS, run__device=device, **settings).expect(OK)
    check(trace(case, "one") == trace(case, "two"), "one and two ranks differ")
    check(rollbacks(case, "one") == rollbacks(case, "cpu") != [], f"rollbacks of the GPU: {rollbacks(case, 'one')}, of the CPU: {rollbacks(case, 'cpu')}")
    after = rollbacks(case, "one")[0][0]
    check(trace(case, "one")[0][:after] == trace(case, "told")[0][:after] and trace(case, "one")[0][after] != trace(case, "told")[0][after], "it left no data out, or changed what came before")


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
    sys.exit(main([told_or_skipped, ended, rolled_back, more_is_left_out, a_gpu_goes_back, resumed, not_finite]))
