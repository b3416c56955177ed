# test: tier=default timeout=300
"""Every optimizer gives the same bits on any ranks, sharded or replicated, stopped and resumed; what one keeps is refused by another, and its
weights can be a start for all of them."""

import json
import re
import sys

from job import IO, LIGHT, OK, STOPPED, USAGE, Job, check, main

NAMES = ["adamw8bit", "lion", "sgd", "adafactor", "muon"]
RATES = {"optim__layer_decay": 0.6, "optim__rates": ["*ln_*=2"]}
BYTES = {"adamw": 8, "adamw8bit": 2 + 8 / 256, "lion": 4, "sgd": 4}


def trace(case, run):
    return [(row["step"], row["loss"], row["grad_norm"]) for row in case.metrics(run, "step")], case.digest(run)


def same_however_it_is_cut(case):
    seen = set()
    for name in NAMES[:1] if LIGHT else NAMES:
        keys = {"optim__name": name, "train__steps": 6, "train__micro_batches": 4, "optim__nesterov": name == "sgd", **RATES}
        case.train(0, f"{name}-1", **keys)
        case.train(4, f"{name}-4", STOPPED, train__stop_after=3, checkpoint__writers=2, **keys)
        case.train(2, f"{name}-4", run__sharding="none", **keys)
        check(trace(case, f"{name}-4") == trace(case, f"{name}-1"), f"{name}: 4 ranks, then 2 replicated ones, give other bits than one rank")
        seen.add(case.digest(f"{name}-1"))
    case.train(2, "back", STOPPED, train__stop_after=2, run__sharding="none", train__steps=6, train__micro_batches=4, optim__name=NAMES[0], **RATES)
    case.train(4, "back", train__steps=6, train__micro_batches=4, optim__name=NAMES[0], **RATES)
    check(trace(case, "back") == trace(case, f"{NAMES[0]}-1"), "2 replicated ranks, then 4, give other bits than one rank")
    check(len(seen) == (1 if LIGHT else len(NAMES)), "two optimizers end in the same weights")


def without_masters(case):
    """The states do not depend on how weights are kept."""
    for name in ("adamw8bit",) if LIGHT else ("adamw8bit", "muon"):
        keys = {"optim__name": name, "train__steps": 4, "train__micro_batches": 4, "run__dtype": "bf16", "optim__master": "none"}
        case.train(1, f"{name}-1", **keys)
        case.train(2, f"{name}-2", **keys)
        check(trace(case, f"{name}-1") == trace(case, f"{name}-2"), f"{name}: bf16 without masters: 2 ranks differ from one")


def whole_matrices(case):
    """What works on whole matrices says that every rank keeps all of its state; it updates LoRA's matrices, too, and a rate of its own goes
    to what is no matrix of a layer."""
    name = "adafactor" if LIGHT else "muon"
    keys = {"optim__name": name, "train__steps": 2, "train__micro_batches": 2}
    said = "works on whole matrices"
    check(said in case.train(2, "two", **keys).stderr, f"{name} does not say that it keeps all on both ranks")
    check(said not in case.train(0, "one", **keys).stderr, f"{name} says so on one rank")
    if LIGHT:
        return
    case.train(0, "rate", optim__adamw_lr=1e-5, **keys)
    check(trace(case, "rate") != trace(case, "one"), "optim.adamw_lr changes nothing")
    case.train(0, "scale", optim__muon_scale="original", **keys)
    check(trace(case, "scale") != trace(case, "one"), "optim.muon_scale changes nothing")
    for ranks in (0, 2):
        case.train(ranks, f"lora-{ranks}", tune__method="lora", **keys)
    check(trace(case, "lora-0") == trace(case, "lora-2"), "muon on LoRA: 2 ranks differ from one")


def another_optimizer_is_refused(case):
    case.train(0, "run", STOPPED, train__stop_after=2)
    for ranks in (0, 2):
        case.start(ranks, "run", optim__name="lion").expect_failure(USAGE, "optimizer is adamw, this run's is lion", "optim.name: adamw",
                                                                   "model.checkpoint")
    case.start(0, "typing", optim__name="adamm").expect_failure(USAGE, "optim.name", "adamw")


def rates_are_told(case):
    job = case.train(0, "run", train__steps=2, **RATES)
    check("optim.lr times 0.216 to 2," in job.stderr, "the span of learning rates is not told", job)
    start = case.metrics("run", "start")[0]
    check((round(start["rate_low"], 6), start["rate_high"]) == (0.216, 2), f"the start line has {start}")
    case.train(0, "ones", train__steps=2, optim__rates=["*=1"])
    case.train(0, "plain", train__steps=2)
    check(case.digest("ones") == case.digest("plain") != case.digest("run"), "a factor of 1 changes bits, or others do not")


def a_checkpoint_is_a_start(case):
    """Its weights, and nothing else: the optimizer, the steps and the data begin anew."""
    case.train(0, "old", train__steps=4)
    step = case.checkpoints("old")[4]
    for name, ranks, dtype in (("lion", 2, "fp32"), ("adamw", 0, "bf16")):
        case.train(ranks, name, model__checkpoint=step, optim__name=name, train__steps=1, optim__lr=0, run__dtype=dtype)
        check(case.steps(name) == [1], f"{name}: steps {case.steps(name)}")
        check(case.digest(name) == case.digest("old"), f"{name}: at a rate of 0 the weights are not those of the checkpoint")
    case.train(0, "again", model__checkpoint=step, train__steps=2, train__stop_after=1, code=STOPPED)
    case.train(0, "again", model__checkpoint=step, train__steps=2)
    case.train(0, "whole", model__checkpoint=step, train__steps=2)
    check(trace(case, "again") == trace(case, "whole"), "a run that is resumed starts from model.checkpoint again")
    case.start(0, "none", model__checkpoint=case.folder / "nothing").expect_failure(IO, "nothing")


def numbers_kept(case, name):
    """How many numbers a rule of whole matrices keeps, from the shapes of the plan."""
    job = Job(case.folder, 0, "plan", case.config("plan", optim__name=name), "--tensors")
    job.expect(OK)
    total = 0
    for tensor, rows, columns in re.findall(r"^  (\S+) +(\d+) x (\d+) .* bucket", job.stdout, re.M):
        rows, columns = int(rows), int(columns)
        matrix = columns > 1 and (name == "adafactor" or ".h." in tensor)
        total += rows + columns if matrix and name == "adafactor" else rows * columns * (1 if matrix or name == "adafactor" else 2)
    return total


def the_plan_tells(case):
    for name, size in BYTES.items():
        job = Job(case.folder, 0, "plan", case.config("plan", optim__name=name), "--json")
        job.expect(OK)
        plan = json.loads(job.stdout)
        found = plan["arenas"]["OPT"] / plan["parameters"]
        check(size <= found <= 1.05 * size, f"{name}: OPT has {found} bytes a parameter, {size} are expected")
    for name in ("adafactor", "muon"):
        job = Job(case.folder, 0, "plan", case.config("plan", optim__name=name), "--json")
        job.expect(OK)
        found, size = json.loads(job.stdout)["arenas"]["OPT"], 4 * numbers_kept(case, name)
        check(0 < size <= found <= size + 64 * 1024, f"{name}: OPT has {found} bytes, {size} are expected")


if __name__ == "__main__":
    sys.exit(main([same_however_it_is_cut, without_masters, whole_matrices, another_optimizer_is_refused, rates_are_told, a_checkpoint_is_a_start, the_plan_tells]))
