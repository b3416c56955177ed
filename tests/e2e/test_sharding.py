# test: tier=default timeout=300
"""What is cut over the ranks (run.sharding) changes no bit with run.reduction: tree, on any number of ranks, resumed in another way or not; with
fast it repeats itself. What cannot be cut is refused in a line."""

import json
import sys

from job import DATA, LIGHT, STOPPED, USAGE, check, main

LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 64, "intermediate_size": 160,
         "num_hidden_layers": 5, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "vocab_size": 2048,
         "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "tie_word_embeddings": False, "bos_token_id": 0, "eos_token_id": 0}
T5 = {"architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "d_model": 32, "d_kv": 12, "d_ff": 48, "num_layers": 2,
      "num_decoder_layers": 2, "num_heads": 2, "vocab_size": 2048, "feed_forward_proj": "gated-gelu", "eos_token_id": 0, "pad_token_id": 0}
PACKED = {"data__train": [str(DATA / "plant_notes.jsonl")], "data__placement": "packed", "data__sequence_length": 100}
CUT = ["gradients", "parameters"]


def trace(case, run):
    """What a run printed about its steps, and its weights."""
    rows = [(row["step"], row["loss"], row["grad_norm"], row["tokens"]) for row in case.metrics(run, "step")]
    return rows, case.digest(run)


def lighter(items):
    return items[-1:] if LIGHT else items


def same_bits(case, name, ranks, ways, **keys):
    """Trains on one rank, and in every way on every number of ranks."""
    case.train(0, f"{name}-one", **keys)
    first = trace(case, f"{name}-one")
    for way in ways:
        for n in ranks:
            run = f"{name}-{way}-{n}"
            case.train(n, run, run__sharding=way, **keys)
            check(trace(case, run) == first, f"{run} differs from one rank:\n{trace(case, run)}\n{first}")
    return first


def all_ways_have_the_same_bits(case):
    """A tied embedding, dropout and windows; eight micro-batches a step, so 4 and 2 a rank."""
    same_bits(case, "gpt2", lighter([4, 2]), CUT, train__steps=3)


def groups_have_the_same_bits(case):
    """Four ranks in two groups that hold everything each: the bits of one rank and of all other ways, and replicas are compared. A node is all ranks here."""
    case.train(0, "one", train__steps=3)
    first = trace(case, "one")
    ways = [(4, way, "2") for way in lighter(["none", "optimizer", *CUT])] + [(2, "parameters", "node")]
    for n, way, group in ways:
        run = f"{way}-{n}-{group}"
        job = case.train(n, run, run__sharding=way, run__shard_group=group, run__check_replicas_every=1, train__steps=3)
        check(trace(case, run) == first, f"{run} differs from one rank:\n{trace(case, run)}\n{first}")
        check(("2 groups of 2 ranks" in job.stderr) == (n == 4 and group == "2"), f"{run}: the log does not say its groups", job)


def groups_are_resumed(case):
    """What two groups save, each a part, goes on elsewhere, and the reverse; bf16 of eight bits of state, whose scales are of whole buckets."""
    keys = {"train__steps": 4, "checkpoint__every": 2, "checkpoint__writers": 2, "run__dtype": "bf16", "optim__name": "adamw8bit"}
    case.train(0, "whole", **keys)
    first = trace(case, "whole")
    for run, a, b in lighter([("from", (4, "optimizer", "2"), (2, "parameters", "all")), ("to", (1, "none", "all"), (4, "gradients", "2"))]):
        for (n, way, group), code in ((a, STOPPED), (b, 0)):
            job = case.train(n, run, code, run__sharding=way, run__shard_group=group, **({"train__stop_after": 2} if code else {}), **keys)
        check(trace(case, run) == first, f"{run}: stopped on {a} and resumed on {b}, it differs", job)


def bf16_with_and_without_masters(case):
    case.model.write_text(json.dumps(LLAMA), encoding="utf-8")
    for name, keys in lighter([("masters", {}), ("alone", {"optim__master": "none"})]):
        same_bits(case, name, [2], CUT, run__dtype="bf16", train__steps=3, **PACKED, **keys)


def what_joins_later_and_what_is_frozen(case):
    """A phase has a flow of its own; a bucket that is not trained yet is in none."""
    same_bits(case, "phases", [2], CUT, tune__train=["layers.1"], tune__unfreeze=["layers.0@2"], train__steps=4)
    if not LIGHT:
        same_bits(case, "dora", [2], ["gradients"], tune__method="dora", train__steps=2)
        same_bits(case, "quantised", [2], ["parameters"], tune__train=["layers.1"], tune__base="nf4", optim__name="adamw8bit", train__steps=2)


