# test: tier=default timeout=300
"""The plan is the allocation: a run's peak memory is what `espalier plan` printed, and the plan holds for ranks that this machine lacks."""

import json
import subprocess
import sys

import job
from job import ROOT, USAGE, Skipped, check, main

GPT2 = ROOT / "configs/models/gpt2-124m/config.json"
BIG = {"model__config": str(GPT2), "train__micro_batch_tokens": 256, "data__sequence_length": 256, "data__append_eos": False}


def plan(case, run, *arguments, **keys):
    """The plan of the config that case.train(..., run, **keys) would use, as a dictionary."""
    config = case.config(run, **keys)
    out = subprocess.run([job.espalier, "plan", str(config), "--json", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=job.DEADLINE)
    check(out.returncode == 0, f"espalier plan ended with {out.returncode}: {out.stderr}")
    return json.loads(out.stdout)


def peak(case, run):
    return case.metrics(run, "summary")[-1]["peak_rss_bytes"]


def peak_is_as_planned(case):
    """GPT-2 124M with a quarter of its layers, so that weights and state, not libraries, are what counts; each way of keeping state, and an export at the end."""
    if b"__asan_init" in open(job.espalier, "rb").read():
        raise Skipped("the address sanitizer's own memory is not in the plan")
    case.model.write_text(json.dumps({**json.loads(GPT2.read_text(encoding="utf-8")), "n_layer": 3}), encoding="utf-8")
    for name, keys in {"fp32": {}, "bf16": {"run__dtype": "bf16"}, "alone": {"run__dtype": "bf16", "optim__master": "none", "checkpoint__every": 1}, "saves": {"checkpoint__every": 1}}.items():
        keys = {**BIG, **keys, "model__config": case.model, "train__steps": 2, "train__micro_batches": 1, "checkpoint__export": name == "fp32"}
        planned = plan(case, name, "--threads", "1", **keys)["total_bytes"]
        case.train(0, name, run__threads=1, **keys)
        found = peak(case, name)
        check(abs(found / planned - 1.0) <= 0.02, f"{name}: peak {found / 2**20:.1f} MiB, planned {planned / 2**20:.1f} MiB ({100 * (found / planned - 1):+.2f} %)")


def peak_of_ranks_is_as_planned(case):
    """What is cut over ranks (run.sharding), or over those of a group, beyond what is resident before memory is taken."""
    if b"__asan_init" in open(job.espalier, "rb").read():
        raise Skipped("the address sanitizer's own memory is not in the plan")
    case.model.write_text(json.dumps({**json.loads(GPT2.read_text(encoding="utf-8")), "n_layer": 12, "n_embd": 512, "n_head": 8, "vocab_size": 2048}), encoding="utf-8")
    sizes = []
    for name, way, ranks in (("gradients", "gradients", 2), ("groups", "parameters", 4), ("parameters", "parameters", 2)):
        keys = {**BIG, "model__config": case.model, "train__steps": 1, "train__micro_batches": ranks, "run__sharding": way, "run__reduction": "fast",
                "run__shard_group": "2" if ranks == 4 else "all", "train__micro_batch_tokens": 64, "data__sequence_length": 64}
        planned = sum(plan(case, name, "--threads", "1", "--ranks", str(ranks), **keys)["arenas"].values())
        case.train(ranks, name, run__threads=1, **keys)
        summary = case.metrics(name, "summary")[-1]
        found = summary["peak_rss_bytes"] - summary["process_bytes"]
        sizes.append(planned)
        check(abs(found / planned - 1.0) <= 0.02, f"{name}: peak {found / 2**20:.1f} MiB, planned {planned / 2**20:.1f} MiB ({100 * (found / planned - 1):+.2f} %)")
    check(sizes[2] < 0.95 * sizes[0] and abs(sizes[1] / sizes[2] - 1) < 0.01, f"parameters were meant to take less, and groups of two what two ranks take: {sizes}")


def plans_for_many_ranks(case):
    keys = {**BIG, "train__micro_batches": 4096}
    one, many = plan(case, "one", "--ranks", "1", "--peak", "100", **keys), plan(case, "many", "--ranks", "1024", "--ranks-per-node", "8", "--peak", "100", **keys)
    check(one["arenas"]["PARAM"] <= many["arenas"]["PARAM"] <= 1.2 * one["arenas"]["PARAM"], "every rank holds the weights, padded")
    check(many["arenas"]["OPT"] * 1024 <= 1.2 * one["arenas"]["OPT"], f"the optimizer's state is not cut over ranks: {many['arenas']}")
    check(one["wire_bytes_per_rank"] == 0 and many["wire_bytes_per_rank"] > 8 * 124e6, "gradients and weights, four bytes each, are sent")
    check(abs(many["compute_seconds"] * 1024 / one["compute_seconds"] - 1) < 1e-9, "the work of a step is shared")


def plans_groups(case):
    """Groups of eight on 64 ranks: the arenas of eight ranks, and what they send within a group; of a shard a sum over eight groups besides. A node is such a group."""
    for way in ("none", "optimizer", "parameters"):
        keys = {**BIG, "train__micro_batches": 64, "run__reduction": "fast", "run__sharding": way}
        words = ["--ranks", "64", "--ranks-per-node", "8", "--peak", "100"]
        groups, nodes = (plan(case, "run", *words, **keys, run__shard_group=group) for group in ("8", "node"))
        alone = plan(case, "run", "--ranks", "8", "--peak", "100", **{**keys, "train__micro_batches": 8})
        check(groups["arenas"] == nodes["arenas"] and groups["wire_bytes_across_groups"] == nodes["wire_bytes_across_groups"], f"a node is not a group of eight: {nodes}")
        off = [abs(groups["arenas"][name] / alone["arenas"][name] - 1) for name in ("PARAM", "GRAD", "OPT", "ACT", "WORK")]
        check(max(off) < 0.01, f"{way}: {groups['arenas']}, on eight ranks alone {alone['arenas']}")  # padding
        across, inside = groups["wire_bytes_across_groups"], groups["wire_bytes_per_rank"] - groups["wire_bytes_across_groups"]
        check(abs(inside / alone["wire_bytes_per_rank"] - 1) < 0.01 and abs(across / (2 * 7 / 8 * 4 * alone["parameters"] / 8) - 1) < 0.02, f"{way}: sent {inside}, {across}")
        check(alone["wire_bytes_across_groups"] == 0, "one group sends nothing to others")


def plans_what_travels_as_bf16(case):
    """Half of what gradients take of the wire, and a stage that many ranks do not cut: at most 64 MiB."""
    for ranks, sharding in ((1, "optimizer"), (8, "optimizer"), (8, "none")):
        keys = {**BIG, "train__micro_batches": 64, "run__reduction": "fast", "run__sharding": sharding}
        wide, narrow = (plan(case, "run", "--ranks", str(ranks), "--peak", "100", **keys, run__reduction_dtype=dtype) for dtype in ("fp32", "bf16"))
        sent, bound = [p["wire_bytes_per_rank"] for p in (wide, narrow)], 64 * 2**20 + 8192
        check(sent[1] == 0.75 * sent[0], f"{ranks} ranks, {sharding}: sent {sent}")  # the other half are weights, or sums, of four bytes
        check(narrow["arenas"]["GRAD"] <= plan(case, "run", "--ranks", "1", "--peak", "100", **keys)["arenas"]["GRAD"] * 1.01 + (bound if ranks > 1 else 0),
              f"{ranks} ranks, {sharding}: {narrow['arenas']}")
        check(all(narrow["arenas"][name] == wide["arenas"][name] for name in ("PARAM", "OPT", "ACT", "WORK", "STAGE")), "other arenas differ")


def plans_without_masters(case):
    keys = {**BIG, "run__dtype": "bf16", "train__micro_batches": 64}
    for ranks in (1, 64):
        masters, alone = (plan(case, "run", "--ranks", str(ranks), "--peak", "100", **keys, optim__master=how) for how in ("fp32", "none"))
        saved = masters["arenas"]["OPT"] - alone["arenas"]["OPT"]
        check(saved == masters["arenas"]["OPT"] / 3 and 4 <= saved * ranks / masters["parameters"] < 4.3, f"{ranks} ranks save {saved} bytes each")
        check(all(alone["arenas"][name] == masters["arenas"][name] for name in ("PARAM", "GRAD", "ACT", "WORK")), "other arenas differ")
        check(alone["arenas"]["STAGE"] <= masters["arenas"]["STAGE"], "a snapshot of weights in bf16 is no larger")


def plan_refuses_what_a_run_would(case):
    for keys, words in (({"optim__master": "none"}, "optim.master"), ({"train__micro_batches": 2}, "micro_batches"), ({"train__micro_batches": 12, "run__reduction": "tree"}, "run.reduction: tree"),
                        ({"run__reduction": "tree", "run__reduction_dtype": "bf16"}, "run.reduction_dtype"), ({"run__reduction": "fast", "run__shard_group": "2"}, "groups of 2 ranks must divide"), ({"run__shard_group": "pair"}, "expected all, node"),
                        ({"run__reduction": "fast", "run__shard_group": "node"}, "each node has one rank")):
        config = case.config("bad", **keys)
        out = subprocess.run([job.espalier, "plan", str(config), "--ranks", "3", "--ranks-per-node", "1", "--peak", "100"], cwd=ROOT, capture_output=True, text=True, timeout=job.DEADLINE)
        check(out.returncode == USAGE and words in out.stderr, f"exit {out.returncode}: {out.stderr}")


GOLDEN = ROOT / "tests/goldens/plan_llama3_8b.json"  # {"parameters", "ranks": {number: {arena: MiB of a rank}}}, of the recipe on GPUs
H100 = 79.6 * 1024 - 2048  # MiB of one, without 2 GiB that the driver and libraries take


def plan_recipe(ranks, *sets):
    return plan_of("llama3_8b_full.yaml", *sets, words=("--device", "cuda", "--ranks", str(ranks), "--ranks-per-node", "8"))


def plan_of(recipe, *sets, words):
    words = [*words, *(word for text in sets for word in ("--set", text))]
    command = [str(job.espalier), "plan", f"configs/{recipe}", "--json", *words]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=job.DEADLINE)
    check(out.returncode == 0, out.stderr)
    return json.loads(out.stdout)


