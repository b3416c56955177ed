# test: tier=default timeout=240
"""A quantised base (tune.base) under low-rank updates: a run over it is, bit for bit, the run over a base whose matrices hold what the
quantised ones expand to; and its checkpoint remembers how the base was held."""

import json

from job import LIGHT, MODEL, OK, STOPPED, USAGE, Job, check, main, needs_emulated_gpus

FORMS = {"nf4": {"tune__base": "nf4"}, "nf4-single": {"tune__base": "nf4", "tune__double_quantise": False}, "int8": {"tune__base": "int8"}}


def base_of(case):
    """A Hugging Face folder of a few steps."""
    case.train(0, "base", train__steps=3, checkpoint__export=True)
    return case.folder / "base" / "model"


def keys_of(base, **keys):
    return {"model__config": None, "model__path": str(base), "tune__method": "lora", "tune__targets": ["all-linear"], "tune__rank": 4,
            "tune__dropout": 0.1, "optim__lr": 1e-2, "train__steps": 6, **keys}


def expanded(case, base, name, **form):
    """The base with what its quantised matrices expand to: a run that learns nothing, merged."""
    run, folder = f"expand-{name}", case.folder / f"expanded-{name}"
    case.train(0, run, **keys_of(base, train__steps=1, optim__lr=0, **form))
    Job(case.folder, 0, "export", case.folder / run, folder).expect(OK)
    return folder


def losses_of(case, run):
    return [row["loss"] for row in case.metrics(run, "step")]


def it_is_the_run_over_the_expanded_base(case):
    base = base_of(case)
    for name, form in FORMS.items():
        there = expanded(case, base, name, **form)
        for dtype in ("fp32", "bf16"):
            keys = {"run__dtype": dtype, "tune__targets": ["c_attn"] if dtype == "bf16" else ["all-linear"]}  # MLP as one op, and as its parts
            a, b = f"{name}-{dtype}", f"{name}-{dtype}-expanded"
            case.train(2 if name == "nf4" and not LIGHT else 0, a, **keys_of(base, **form, **keys))
            case.train(2 if name == "nf4" and not LIGHT else 0, b, **keys_of(there, **keys))
            check(losses_of(case, a) == losses_of(case, b), f"{name} {dtype}: losses {losses_of(case, a)} and {losses_of(case, b)}")
            check(case.digest(a) == case.digest(b), f"{name} {dtype}: the updates differ")
    case.train(0, "as-is", **keys_of(base))
    check(losses_of(case, "as-is") != losses_of(case, "nf4-fp32"), "quantising changed nothing")


def evaluation_of(case, *arguments):
    return Job(case.folder, 0, "eval", case.folder / f"config-{case.n_configs}.yaml", "--json", *arguments)


def a_checkpoint_remembers_how_its_base_was_held(case):
    base = base_of(case)
    keys = {**FORMS["nf4"], "data__valid": [str(case.text)], "train__eval_batches": 2}
    case.train(0, "whole", **keys_of(base, **keys))
    case.train(2, "run", STOPPED, **keys_of(base, train__stop_after=4, **keys))
    case.start(0, **keys_of(base, **{**keys, "tune__base": "int8"})).expect_failure(USAGE, "held as nf4_double", "tune.base")
    case.start(0, **keys_of(base, **{**keys, "tune__base": "as_is"})).expect_failure(USAGE, "held as nf4_double", "tune.base")
    case.train(1, "run", **keys_of(base, **keys))
    check(case.digest("run") == case.digest("whole"), "the resumed run ends in other weights than the undisturbed one")
    Job(case.folder, 0, "export", case.folder / "run", case.folder / "merged").expect(OK)
    losses = []
    for model in ("run", "merged"):
        shown = evaluation_of(case, "--model", case.folder / model)
        shown.expect(OK)
        losses.append(json.loads(shown.stdout)["loss"])
    trained = case.metrics("run", "eval")[-1]["valid_loss"]
    check(losses[0] == trained, f"the checkpoint evaluates to {losses[0]}, in training it was {trained}")
    check(abs(losses[1] / losses[0] - 1) < 1e-6, f"losses unmerged and merged: {losses}")
    start = {"model__checkpoint": case.checkpoints("run")[6], "train__steps": 1}
    case.start(0, "plain", **keys_of(base, **start)).expect_failure(USAGE, "held as nf4_double", "export it")