def resumed_in_another_way(case):
    keys = {"train__steps": 4, "checkpoint__every": 2}
    case.train(0, "whole", **keys)
    first = trace(case, "whole")
    for way in lighter(CUT):
        for i, (a, b) in enumerate(lighter([((0, "optimizer"), (2, way)), ((4, way), (2, "none"))])):
            run = f"{way}-{i}"
            case.train(a[0], run, STOPPED, run__sharding=a[1], train__stop_after=2, **keys)
            case.train(b[0], run, run__sharding=b[1], **keys)
            check(trace(case, run) == first, f"{way}: stopped on {a} and resumed on {b}, it differs")


def evaluated_and_exported(case):
    """Seven micro-batches of text: the last round leaves a rank without one, which then only moves weights. What is exported starts the next run, an encoder-decoder."""
    keys = {"train__steps": 2, "train__eval_every": 1, "train__eval_batches": 7, "data__valid": [str(DATA / "shakespeare_valid.txt")],
            "data__probe": [str(DATA / "shakespeare_valid.txt")], "run__check_replicas_every": 1}
    t5 = {"data__task": "seq2seq", "data__placement": "packed", "data__train": [str(DATA / "speeches.jsonl")], "data__source_field": "text", "data__target_field": "label"}
    for name, more in lighter([("gpt2", keys), ("t5", {**t5, "train__steps": 2})]):
        if name == "t5":
            case.model.write_text(json.dumps(T5), encoding="utf-8")
        for run, n, way in (("one", 0, "optimizer"), ("two", 2, "parameters")):
            case.train(n, f"{name}-{run}", run__sharding=way, checkpoint__export=True, **more)
            case.train(n, f"{name}-{run}-again", run__sharding=way, model__config=None, model__path=case.folder / f"{name}-{run}" / "model", **more)
        for run in ("", "-again"):
            found = [(trace(case, f"{name}-{n}{run}"), [(row["step"], row["valid_loss"], row["valid_tokens"]) for row in case.metrics(f"{name}-{n}{run}", "eval")]) for n in ("one", "two")]
            check(found[0] == found[1], f"{name}{run}: {found}")


def fast_repeats_itself(case):
    """Sums over the ranks of each micro-batch, then over micro-batches: near the other order, whatever travels, and the same bits twice."""
    fast = {"run__reduction": "fast", "train__steps": 4, "train__micro_batches": 6}
    case.train(3, "optimizer", **fast)
    for run in ("groups-a", "groups-b"):
        case.train(4, run, run__sharding="gradients", run__shard_group="2", **{**fast, "train__micro_batches": 8})
    check(trace(case, "groups-a") == trace(case, "groups-b"), "groups: the same run a second time differs")
    for name, keys in {"fp32": {}, "bf16": {"run__reduction_dtype": "bf16"}}.items():
        for way in lighter(CUT):
            for run in ("a", "b"):
                case.train(3, f"{name}-{way}-{run}", run__sharding=way, **fast, **keys)
            check(trace(case, f"{name}-{way}-a") == trace(case, f"{name}-{way}-b"), f"{name}, {way}: the same run a second time differs")
            off = max(abs(a["loss"] - b["loss"]) for a, b in zip(case.metrics(f"{name}-{way}-a", "step"), case.metrics("optimizer", "step")))
            print(f"    {name}, {way}: losses are off by {off:.3g}")
            check(off < 1e-3, f"{name}, {way}: losses are off by {off}")


def what_cannot_be_cut_is_refused(case):
    """And on one rank there is nothing to cut."""
    for keys, words in (({"train__micro_batches": 12}, "must be a power of two"), ({"optim__name": "muon"}, "optim.name muon works on whole matrices"),
                        ({"run__reduction": "fast", "train__micro_batches": 7}, "must divide train.micro_batches (7)"),
                        ({"run__shard_group": "1"}, "expected all, node, or the ranks of a group"), ({"run__sharding": "parameters", "tune__method": "lora"}, "tune.method lora leaves those frozen that take the room")):
        case.start(2, "refused", **{"run__sharding": "gradients", **keys}).expect_failure(USAGE, words)
        check(not (case.folder / "refused").exists(), "a refused run left a folder")
    case.start(4, "refused", run__shard_group="2", run__reduction="fast", run__reduction_dtype="bf16").expect_failure(USAGE, "makes 2 groups of 2 ranks")


if __name__ == "__main__":
    sys.exit(main([all_ways_have_the_same_bits, groups_have_the_same_bits, groups_are_resumed, bf16_with_and_without_masters, what_joins_later_and_what_is_frozen, resumed_in_another_way, evaluated_and_exported, fast_repeats_itself,
                   what_cannot_be_cut_is_refused]))
