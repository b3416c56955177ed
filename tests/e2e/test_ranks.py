# test: tier=default timeout=420
"""Any number of ranks gives the same bits with run.reduction: tree; fast gives the same bits on the same number of ranks, also where gradients
travel as bf16."""

import json
import sys

from job import DATA, LIGHT, STOPPED, USAGE, check, main

LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 64, "intermediate_size": 160,
         "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "vocab_size": 2048,
         "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "tie_word_embeddings": False, "bos_token_id": 0, "eos_token_id": 0}
PACKED = {"data__train": [str(DATA / "plant_notes.jsonl")], "data__placement": "packed", "data__sequence_length": 100}


def trace(case, run):
    """What a run printed about its steps, and its weights."""
    rows = [(row["step"], row["loss"], row["grad_norm"], row["tokens"]) for row in case.metrics(run, "step")]
    return rows, case.digest(run)


def same_on(case, ranks, name="run", **keys):
    """Trains `name` on every number of ranks (light: on the last two); all must have the same trace. Returns it."""
    ranks = ranks[-2:] if LIGHT else ranks
    traces = {}
    for n in ranks:
        check(not (case.folder / f"{name}-{n}").exists(), f"{name}-{n} would go on from another run")
        case.train(n, f"{name}-{n}", **keys)
        traces[n] = trace(case, f"{name}-{n}")
    first = traces[ranks[0]]
    check(len(first[0]) == keys.get("train__steps", 8), f"expected a line for every step, got {first[0]}")
    for n, found in traces.items():
        check(found == first, f"{n} ranks differ from {ranks[0]}:\n{found}\n{first}")
    return first


def windows_and_controls(case):
    first = same_on(case, [0, 1, 2, 4, 8], train__steps=4)
    if LIGHT:
        return
    case.train(1, "again", train__steps=4)
    check(trace(case, "again") == first, "the same run a second time differs")
    case.train(1, "seed", train__steps=4, run__seed=43)
    case.train(1, "init", train__steps=4, run__init_seed=43)
    check(case.digest("seed") != first[1], "another run.seed gives the same weights")
    check(case.digest("init") != first[1], "another run.init_seed gives the same weights")


def packed_documents_without_dropout(case):
    same_on(case, [1, 2, 4], train__steps=4, model__dropout=0.0, **PACKED)


def packed_documents_with_dropout_over_an_epoch(case):
    same_on(case, [1, 2, 4], model__dropout=0.2, train__micro_batch_tokens=512, train__micro_batches=4, train__steps=12, **PACKED)
    check(case.metrics("run-4", "step")[-1]["epoch"] > 1, "the run was meant to cross an epoch")


def bf16_sharded_and_replicated(case):
    a = same_on(case, [1, 2, 4], run__dtype="bf16", train__steps=4)
    b = same_on(case, [2, 4], "replicated", run__dtype="bf16", train__steps=4, run__sharding="none")
    check(a == b, "a replicated optimizer gives other bits than a sharded one (bf16)")
    alone = {"run__dtype": "bf16", "optim__master": "none", "train__steps": 4}
    c = same_on(case, [1, 2, 4], "alone", **alone)
    d = same_on(case, [2], "alone-replicated", run__sharding="none", **alone)
    check(c == d, "without master weights, a replicated optimizer gives other bits than a sharded one")
    check(c[1] != a[1], "optim.master changes nothing")


def replicated_is_sharded(case):
    a = same_on(case, [2, 4], train__steps=4)
    b = same_on(case, [2, 4], "replicated", train__steps=4, run__sharding="none")
    check(a == b, "a replicated optimizer gives other bits than a sharded one")


def twelve_micro_batches(case):
    same_on(case, [1, 2, 4], train__steps=3, train__micro_batches=12)


def recompute_changes_nothing(case):
    traces = {how: same_on(case, [1, 2], how, train__steps=3, model__recompute=how) for how in ("none", "selective", "full")}
    check(traces["none"] == traces["selective"] == traces["full"], f"recomputation changes the result: {traces}")


def llama_and_validation(case):
    case.model.write_text(json.dumps(LLAMA), encoding="utf-8")
    same_on(case, [1, 2, 4], train__steps=4, train__eval_every=2, data__valid=[str(DATA / "shakespeare_valid.txt")], train__eval_batches=7)
    evaluations = {n: [(row["step"], row["valid_loss"], row["valid_tokens"]) for row in case.metrics(f"run-{n}", "eval")] for n in (2, 4)}
    check(len(evaluations[2]) == 2 and evaluations[2] == evaluations[4], f"evaluations differ: {evaluations}")


def fast_repeats_itself(case):
    for n in (3,) if LIGHT else (2, 3):
        for run in ("a", "b"):
            case.train(n, f"{run}-{n}", run__reduction="fast", train__steps=4)
        check(trace(case, f"a-{n}") == trace(case, f"b-{n}"), f"fast differs between two runs on {n} ranks")


def off(case, run, base):
    """Largest difference of a loss between two runs."""
    return max(abs(a["loss"] - b["loss"]) for a, b in zip(case.metrics(run, "step"), case.metrics(base, "step")))


def gradients_travel_as_bf16(case):
    """The same bits again, resumed, and where every rank updates everything; as near to sums in fp32 as kernels in bf16 are."""
    fast = {"run__reduction": "fast", "train__steps": 4}
    narrow = {**fast, "run__reduction_dtype": "bf16"}
    case.start(2, "refused", run__reduction="tree", run__reduction_dtype="bf16").expect_failure(USAGE, "run.reduction_dtype is bf16, but run.reduction is tree")
    check(not (case.folder / "refused").exists(), "a refused run left a folder")
    case.train(2, "narrow", **narrow)
    case.train(2, "stopped", STOPPED, **narrow, train__stop_after=2)
    case.train(2, "stopped", **narrow)
    check(trace(case, "stopped") == trace(case, "narrow"), "resumed after two steps, it differs")
    if LIGHT:
        return
    case.train(2, "replicated", run__sharding="none", **narrow)
    check(trace(case, "replicated") == trace(case, "narrow"), "a replicated optimizer gives other bits than a sharded one")
    for name, keys in (("fp32", {}), ("coarse", {"run__dtype": "bf16"})):
        case.train(2, name, **fast, **keys)
    found, unit = off(case, "narrow", "fp32"), off(case, "coarse", "fp32")
    print(f"    losses are off by {found:.3g} where gradients travel as bf16, by {unit:.3g} with kernels in bf16")
    check(0 < found <= unit, "gradients that travel as bf16 are not what was asked for")
    for name, keys in (("one-fp32", fast), ("one-narrow", narrow)):
        case.train(1, name, **keys)
    check(trace(case, "one-fp32") == trace(case, "one-narrow"), "on one rank nothing travels, and nothing is rounded")


if __name__ == "__main__":
    sys.exit(main([windows_and_controls, packed_documents_without_dropout, packed_documents_with_dropout_over_an_epoch, bf16_sharded_and_replicated,
                   replicated_is_sharded, twelve_micro_batches, recompute_changes_nothing, llama_and_validation, fast_repeats_itself,
                   gradients_travel_as_bf16]))