def other_methods_stand_on_one_too(case):
    """Bottleneck adapters, a soft prompt, a prefix, and a classifier's way: one layer trained, the rest in four bits."""
    base = base_of(case)
    for name, method in {"bottleneck": {"tune__method": "bottleneck", "tune__targets": None, "tune__rank": None, "tune__dropout": None},
                         "prompt": {"tune__method": "prompt", "tune__targets": None, "tune__rank": None, "tune__dropout": None},
                         "prefix": {"tune__method": "prefix", "tune__targets": None, "tune__rank": None, "tune__dropout": None},
                         "part": {"tune__method": None, "tune__targets": None, "tune__rank": None, "tune__dropout": None, "tune__train": ["layers.1", "*ln_f*"]}}.items():
        keys = {**FORMS["nf4"], **method, "data__valid": [str(case.text)], "train__eval_batches": 2}
        run = case.train(0, name, **keys_of(base, **keys))
        check("the others are frozen" in run.stderr, f"{name}: nothing is frozen", run)
        shown = evaluation_of(case, "--model", case.folder / name)
        shown.expect(OK)
        trained = case.metrics(name, "eval")[-1]["valid_loss"]
        check(json.loads(shown.stdout)["loss"] == trained, f"{name}: the checkpoint evaluates to {shown.stdout}, in training it was {trained}")


def an_emulated_gpu_has_the_bits_of_the_expanded_base(case):
    """The expanded base is the CPU's export."""
    needs_emulated_gpus()
    case.model.write_text(json.dumps({**MODEL, "n_embd": 32, "n_head": 2}), encoding="utf-8")
    base = base_of(case)
    tiny = {"data__sequence_length": 32, "train__steps": 2, "train__micro_batch_tokens": 64, "train__micro_batches": 1, "tune__dropout": 0}
    for name, dtype in (("nf4", "bf16"),) if LIGHT else (("nf4", "bf16"), ("int8", "fp32")):
        there = expanded(case, base, name, **FORMS[name])
        case.train(0, name, **keys_of(base, run__device="emu", run__dtype=dtype, **tiny, **FORMS[name]))
        case.train(0, f"{name}-expanded", **keys_of(there, run__device="emu", run__dtype=dtype, **tiny))
        found = [losses_of(case, run) for run in (name, f"{name}-expanded")]
        check(found[0] == found[1] and case.digest(name) == case.digest(f"{name}-expanded"), f"{name} {dtype}: {found}")


def the_plan_is_smaller(case):
    base, plans = base_of(case), {}
    for name, form in {"as_is": {}, **FORMS}.items():
        planned = Job(case.folder, 0, "plan", case.config("run", **keys_of(base, **form)), "--json")
        planned.expect(OK)
        plans[name] = json.loads(planned.stdout)["arenas"]
    matrices = 2 * 12 * 64 * 64
    saved = {name: plans["as_is"]["PARAM"] - plans[name]["PARAM"] for name in FORMS}
    most = {"nf4": 4 - 0.5 - 1 / 64, "nf4-single": 4 - 0.5 - 1 / 16, "int8": 3}
    for name, bytes_each in most.items():
        check(0.97 * matrices * bytes_each < saved[name] <= matrices * bytes_each, f"{name} saves {saved[name]} of {matrices * bytes_each} bytes")
    case.start(0, tune__base="nf4", train__steps=1).expect_failure(USAGE, "tune.base", "tune.method: lora")


if __name__ == "__main__":
    raise SystemExit(main([it_is_the_run_over_the_expanded_base, a_checkpoint_remembers_how_its_base_was_held, other_methods_stand_on_one_too,
                           an_emulated_gpu_has_the_bits_of_the_expanded_base, the_plan_is_smaller]))