def numbers_of(planned):
    return {"device": round(planned["device_bytes"] / 2**20), **{name: round(planned["arenas"][name] / 2**20) for name in ("PARAM", "GRAD", "OPT", "ACT", "STAGE")}}


def a_llama3_8b_is_planned(case):
    """The recipe on 8 to 64 GPUs of 80 GB: the numbers of the golden, and those that follow from the number of parameters."""
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    plans = {ranks: plan_recipe(ranks) for ranks in (8, 16, 32, 64)}
    found = {"parameters": plans[8]["parameters"], "ranks": {str(ranks): numbers_of(planned) for ranks, planned in plans.items()}}
    off = [abs(planned[name] - golden["ranks"][ranks][name]) for ranks, planned in found["ranks"].items() for name in planned]
    check(found["parameters"] == golden["parameters"] and found["ranks"].keys() == golden["ranks"].keys() and max(off) <= 1,  # red zones of a sanitizer
          f"planned {json.dumps(found)}, the golden has {json.dumps(golden)}")
    parameters = 2 * 128256 * 4096 + 4096 + 32 * (4096 * (4096 + 1024) * 2 + 3 * 4096 * 14336 + 2 * 4096)
    check(found["parameters"] == parameters, f"{found['parameters']} parameters, the shape has {parameters}")
    for ranks, planned in plans.items():
        arenas = planned["arenas"]
        check(0 <= arenas["PARAM"] / (2 * parameters) - 1 < 0.001 and 0 <= arenas["OPT"] * ranks / (12 * parameters) - 1 < 0.001, f"{ranks} ranks: {arenas}")
        check(planned["device_bytes"] / 2**20 < H100, f"{ranks} ranks do not fit: {planned['device_bytes'] / 2**20:.0f} MiB")
    ways = {way: plan_recipe(16, f"run.sharding={way}") for way in ("gradients", "parameters")}
    check(ways["gradients"]["arenas"]["GRAD"] < 4 * parameters / 16 + 1.5 * 4 * 128256 * 4096, f"gradients are not cut: {ways}")
    check(ways["parameters"]["arenas"]["PARAM"] < 2 * parameters / 16 + 2 * 128256 * 4096 + 2 * 2 * 220e6, f"weights are not cut: {ways}")
    check(all(way["arenas"][name] == plans[16]["arenas"][name] for way in ways.values() for name in ("OPT", "ACT", "WORK")), f"other arenas differ: {ways}")
    check(plan_recipe(8, "model.recompute=selective")["device_bytes"] / 2**20 > H100, "the control: with less recomputation eight GPUs are too few")


