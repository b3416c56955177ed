# test: tier=default timeout=900
"""Whole runs of the GPU's code over the emulated GPU (run.device: emu): their results are the CPU's within bounds, and the same bits on any
number of ranks, in any legal order of streams and threads, recorded or not; states go over to the CPU and back; what is wrong is told."""

import array
import json
import math
import os
import re
import shutil
import struct
import subprocess
import sys

import job
from job import DATA, GPUS, IO, MODEL, OK, STOPPED, USAGE, Job, check, main, needs_emulated_gpus

GPT2 = {**MODEL, "n_embd": 32, "n_head": 2}
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 32, "intermediate_size": 48,
         "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "vocab_size": 2048,
         "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "tie_word_embeddings": False, "bos_token_id": 0, "eos_token_id": 0}
BERT = {"architectures": ["BertForSequenceClassification"], "model_type": "bert", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": 128, "vocab_size": 2048}
T5 = {"architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "d_model": 32, "d_kv": 12, "d_ff": 48, "num_layers": 2,
      "num_decoder_layers": 2, "num_heads": 2, "vocab_size": 2048, "feed_forward_proj": "gated-gelu", "eos_token_id": 0, "pad_token_id": 0}
CLASSES = {"data__task": "classification", "data__placement": "packed", "data__train": [str(DATA / "speeches.jsonl")]}
PAIRS = {"data__task": "seq2seq", "data__placement": "packed", "data__train": [str(DATA / "speeches.jsonl")], "data__source_field": "text", "data__target_field": "label"}
WINDOWS = {"data__placement": "windows"}
PACKED = {"data__placement": "packed", "data__train": [str(DATA / "plant_notes.jsonl")]}
TINY = {"run__device": "emu", "model__dropout": 0.1, "data__sequence_length": 32, "train__steps": 4, "train__micro_batch_tokens": 64,
        "train__micro_batches": 4}
WATCHDOG_EXIT = 5

# The 2x rule: another implementation may be as far from the CPU's fp32 as twice the CPU's own bf16 is. For fp32 the same, where a rounding is
# 2^-16 of bf16's, and sums of up to 2048 terms (the vocabulary), kept in fp32 by both formats, err by some root of 2048 roundings (Higham
# 2002, section 4.2).
BF16_BOUND = 2.0
FP32_BOUND = 2.0 * 2.0**-16 * math.sqrt(2048)


def lighter(variations):
    """Under sanitizers one of them: that the others have the same bits is shown by the release build."""
    return variations[:1] if job.LIGHT else variations


def start(case, ranks, run, model=None, environment=None, arguments=(), before=(), **keys):
    case.model.write_text(json.dumps(model or GPT2), encoding="utf-8")
    return case.start(ranks, run, arguments, before=before, **{**TINY, **keys}, environment={**GPUS, **(environment or {})})


def train(case, ranks, run, code=OK, **keys):
    started = start(case, ranks, run, **keys)
    started.expect(code)
    return started


def trace(case, run):
    """What a run found in its steps, and its weights: the same bits or not."""
    return [(row["step"], row["loss"], row["grad_norm"], row["tokens"]) for row in case.metrics(run, "step")], case.digest(run)


def losses(case, run):
    return [row["loss"] for row in case.metrics(run, "step")]


def weights(case, run):
    """Name -> fp32 weights of the newest checkpoint."""
    folder = case.folder / f"{run}-exported"
    Job(case.folder, 0, "export", case.folder / run, folder).expect(OK)
    data = (folder / "model.safetensors").read_bytes()
    end = 8 + struct.unpack("<Q", data[:8])[0]
    rows = {name: row["data_offsets"] for name, row in json.loads(data[8:end]).items() if name != "__metadata__"}
    return {name: array.array("f", data[end + at[0]:end + at[1]]) for name, at in rows.items()}


def distance(case, run, base):
    """Largest difference of a loss, and Euclidean distance of all weights."""
    a, b = weights(case, run), weights(case, base)
    check(a.keys() == b.keys(), f"{run} and {base} have other tensors")
    # Softmax does not see the bias of keys: its gradient is but rounding, and AdamW makes whole steps of that.
    square = sum((x - y) ** 2 for name in a if not name.endswith("key.bias") for x, y in zip(a[name], b[name]))
    return max(abs(x - y) for x, y in zip(losses(case, run), losses(case, base))), math.sqrt(square)


def within(found, unit, bound):
    return all(x <= bound * u for x, u in zip(found, unit))


def equal_to_cpu(case, model, **keys):
    for device in ("cpu", "emu"):
        for dtype in ("fp32", "bf16"):
            train(case, 0, f"{device}-{dtype}", model=model, run__device=device, run__dtype=dtype, **keys)
    unit = distance(case, "cpu-bf16", "cpu-fp32")
    found = {dtype: distance(case, f"emu-{dtype}", "cpu-fp32") for dtype in ("fp32", "bf16")}
    text = f"(loss, weights) of bf16 are off by {unit} on the CPU; on the emulated GPU by {found}"
    print("   ", text)
    check(within(found["bf16"], unit, BF16_BOUND), text)
    check(within(found["fp32"], unit, FP32_BOUND), text)
    check(not within(found["bf16"], unit, FP32_BOUND), "the bound of fp32 does not tell bf16 from it: " + text)
    return unit


def gpt2_is_the_cpus(case):
    unit = equal_to_cpu(case, GPT2, **WINDOWS)
    if job.LIGHT:
        return
    train(case, 0, "rate", optim__lr=1.01e-3, **WINDOWS)
    train(case, 0, "seed", run__seed=43, run__dtype="bf16", **WINDOWS)
    check(not within(distance(case, "rate", "cpu-fp32"), unit, FP32_BOUND), "a learning rate that is 1 % off is within the bound of fp32")
    check(not within(distance(case, "seed", "cpu-fp32"), unit, BF16_BOUND), "another order and dropout is within the bound of bf16")


def llama_is_the_cpus(case):
    equal_to_cpu(case, LLAMA, **PACKED)


def bert_is_the_cpus(case):
    equal_to_cpu(case, BERT, **CLASSES)


def t5_is_the_cpus(case):
    equal_to_cpu(case, T5, **PAIRS)


def texts_amid_recordings(case):
    """Generating between recorded steps leaves the weights alone, and another number of ranks writes the same texts."""
    keys = {**PAIRS, "model": T5, "data__valid_fraction": 0.1, "train__eval_every": 2, "eval__generate_texts": 9, "generate__max_new_tokens": 4, "generate__beams": 2,
            "generate__temperature": 0}
    train(case, 1, "plain", **keys)
    for n in (1, 2):
        train(case, n, f"texts-{n}", eval__best="chrf", **keys)
    check(case.digest("plain") == case.digest("texts-1") == case.digest("texts-2"), "generating changes the weights")
    lines = [(case.folder / f"texts-{n}" / "evaluations/step-00000004/predictions.jsonl").read_text(encoding="utf-8") for n in (1, 2)]
    check(lines[0] == lines[1] and lines[0].count("\n") == 9, f"{lines}")


def ranks_and_sharding(case):
    for model, keys in lighter([(GPT2, {**WINDOWS, "run__dtype": "bf16", "optim__master": "none"}), (LLAMA, PACKED)]):
        kind = model["model_type"]
        for ranks, sharding in ((0, "optimizer"), (2, "optimizer"), (2, "none"), (2, "gradients"), (2, "parameters")):
            train(case, ranks, f"{kind}-{ranks}-{sharding}", model=model, run__sharding=sharding, **keys)
        first = trace(case, f"{kind}-0-optimizer")
        for run in (f"{kind}-2-{how}" for how in ("optimizer", "none", "gradients", "parameters")):
            check(trace(case, run) == first, f"{run} differs from one rank:\n{trace(case, run)}\n{first}")
        for sharding in lighter(["parameters", "optimizer"]):
            run = f"{kind}-groups-{sharding}"
            train(case, 4, run, model=model, environment={"EMU_DEVICES": "4"}, run__sharding=sharding, run__shard_group="2", run__check_replicas_every=1, **keys)
            check(trace(case, run) == first, f"{run}: two groups of two ranks differ from one rank")
        for ranks, code, more in ((2, STOPPED, {"train__stop_after": 2}), (0, OK, {})):
            train(case, ranks, f"{kind}-pieces", code, model=model, **keys, **more)
        check(trace(case, f"{kind}-pieces") == first, f"{kind}: stopped on 2 ranks and resumed on one, it differs")


def whole_matrices(case):
    """Adafactor and Muon: one rank, two, stopped and resumed, and near the CPU's."""
    for name, keys in [("muon", WINDOWS), ("adafactor", {**PACKED, "run__dtype": "bf16", "optim__master": "none"})]:
        train(case, 0, f"{name}-0", optim__name=name, **keys)
        for ranks, code, more in ((2, STOPPED, {"train__stop_after": 2}), (2, OK, {})):
            train(case, ranks, f"{name}-2", code, optim__name=name, **keys, **more)
        check(trace(case, f"{name}-2") == trace(case, f"{name}-0"), f"{name}: two ranks, stopped and resumed, differ from one")
    for run, keys in {"cpu": {}, "cpu-bf16": {"run__dtype": "bf16"}}.items():
        train(case, 0, run, run__device="cpu", optim__name="muon", **WINDOWS, **keys)
    check(within(distance(case, "muon-0", "cpu"), distance(case, "cpu-bf16", "cpu"), FP32_BOUND), "muon is not the CPU's")


def fast_repeats_itself(case):
    for run in ("a", "b"):
        train(case, 2, run, run__reduction="fast", **WINDOWS)
    check(trace(case, "a") == trace(case, "b"), "fast differs between runs on 2 ranks")
    train(case, 2, "replicated", run__reduction="fast", run__sharding="none", **WINDOWS)
    train(case, 2, "cpu", run__reduction="fast", run__device="cpu", **WINDOWS)
    train(case, 2, "cpu-bf16", run__reduction="fast", run__device="cpu", run__dtype="bf16", **WINDOWS)
    unit = distance(case, "cpu-bf16", "cpu")
    check(trace(case, "a") == trace(case, "replicated"), "fast differs when every rank updates everything")
    check(within(distance(case, "a", "cpu"), unit, FP32_BOUND), "fast on 2 ranks is not the CPU's")
    narrow = {"run__reduction": "fast", "run__reduction_dtype": "bf16"}
    train(case, 2, "narrow", **narrow, **WINDOWS)
    train(case, 2, "narrow-late", environment=LATE, run__sharding="none", **narrow, **WINDOWS)
    train(case, 2, "narrow-cpu", run__device="cpu", **narrow, **WINDOWS)
    check(trace(case, "narrow") == trace(case, "narrow-late"), "gradients that travel as bf16 differ in another order, replicated")
    found = {base: distance(case, "narrow", base) for base in ("cpu", "narrow-cpu")}
    text = f"where gradients travel as bf16, (loss, weights) are off by {found}, with kernels in bf16 by {unit}"
    print("   ", text)
    check(within(found["narrow-cpu"], unit, BF16_BOUND) and within(found["cpu"], unit, BF16_BOUND), text)
    check(not within(found["cpu"], unit, FP32_BOUND), "nothing was rounded: " + text)


LATE, RANDOM = {"EMU_STREAMS": "late", "EMU_SCHEDULE": "reverse"}, {"EMU_STREAMS": "random:1", "EMU_SCHEDULE": "random:2"}
ONE_LATE = ["sh", "-c", '[ "$OMPI_COMM_WORLD_RANK" = 0 ] || export EMU_STREAMS=late; exec "$@"', "sh"]


def any_legal_order(case):
    """Work may run as soon (the default) or as late as streams and events allow, on each rank in another way, blocks and threads in any order: the
    bits stay. Eight micro-batches a rank use the memory that they are staged in again and again."""
    few = {"run__dtype": "bf16", "train__steps": 3}
    many = {"run__reduction": "fast", "run__sharding": "none", "train__steps": 2, "train__micro_batches": 16, "train__micro_batch_tokens": 32}
    for name, keys, orders in (("tree", few, [LATE, RANDOM]), ("fast", many, [LATE, {"EMU_STREAMS": "random:3", "EMU_CPASYNC": "early"}]),
                               ("cut", {**few, "run__sharding": "parameters"}, [LATE, RANDOM])):
        train(case, 2, name, **WINDOWS, **keys)
        for i, order in enumerate(orders):
            train(case, 2, f"{name}-{i}", environment=order, **WINDOWS, **keys)
            check(trace(case, f"{name}-{i}") == trace(case, name), f"{name}: {order} changes the result")
    train(case, 2, "tree-each", before=ONE_LATE, environment={"EMU_STREAMS": "random:4"}, **WINDOWS, **few)
    check(trace(case, "tree-each") == trace(case, "tree"), "ranks whose streams run in other orders change the result")


def protected(case):
    """Device memory is closed to the host while it is at work: training, evaluation, saving and going on touch it through copies alone."""
    keys = {**PACKED, "model": LLAMA, "train__steps": 3, "train__micro_batches": 2, "data__valid": [str(DATA / "shakespeare_valid.txt")],
            "train__eval_every": 2, "train__eval_batches": 2, "checkpoint__every": 1}
    train(case, 2, "open", **keys)
    for ranks, code, more in ((2, STOPPED, {"train__stop_after": 2}), (0, OK, {})):
        train(case, ranks, "run", code, environment={"EMU_PROTECT": "1"}, **keys, **more)
    check(trace(case, "run") == trace(case, "open"), "a protected run, stopped and resumed, differs")
    found = {run: [(row["step"], row["valid_loss"]) for row in case.metrics(run, "eval")] for run in ("open", "run")}
    check(found["open"] == found["run"] and len(found["run"]) == 2, f"evaluations differ: {found}")


def snapshots_under_way(case):
    """A checkpoint's snapshot leaves the device under the next step, whose update waits for it: however late the copies run, the checkpoint is
    that of its step, weights and moments."""
    keys = {**WINDOWS, "train__micro_batches": 2, "optim__lr": 1e-2}
    train(case, 2, "none", STOPPED, train__stop_after=2, **keys)
    at = {2: case.digest("none")}
    train(case, 2, "none", **keys)
    at[4] = case.digest("none")
    for i, order in enumerate([{"EMU_STREAMS": "late"}, {"EMU_STREAMS": "early"}, {"EMU_STREAMS": "random:5"}]):
        train(case, 2, f"run-{i}", environment={**order, "EMU_COPIES": "late:300"}, checkpoint__every=2, **keys)
        found = {step: case.digest(path) for step, path in case.checkpoints(f"run-{i}").items()}
        check(found == at, f"{order}: the digests of checkpoints are {found}, without snapshots {at}")
    check(len(list(case.checkpoints("run-0")[2].glob("shard-*.h5"))) == 2, "on GPUs every rank should write")
    train(case, 0, "again", arguments=["--resume", case.checkpoints("run-0")[2]], **keys)
    check(case.digest("again") == at[4], "the moments of the checkpoint of step 2 are not those of step 2")
    text = train(case, 0, "pageable", environment={"EMU_PINNED": "4096"}, checkpoint__every=2, **keys).stderr
    check("cannot be pinned" in text and case.digest("pageable") == at[4], "memory that cannot be pinned: no warning, or another result")


def over_to_the_cpu_and_back(case):
    for dtype in ("fp32", "bf16"):
        keys = {**WINDOWS, "run__dtype": dtype, "run__sharding": "optimizer" if dtype == "fp32" else "none"}
        for device in ("emu", "cpu"):
            train(case, 0, f"{device}-{dtype}", run__device=device, **keys)
        for name, first, second in (("there", (2, "emu"), (0, "cpu")), ("back", (0, "cpu"), (2, "emu")), ("stays", (2, "emu"), (0, "emu"))):
            train(case, first[0], f"{name}-{dtype}", STOPPED, run__device=first[1], train__stop_after=2, **keys)
            before = case.digest(f"{name}-{dtype}")
            text = train(case, second[0], f"{name}-{dtype}", run__device=second[1], **keys).stderr
            check("step 2 of 4" in text and before != case.digest(f"{name}-{dtype}"), "it did not go on from step 2")
        check(trace(case, f"stays-{dtype}") == trace(case, f"emu-{dtype}"), f"{dtype}: a run resumed on other ranks differs")
    unit = distance(case, "cpu-bf16", "cpu-fp32")
    for dtype, bound in (("fp32", FP32_BOUND), ("bf16", BF16_BOUND)):
        for name in ("there", "back"):
            found = distance(case, f"{name}-{dtype}", "cpu-fp32")
            check(within(found, unit, bound), f"{name}, {dtype}: off by {found}, where bf16 on the CPU is by {unit}")


def recorded_or_not(case):
    """Recomputation changes no bits, nor does running call by call instead of what was recorded."""
    for how in ("none", "selective", "full"):
        train(case, 0, how, model__recompute=how, **WINDOWS)
    for ranks in (0, 2):
        train(case, ranks, f"calls-{ranks}", run__debug_tape=True, **WINDOWS)
    first = trace(case, "none")
    for run in ("selective", "full", "calls-0", "calls-2"):
        check(trace(case, run) == first, f"{run} differs")
    lines = {run: [json.loads(line) for line in (case.folder / run / f"tape-{rank}.jsonl").read_text().splitlines()] for run, rank in
             (("calls-0", 0), ("calls-2", 1))}
    mine = [{**line, "micro": 0} for line in lines["calls-0"] if line["micro"] == 2 and line["pass"] == "forward" and line["step"] == 1]
    other = [{**line, "micro": 0} for line in lines["calls-2"] if line["micro"] == 2 and line["pass"] == "forward" and line["step"] == 1]
    check(len(mine) > 5 and mine == other, "the tape of micro-batch 2 is not the same on one and two ranks")


def phases_are_recorded_anew(case):
    """Each phase has a tape, so recordings of its own; without recordings, on other ranks and resumed inside a phase the bits are the same."""
    keys = {"tune__train": ["layers.1"], "tune__unfreeze": ["*ln_f*@1", "layers.0@3"], "optim__layer_decay": 0.5, "train__steps": 5, **WINDOWS}
    train(case, 0, "recorded", **keys)
    train(case, 0, "calls", run__debug_tape=True, **keys)
    for ranks, code, more in ((2, STOPPED, {"train__stop_after": 2}), (2, OK, {})):
        train(case, ranks, "pieces", code, **keys, **more)
    check(trace(case, "recorded") == trace(case, "calls") == trace(case, "pieces"), "phases: recorded, call by call, or in pieces on 2 ranks, the bits differ")
    train(case, 0, "later", **{**keys, "tune__unfreeze": ["*ln_f*@1", "layers.0@4"]})
    check(trace(case, "later")[0][:3] == trace(case, "recorded")[0][:3] and case.digest("later") != case.digest("recorded"), "a phase that begins later changes what was before it, or nothing")


def method_is_the_cpus(case, **method):
    keys = {**PACKED, "model__dropout": 0, **{f"tune__{key}": value for key, value in method.items()}, "optim__lr": 0.1}
    for run, device, ranks in (("cpu", "cpu", 0), ("one", "emu", 0), ("two", "emu", 2)):
        train(case, ranks, run, model=LLAMA, run__device=device, **keys)
    found = losses(case, "cpu"), losses(case, "one")
    check(trace(case, "one") == trace(case, "two"), "one and two ranks differ")
    check(all(abs(a / b - 1) < 2.0**-24 * math.sqrt(2048) for a, b in zip(*found)), f"losses on the CPU and the emulated GPU: {found}")
    texts = [Job(case.folder, 0, "generate", case.folder / "one", "--ids", "--greedy", "--set", f"run.device={device}", "--set", "generate.max_new_tokens=8",
                 "--prompt", "The leaves of the", "--prompt", "A") for device in ("cpu", "emu")]
    for text in texts:
        text.expect(OK)
    check(texts[0].stdout == texts[1].stdout and texts[0].stdout.count(" ") > 8, f"generated: {[text.stdout for text in texts]}")


def a_soft_prompt_is_the_cpus(case):
    """What only it has: a table of its own beside the tokens', a start that is read from the device, rows in front of what is generated."""
    method_is_the_cpus(case, method="prompt", prompt_length=5, prompt_text="the leaves")


def a_prefix_is_the_cpus(case):
    """Keys and values of all layers in one parameter, put into rows of what the layers make."""
    method_is_the_cpus(case, method="prefix", prompt_length=5)


def dora_is_the_cpus(case):
    """Lengths that are read from the device at the start, norms of rows, and what generation computes once."""
    method_is_the_cpus(case, method="dora", rank=4, dropout=0, targets=["all-linear"])


def evaluated_and_generated(case):
    train(case, 0, "run", model=LLAMA, train__steps=8, optim__lr=1e-2, data__valid=[str(DATA / "shakespeare_valid.txt")], train__eval_batches=4, **PACKED)
    config, found, texts = case.folder / f"config-{case.n_configs}.yaml", {}, {}
    for device, ranks in (("cpu", 0), ("emu", 0), ("emu", 2)):
        run = Job(case.folder, ranks, "eval", config, "--json", "--set", f"run.device={device}", environment={**GPUS, "EMU_PROTECT": "1"})
        run.expect(OK)
        found[device, ranks] = json.loads(run.stdout)
    check(found["emu", 0] == found["emu", 2], f"evaluations on one and two ranks differ: {found}")
    check(abs(found["emu", 0]["loss"] / found["cpu", 0]["loss"] - 1) < 2.0**-24 * math.sqrt(2048), f"evaluations differ: {found}")
    check(abs(found["emu", 0]["loss"] - case.metrics("run", "eval")[-1]["valid_loss"]) < 1e-12, f"the run's own evaluation differs from {found}")
    for how in lighter([["--set", "generate.beams=3"], ["--greedy"], ["--set", "generate.temperature=0.7"]]):
        for device in ("cpu", "emu"):
            run = Job(case.folder, 0, "generate", case.folder / "run", "--ids", "--set", f"run.device={device}", "--set", "generate.max_new_tokens=12",
                      "--prompt", "The leaves of the", "--prompt", "A", *how, environment={"EMU_PROTECT": "1"})
            run.expect(OK)
            texts[device] = run.stdout
        check(texts["cpu"] == texts["emu"] and texts["cpu"].count(" ") > 8, f"generated with {how}: {texts}")


def plan_is_what_is_taken(case):
    """A GPU with as much memory as `espalier plan` says, and a little for what no plan knows, holds the run; one with less does not."""
    keys = {**TINY, **PACKED, "train__micro_batch_tokens": 512, "data__sequence_length": 128}
    case.model.write_text(json.dumps(LLAMA), encoding="utf-8")
    out = subprocess.run([job.espalier, "plan", str(case.config("run", **keys)), "--json"], capture_output=True, text=True, timeout=job.DEADLINE)
    check(out.returncode == OK, out.stderr)
    plan = json.loads(out.stdout)
    check(plan["device"] == "emu" and plan["device_bytes"] == sum(plan["arenas"].values()) - plan["arenas"]["STAGE"], f"the plan is {plan}")
    small, libraries = plan["device_bytes"] - 4096, 40 << 20
    text = start(case, 0, "run", model=LLAMA, environment={"EMU_MEMORY": str(small)}, **keys).expect_failure(USAGE, "too much", "MiB", "espalier plan")
    check(re.search(rf"{plan['device_bytes'] / 2**20:.1f} MiB", text), f"the line does not hold the plan's figure, {plan['device_bytes']} bytes")
    train(case, 0, "run", model=LLAMA, environment={"EMU_MEMORY": str(plan["device_bytes"] + libraries)}, **{**keys, "train__steps": 1})
    out = subprocess.run([job.espalier, "plan", str(case.config("run", **{**keys, "run__device": "auto"})), "--device", "cuda", "--ranks", "4"],
                         capture_output=True, text=True, timeout=job.DEADLINE)
    check(out.returncode == OK and "memory of a rank's GPU" in out.stdout and "cuda fp32" in out.stdout, f"plan --device cuda: {out}")


def offloaded(case):
    """What the optimizer keeps lies on the host: the same bits, also saved from there in the background and resumed without; the GPU needs that much less memory."""
    keys = {**WINDOWS, "run__dtype": "bf16", "checkpoint__every": 1}
    train(case, 0, "one", **keys)
    first = trace(case, "one")
    train(case, 0, "pieces", STOPPED, run__offload="optimizer", train__stop_after=2, **keys)
    job_again = train(case, 2, "pieces", run__offload="optimizer", run__sharding="parameters", **keys)
    check(trace(case, "pieces") == first and "pinned memory of the host" in job_again.stderr, "offloaded, stopped and resumed on two ranks, a run differs", job_again)
    if not job.LIGHT:
        train(case, 0, "back", STOPPED, run__offload="optimizer", train__stop_after=2, **keys)
        train(case, 0, "back", **keys)
        check(trace(case, "back") == first, "resumed without offloading, a run differs")
    plans = {}
    for how in ("none", "optimizer"):
        config = case.config("room", run__offload=how, **{**TINY, **keys})
        plans[how] = json.loads(subprocess.run([job.espalier, "plan", str(config), "--json"], capture_output=True, text=True, timeout=job.DEADLINE, check=True).stdout)
    state = plans["none"]["arenas"]["OPT"]
    check(plans["none"]["device_bytes"] - plans["optimizer"]["device_bytes"] == state, f"not the optimizer's state is off the device: {plans}")
    check(abs(plans["optimizer"]["total_bytes"] - plans["none"]["total_bytes"] - state) < 1 << 20, f"nor is it on the host: {plans}")  # the program's own differ by pages
    enough = {"EMU_MEMORY": str(plans["optimizer"]["device_bytes"] + state // 2)}
    start(case, 0, "room", environment=enough, **keys).expect_failure(USAGE, "too much", "MiB", "espalier plan")
    train(case, 0, "room", environment=enough, run__offload="optimizer", **{**keys, "train__steps": 1})
    refused(case, {}, "optim.name muon", "run.offload", run__offload="optimizer", optim__name="muon", ranks=(0,))


def refused(case, environment, *words, ranks=(0, 2), before=(), **keys):
    for n in ranks:
        case.model.write_text(json.dumps(GPT2), encoding="utf-8")
        case.start(n, "refused", before=before, environment={**GPUS, **environment}, **{**TINY, **WINDOWS, **keys}).expect_failure(USAGE, *words)
    check(not (case.folder / "refused").exists(), "a refused run left a folder")


def no_device_to_use(case):
    refused(case, {"EMU_DEVICES": "-1"}, "driver")
    refused(case, {"EMU_DRIVER": "11000"}, "driver", ranks=(0,))
    refused(case, {"EMU_DEVICES": "0"}, "no")
    refused(case, {"EMU_BUSY": "1"}, "GPU 0", "another process")
    refused(case, {"EMU_CAPABILITY": "70"}, "7.0", "8.0", ranks=(0,))
    refused(case, {"EMU_DEVICES": "1"}, "2 ranks", "1 GPU", ranks=(2,))
    refused(case, {"EMU_DEVICES": "2"}, "3 ranks", "2 GPUs", ranks=(3,), run__reduction="fast")
    each = ["sh", "-c", 'EMU_DEVICE_NAME="Model $OMPI_COMM_WORLD_RANK" exec "$@"', "sh"]
    refused(case, {}, "rank 0", "Model 0", "rank 1", "Model 1", ranks=(2,), before=each)


def libraries_that_are_not_there(case):
    broken = case.folder / "broken"
    broken.mkdir()
    (broken / "libespalier_emu.so").write_bytes(b"no library")
    refused(case, {"ESPL_BACKEND_DIR": str(broken)}, "libespalier_emu.so", "does not load")
    whole, alone = job.espalier, case.folder / "bin"
    alone.mkdir()
    try:
        job.espalier = pathlib_copy(whole, alone)
        refused(case, {}, "libespalier_emu.so", str(alone))
        refused(case, {}, "libespalier_cuda.so", "run.device: cpu", run__device="cuda")
        for name in ("libespalier_cuda.so", "libcuda.so.1"):  # to `auto` they are as good as a GPU and its driver
            shutil.copy(whole.parent / "libespalier_emu.so", alone / name)
        automatic(case, {"LD_LIBRARY_PATH": f"{alone}:{os.environ.get('LD_LIBRARY_PATH', '')}"})
    finally:
        job.espalier = whole


def pathlib_copy(program, folder):
    shutil.copy(program, folder / "espalier")
    return folder / "espalier"


def automatic(case, driver):
    keys = {**WINDOWS, "run__device": "auto", "train__steps": 1}
    check("Emulated GPU" in train(case, 2, "gpus", environment=driver, **keys).stderr, "auto did not take the GPUs")
    for name, environment in (("no device", {**driver, "EMU_DEVICES": "0"}), ("no driver", {})):
        text = train(case, 2, name, environment=environment, **keys).stderr
        check("run.device is auto: the CPU, because" in text, f"auto does not say why it takes the CPU ({name})")
    some = ["sh", "-c", 'EMU_DEVICES=$((2 - 2 * OMPI_COMM_WORLD_RANK)) exec "$@"', "sh"]
    refused(case, driver, "run.device is auto", "1 of 2 ranks", ranks=(2,), before=some, run__device="auto")


def failures_under_way(case):
    """A kernel, a sum over ranks or a rank that fails: the job ends with a line that says what, and does not hang."""
    one = ["sh", "-c", 'if [ "$OMPI_COMM_WORLD_RANK" = 1 ]; then export EMU_LAUNCH_FAIL=update_all; fi; exec "$@"', "sh"]
    case.model.write_text(json.dumps(GPT2), encoding="utf-8")
    text = start(case, 0, "kernel", environment={"EMU_LAUNCH_FAIL": "update_all"}, **WINDOWS).expect(IO, "GPU 0 failed")
    check("illegal memory access" in text, f"the line does not say what failed: {text}")
    failing = case.start(2, "one", before=one, environment=GPUS, **{**TINY, **WINDOWS})
    check(failing.finish() != OK and "illegal memory access" in failing.stderr and "rank 1" in failing.stderr, "the failure of rank 1 is not told", failing)
    start(case, 2, "start", environment={"EMU_NCCL_FAIL": "init:1"}, run__watchdog=0, **WINDOWS).expect_failure(IO, "rank 1", "NCCL failed", "in start")
    failing = start(case, 2, "sum", environment={"EMU_NCCL_FAIL": "async:1:5"}, **WINDOWS)
    check(failing.finish() != OK and re.search(r"rank 1.* step \d+: NCCL failed on rank 1 of 2 in [a-z -]+ of \S+ MiB, number \d+ ", failing.stderr),
          "a failing sum is not told", failing)
    start(case, 2, "hang", environment={"EMU_NCCL_FAIL": "hang:1:5"}, run__watchdog=4, **WINDOWS).expect(
        WATCHDOG_EXIT, "watchdog: rank", "no progress", "waiting for the device, behind", "of NCCL's operations")


CASES = [offloaded, gpt2_is_the_cpus, llama_is_the_cpus, bert_is_the_cpus, t5_is_the_cpus, ranks_and_sharding, texts_amid_recordings, fast_repeats_itself, any_legal_order,
         whole_matrices, protected, snapshots_under_way, over_to_the_cpu_and_back, recorded_or_not, phases_are_recorded_anew, a_soft_prompt_is_the_cpus, a_prefix_is_the_cpus, dora_is_the_cpus, evaluated_and_generated, plan_is_what_is_taken, no_device_to_use,
         libraries_that_are_not_there, failures_under_way]
if __name__ == "__main__":
    sys.exit(main(CASES, needs_emulated_gpus))
