# test: tier=default timeout=420 sanitized=no
"""A small run on Shakespeare really learns, and what it exports is what it measured."""

import collections
import json
import math
import os
import sys

from job import DATA, OK, TOKENIZER, Failed, Job, check, main

STEPS = 120
KEYS = {"data__train": [str(DATA / "shakespeare.txt")], "data__valid": [str(DATA / "shakespeare_valid.txt")], "model__dropout": 0.0, "train__steps": STEPS,
        "train__micro_batch_tokens": 512, "train__micro_batches": 4, "train__eval_every": 20, "train__eval_batches": 12, "optim__lr": 6e-3,
        "optim__beta2": 0.95, "optim__warmup_steps": 5, "run__reduction": "fast"}
UNIFORM = math.log(2048)  # nats a token of a model that knows nothing
MARGIN = 0.4  # nats that the model must be better than the frequencies of single tokens: it uses what stands before


def bound(case, name):
    """Nats a token, less the margin, of the best model of a text that knows nothing but how often every token comes."""
    job = Job(case.folder, 0, "tokenize", "--null", TOKENIZER, DATA / name)
    job.expect(OK)
    counts = collections.Counter(job.stdout.split())
    total = sum(counts.values())
    return -sum(n / total * math.log(n / total) for n in counts.values()) - MARGIN


def check_learns(case, run):
    rows, evaluations = case.metrics(run, "step"), case.metrics(run, "eval")
    train, valid = bound(case, "shakespeare.txt"), bound(case, "shakespeare_valid.txt")
    first, last = rows[0]["loss"], sum(row["loss"] for row in rows[-5:]) / 5
    check(abs(first - UNIFORM) < 0.3, f"a new model should be as good as guessing ({UNIFORM:.2f} nats), the first loss is {first}")
    check(last < train, f"the loss should fall below {train:.3f}, it fell from {first:.3f} to {last:.3f}")
    found = [row["perplexity"] for row in evaluations]
    check(found == sorted(found, reverse=True) and found[-1] < math.exp(valid), f"perplexity of the validation text: {found}, bound {math.exp(valid):.1f}")
    for row in evaluations:
        check(math.isclose(row["perplexity"], math.exp(row["valid_loss"]), rel_tol=1e-9), f"perplexity is not exp(loss): {row}")
    print(f"    loss {first:.3f} -> {last:.3f} (bound {train:.3f}), validation perplexity {', '.join(f'{p:.1f}' for p in found)} (bound {math.exp(valid):.1f})")


def fails(check_it, *arguments):
    try:
        check_it(*arguments)
    except Failed:
        return True
    return False


def a_run_learns(case):
    case.train(2, **KEYS)
    check_learns(case, "run")


def a_run_with_a_planted_bug_does_not(case):
    """The control: with a rate of 0 the checks above must fail."""
    case.train(2, "none", **{**KEYS, "optim__lr": 0.0, "train__steps": 10, "train__eval_every": 5})
    check(fails(check_learns, case, "none"), "a run that changes nothing passes for one that learns")


def evaluate(case, ranks, *arguments):
    """The result of `espalier eval` of the last config."""
    job = Job(case.folder, ranks, "eval", case.folder / f"config-{case.n_configs}.yaml", "--json", *arguments)
    job.expect(OK)
    return json.loads(job.stdout.splitlines()[-1])


def the_export_is_what_was_measured(case):
    """On fp32 the exported weights are the trained ones: the same loss to the last bit, from the run and from the folder, on any ranks."""
    case.train(2, **{**KEYS, "train__steps": 20, "train__eval_every": 4, "checkpoint__export": True})
    last = case.metrics("run", "eval")[-1]
    found = {f"{ranks} ranks, {how}": evaluate(case, ranks, *words) for ranks in (0, 2)
             for how, words in (("checkpoint", []), ("export", ["--model", case.folder / "run" / "model"]))}
    for how, result in found.items():
        check(result["loss"] == last["valid_loss"] and result["tokens"] == last["valid_tokens"],
              f"eval ({how}) finds {result}, the run's last evaluation was {last}")
    check(sorted(os.listdir(case.folder / "run" / "model")) == ["README.md", "config.json", "espalier.json", "model.safetensors", "tokenizer.json"],
          f"the export holds {os.listdir(case.folder / 'run' / 'model')}")


if __name__ == "__main__":
    sys.exit(main([a_run_learns, a_run_with_a_planted_bug_does_not, the_export_is_what_was_measured]))