def a_tinyllama_is_planned_in_four_bits(case):
    """QLoRA at the true shape in less than 8 GiB on a CPU; PARAM is what the numbers of weights make it, in every format."""
    matrices, layers, width = 22 * (2 * 2048 * (2048 + 256) + 3 * 2048 * 5632), 22, 2048
    updates = 16 * layers * (4 * width + 2 * (2048 + 256) + 3 * (width + 5632))
    others = 2 * 32000 * width + (2 * layers + 1) * width
    size = {"nf4": 1 / 2 + 1 / 64 + 4 / (64 * 256), "int8": 1 + 4 / 3000, "as_is": 4}
    plans = {form: plan_of("tinyllama_qlora.yaml", f"tune.base={form}", words=("--peak", "100", "--threads", "2")) for form in size}
    for form, planned in plans.items():
        expected = 4 * (others + updates) + size[form] * matrices
        check(abs(planned["arenas"]["PARAM"] / expected - 1) < 1e-3, f"{form}: PARAM {planned['arenas']['PARAM']}, expected {expected:.0f}")
        check(planned["trained_parameters"] == updates and planned["parameters"] == matrices + others + updates, f"{form}: {planned}")
        check(all(planned["arenas"][name] == plans["nf4"]["arenas"][name] for name in ("GRAD", "OPT", "ACT")), f"{form}: other arenas differ")
    total = {form: planned["total_bytes"] / 2**30 for form, planned in plans.items()}
    check(total["nf4"] < 8 and total["nf4"] < 0.45 * total["as_is"], f"GiB: {total}")


if __name__ == "__main__":
    sys.exit(main([peak_is_as_planned, peak_of_ranks_is_as_planned, plans_groups, plans_for_many_ranks, plans_what_travels_as_bf16, plans_without_masters, plan_refuses_what_a_run_would,
                   a_llama3_8b_is_planned, a_tinyllama_is_planned_in_four_bits]))
