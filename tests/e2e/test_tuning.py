# test: tier=default timeout=240
"""Runs that train a part of a model: the base stays as it was, checkpoints hold what is trained alone, and nothing else changes."""

import hashlib
import json
import shutil
import struct

from job import IN_DATA, LIGHT, OK, STOPPED, USAGE, Job, check, main

PART = ["layers.1", "*ln_f*"]


def base_of(case):
    """A Hugging Face folder of a few steps."""
    case.train(0, "base", train__steps=3, checkpoint__export=True)
    return case.folder / "base" / "model"


def digest_of(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def tensors_of(folder, name="model"):
    """Name -> bytes of a safetensors file."""
    data = (folder / f"{name}.safetensors").read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = {name: about["data_offsets"] for name, about in json.loads(data[8 : 8 + size]).items() if name != "__metadata__"}
    return {name: data[8 + size + begin : 8 + size + end] for name, (begin, end) in header.items()}


def keys_of(base, **keys):
    return {"model__config": None, "model__path": str(base), "tune__train": PART, "train__steps": 12, **keys}


def is_trained(name):
    return ".h.1." in name or "ln_f" in name


def only_the_part_changes(case):
    base = base_of(case)
    before, weights = digest_of(base), tensors_of(base)
    case.text.write_bytes(case.text.read_bytes()[:1500])
    job = case.train(0, **keys_of(base, checkpoint__export=True, optim__lr=1e-2, train__steps=40, train__micro_batches=2))
    check("the others are frozen" in job.stderr, "the number of trained parameters is not told", job)
    check(digest_of(base) == before, "the base's folder was written to")
    after = tensors_of(case.folder / "run" / "model")
    check(set(after) == set(weights), "the export has other tensors than the base")
    for name, values in after.items():
        check((values != weights[name]) == is_trained(name), f"{name} should {'' if is_trained(name) else 'not '}have changed")
    losses = [row["loss"] for row in case.metrics("run", "step")]
    check(losses[-1] < losses[0], f"nothing was learned: {losses}")
    sizes = {run: sum(f.stat().st_size for f in list(case.checkpoints(run).values())[-1].rglob("*.h5")) for run in ("base", "run")}
    check(sizes["run"] < 0.6 * sizes["base"], f"a checkpoint of a part is not smaller: {sizes}")


def resumed_on_2_4_1_is_undisturbed(case):
    base = base_of(case)
    variants = {"bf16": {"run__dtype": "bf16", "run__sharding": "none"}, **({} if LIGHT else {"fp32": {}})}
    for name, keys in variants.items():
        whole, pieces = f"whole-{name}", f"pieces-{name}"
        case.train(0, whole, **keys_of(base, **keys))
        for ranks in (2, 4):
            case.train(ranks, pieces, STOPPED, **keys_of(base, train__stop_after=4, **keys))
        case.train(1, pieces, **keys_of(base, **keys))
        check(case.digest(pieces) == case.digest(whole), f"{name}: the resumed run ends in other weights than the undisturbed one")


PHASES = {"tune__train": ["layers.1"], "tune__unfreeze": ["*ln_f*@3", "layers.0@6", "*h.1.mlp*@6", "embeddings@9"], "optim__layer_decay": 0.9,
          "train__micro_batches": 4}


def rows_of(case, run):
    return [(row["loss"], row["grad_norm"]) for row in case.metrics(run, "step")]


def phases_resumed_on_2_4_1_are_undisturbed(case):
    base = base_of(case)
    variants = {"8bit": {"optim__name": "adamw8bit", "run__dtype": "bf16", "optim__master": "none"},
                **({} if LIGHT else {"fp32": {}, "replicated": {"run__sharding": "none"}})}
    for name, keys in variants.items():
        whole, pieces = f"whole-{name}", f"pieces-{name}"
        job = case.train(0, whole, **keys_of(base, **PHASES, **keys))
        check("phase 1 of 4 from step 1" in job.stderr and "phase 4 of 4 from step 10 on, with embeddings" in job.stderr, f"{name}: phases are not told", job)
        for ranks in (2, 4):
            case.train(ranks, pieces, STOPPED, **keys_of(base, train__stop_after=4, **PHASES, **keys))
        case.train(1, pieces, **keys_of(base, **PHASES, **keys))
        check(rows_of(case, pieces) == rows_of(case, whole), f"{name}: losses and norms of the resumed run are others")
        check(case.digest(pieces) == case.digest(whole), f"{name}: the resumed run ends in other weights than the undisturbed one")


def a_phase_is_the_run_that_trains_just_that(case):
    base = base_of(case)
    weights = tensors_of(base)
    case.train(0, "phases", STOPPED, **keys_of(base, **PHASES, train__stop_after=5))
    case.train(0, "first", STOPPED, **keys_of(base, **{**PHASES, "tune__unfreeze": []}, train__stop_after=5))
    phases, first = rows_of(case, "phases"), rows_of(case, "first")
    check(phases[:3] == first[:3] and phases[3:] != first[3:], f"losses and norms with phases {phases}, without {first}")
    Job(case.folder, 0, "export", case.folder / "phases", case.folder / "now").expect(OK)
    for name, values in tensors_of(case.folder / "now").items():
        check((values != weights[name]) == is_trained(name), f"after 5 steps {name} should {'' if is_trained(name) else 'not '}have changed")


def what_has_begun_stays(case):
    base = base_of(case)
    case.train(0, **keys_of(base, **PHASES, train__stop_after=4), code=STOPPED)
    case.start(0, **keys_of(base, **{**PHASES, "tune__unfreeze": ["*ln_f*@2", *PHASES["tune__unfreeze"][1:]]})).expect_failure(USAGE, "since step 3", "tune.unfreeze")
    case.train(0, **keys_of(base, **{**PHASES, "tune__unfreeze": [PHASES["tune__unfreeze"][0], "layers.0@7", "*h.1.mlp*@7", "embeddings@8"]}))
    for wrong, word in (("layers.0", "@"), ("layers.0@0", "above 0"), ("layers.0@1.5", "SELECTION@STEP"), ("layers.9@1", "layers.9")):
        case.start(0, "wrong", **keys_of(base, tune__unfreeze=[wrong])).expect_failure(USAGE, "tune.unfreeze", word)
    case.start(0, "wrong", **keys_of(base, tune__unfreeze=["layers.0@1", "embeddings@1e"])).expect_failure(USAGE, "all in epochs")
    case.start(0, "wrong", **keys_of(base, tune__train=[], tune__unfreeze=["layers.0@1"])).expect_failure(USAGE, "tune.train")


def phases_are_planned(case):
    job = Job(case.folder, 0, "plan", case.config("run", **PHASES), "--json")
    job.expect(OK)
    plan = json.loads(job.stdout)
    phases = plan["phases"]
    for key in ("trained_parameters", "act_bytes", "flops_per_step"):
        sizes = [phase[key] for phase in phases]
        check(sizes == sorted(sizes) and sizes[0] < sizes[-1], f"{key} by phase: {sizes}")
    check(plan["trained_parameters"] == phases[-1]["trained_parameters"] and plan["flops_per_step"] == phases[-1]["flops_per_step"], f"{plan}")
    job = Job(case.folder, 0, "plan", case.config("run", **PHASES))
    job.expect(OK)
    check("after 6 steps" in job.stdout and "layers.0, *h.1.mlp*" in job.stdout, "phases are not in the plan", job)


def evaluation_of(case, *arguments):
    return Job(case.folder, 0, "eval", case.folder / f"config-{case.n_configs}.yaml", "--json", *arguments)


def the_base_must_be_that_of_the_checkpoint(case):
    base = base_of(case)
    case.train(0, train__stop_after=4, code=STOPPED, **keys_of(base))
    case.start(0, **keys_of(base, tune__train=[])).expect_failure(USAGE, "a part of the parameters", "tune.train")
    moved, other = case.folder / "moved", case.folder / "other"
    base.rename(moved)
    Job(case.folder, 0, "export", case.folder / "run", other).expect_failure(IN_DATA, str(base), "--base")
    Job(case.folder, 0, "export", "--base", moved, case.folder / "run", other).expect(OK)
    check(set(tensors_of(other)) == set(tensors_of(moved)), "the export has other tensors than the base")
    spoiled = case.folder / "spoiled"
    shutil.copytree(moved, spoiled)
    data = bytearray((spoiled / "model.safetensors").read_bytes())
    begin = 8 + struct.unpack("<Q", data[:8])[0]
    offset = json.loads(data[8:begin])["transformer.wpe.weight"]["data_offsets"][0]
    data[begin + offset] ^= 1
    (spoiled / "model.safetensors").write_bytes(bytes(data))
    case.start(0, **keys_of(spoiled)).expect_failure(USAGE, "another base", "model.path")
    Job(case.folder, 0, "export", "--base", spoiled, case.folder / "run", case.folder / "third").expect_failure(USAGE, "another base")
    case.train(2, **keys_of(moved))


def a_run_and_its_export_say_the_same(case):
    base = base_of(case)
    case.train(0, **keys_of(base, checkpoint__export=True, data__valid=[str(case.text)], train__eval_batches=4))
    found = []
    for model in ("run", "run/model"):
        job = evaluation_of(case, "--model", case.folder / model)
        job.expect(OK)
        found.append(json.loads(job.stdout)["scores"]["loss"] if "scores" in json.loads(job.stdout) else json.loads(job.stdout)["loss"])
    check(found[0] == found[1], f"losses {found}")


def a_random_base_is_the_seed(case):
    case.train(0, "whole", train__steps=8, tune__train=PART)
    case.train(2, "run", STOPPED, train__steps=8, train__stop_after=4, tune__train=PART)
    case.train(1, "run", train__steps=8, tune__train=PART, checkpoint__export=True)
    check(case.digest() == case.digest("whole"), "the resumed run ends in other weights than the undisturbed one")
    case.start(0, train__steps=12, run__init_seed=7, tune__train=PART).expect_failure(USAGE, "another base")


def a_base_may_be_a_checkpoint(case):
    """LoRA upon a part that was trained upon a folder: each checkpoint names the one that it stands on, and nobody needs to say it again."""
    base, merged = base_of(case), case.folder / "merged"
    case.train(0, "part", **keys_of(base, train__steps=2))
    start = {"model__checkpoint": case.checkpoints("part")[2], "data__valid": [str(case.text)], "train__eval_batches": 2}
    job = case.train(0, "top", **lora_of(base, train__steps=4, **start))
    shown = evaluation_of(case, "--model", case.folder / "top")
    shown.expect(OK)
    check(json.loads(shown.stdout)["loss"] == case.metrics("top", "eval")[-1]["valid_loss"], f"the checkpoint evaluates to {shown.stdout}", job)
    Job(case.folder, 0, "export", case.folder / "top", merged).expect(OK)
    before, after = tensors_of(base), tensors_of(merged)
    expected = {name for name in before if is_trained(name) or name.endswith(("attn.weight", "proj.weight", "fc.weight"))}
    check({name for name in after if after[name] != before[name]} == expected, "what changed is not the part and the adapted matrices")
    case.start(0, "plain", model__checkpoint=case.checkpoints("top")[4], train__steps=1).expect_failure(USAGE, "tune.method", "export it")


def the_plan_is_smaller(case):
    plans = []
    for part in ([], ["layers.1"]):
        job = Job(case.folder, 0, "plan", case.config("run", tune__train=part), "--json")
        job.expect(OK)
        plans.append(json.loads(job.stdout))
    whole, part = plans
    for arena in ("GRAD", "OPT", "ACT"):
        check(part["arenas"][arena] < whole["arenas"][arena], f"{arena}: {part['arenas'][arena]} of {whole['arenas'][arena]}")
    check(part["flops_per_step"] < whole["flops_per_step"] and 0 < part["trained_parameters"] < whole["trained_parameters"] == whole["parameters"], f"{plans}")


def lora_of(base, **keys):
    return keys_of(base, **{"tune__train": None, "tune__method": "lora", "tune__targets": ["all-linear"], "tune__rank": 4, "tune__dropout": 0.1, "optim__lr": 1e-2, **keys})


def lora_resumed_on_2_4_1_is_undisturbed(case):
    base = base_of(case)
    before = digest_of(base)
    case.train(0, "whole", **lora_of(base))
    for ranks in (2, 4):
        case.train(ranks, "pieces", STOPPED, **lora_of(base, train__stop_after=4))
    case.train(1, "pieces", **lora_of(base))
    check(case.digest("pieces") == case.digest("whole"), "the resumed run ends in other weights than the undisturbed one")
    check(digest_of(base) == before, "the base's folder was written to")


def lora_merged_is_unmerged(case):
    base = base_of(case)
    job = case.train(0, **lora_of(base, tune__dropout=0, tune__ranks=["c_fc=2"], checkpoint__export=True, data__valid=[str(case.text)], train__eval_batches=4))
    ranks = sum(rank * (inputs + outputs) for rank, inputs, outputs in ((4, 64, 192), (4, 64, 64), (2, 64, 256), (4, 256, 64)))
    check(f"trained: {2 * ranks} of" in job.stderr, f"{2 * ranks} parameters should be trained", job)
    adapter, merged = case.folder / "run" / "adapter", case.folder / "merged"
    check(sorted(path.name for path in adapter.iterdir()) == ["README.md", "adapter_config.json", "adapter_model.safetensors", "espalier.json", "tokenizer.json"],
          f"the adapter's folder holds {sorted(path.name for path in adapter.iterdir())}")
    Job(case.folder, 0, "export", case.folder / "run", merged).expect(OK)
    check(set(tensors_of(merged)) == set(tensors_of(base)), "the merged model has other tensors than the base")
    losses = []
    for model in ("run", "merged", "base/model"):
        job = evaluation_of(case, "--model", case.folder / model)
        job.expect(OK)
        losses.append(json.loads(job.stdout)["loss"])
    check(abs(losses[0] / losses[1] - 1) < 1e-6 < abs(losses[0] / losses[2] - 1), f"losses unmerged, merged, of the base: {losses}")
    case.start(0, **lora_of(base, tune__dropout=0)).expect_failure(USAGE, "tune.ranks", "c_fc=2")
    case.start(0, "other", **lora_of(base, tune__targets=["q_proj"])).expect_failure(USAGE, "q_proj", "all-linear")
    Job(case.folder, 0, "export", "--adapter", case.folder / "base", case.folder / "none").expect_failure(USAGE, "no adapter")


def dora_of(base, **keys):
    return lora_of(base, **{"tune__method": "dora", **keys})


def dora_resumed_on_2_4_1_is_undisturbed(case):
    base = base_of(case)
    case.train(0, "whole", **dora_of(base))
    for ranks in (2, 4):
        case.train(ranks, "pieces", STOPPED, **dora_of(base, train__stop_after=4))
    case.train(1, "pieces", **dora_of(base))
    check(case.digest("pieces") == case.digest("whole"), "the resumed run ends in other weights than the undisturbed one")
    case.start(0, "pieces", **lora_of(base)).expect_failure(USAGE, "dora")


def dora_begins_as_the_base_and_merges(case):
    base = base_of(case)
    judged = {"data__valid": [str(case.text)], "train__eval_batches": 4, "checkpoint__export": True}
    case.train(0, "start", **dora_of(base, optim__lr=0, train__steps=1, **judged))
    case.train(0, **dora_of(base, tune__dropout=0, **judged))
    Job(case.folder, 0, "export", case.folder / "run", case.folder / "merged").expect(OK)
    losses = []
    for model in ("base/model", "start", "run", "run/adapter", "merged"):
        job = evaluation_of(case, "--model", case.folder / model)
        job.expect(OK)
        losses.append(json.loads(job.stdout)["loss"])
    before, start, *after = losses
    check(abs(start / before - 1) < 1e-6, f"with B = 0 the loss is {start}, that of the base {before}")
    check(all(abs(loss / after[0] - 1) < 1e-6 for loss in after) and abs(after[0] / before - 1) > 1e-3, f"losses {losses}")
    texts = [Job(case.folder, 0, "generate", case.folder / model, "--prompt", "the", "--greedy", "--set", "generate.max_new_tokens=8") for model in ("run", "merged")]
    for job in texts:
        job.expect(OK)
    check(texts[0].stdout == texts[1].stdout, "updates unmerged and merged generate different texts")
    case.start(0, "other", **dora_of(base, tune__base="int8")).expect_failure(USAGE, "tune.base", "dora")


def changed(case, adapter, **keys):
    """A copy of an adapter whose adapter_config.json says something else."""
    folder = case.folder / "changed"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(adapter, folder)
    about = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**about, **keys}))
    return folder


def an_adapter_is_a_start(case):
    base = base_of(case)
    before = digest_of(base)
    case.train(0, "first", **lora_of(base, checkpoint__export=True, tune__ranks=["c_fc=2"]))
    adapter = case.folder / "first" / "adapter"
    check("library_name: peft" in (adapter / "README.md").read_text(), "the adapter has no card")
    none = {"tune__" + key: None for key in ("method", "targets", "rank", "dropout")}
    start = lora_of(base, **none, model__adapter=str(adapter), checkpoint__export=True)
    case.train(2, **{**start, "model__path": None, "optim__lr": 0, "train__steps": 1})
    check(tensors_of(case.folder / "run" / "adapter", "adapter_model") == tensors_of(adapter, "adapter_model"), "the adapter is not written as it was read")
    case.train(2, "second", **start)
    check(digest_of(base) == before, "the base's folder was written to")
    step = list(case.checkpoints("first").values())[-1]
    case.start(0, "third", **keys_of(base, model__checkpoint=str(step), tune__train=[])).expect_failure(USAGE, "tune.method", "export it")
    case.start(0, "third", **lora_of(base, model__checkpoint=str(step))).expect_failure(USAGE, "tune.ranks", "c_fc=2")
    case.start(0, "third", **lora_of(base, model__adapter=str(adapter))).expect_failure(USAGE, "c_fc", "rank 2", "leave tune.method out")
    wrong = {"bias": "all", "peft_type": "IA3", "fan_in_fan_out": False, "init_lora_weights": "pissa", "use_of_tomorrow": True, "rank_pattern": {"c_(fc|x)": 2}}
    for key, value in wrong.items():
        case.start(0, "third", **{**start, "model__adapter": str(changed(case, adapter, **{key: value}))}).expect_failure(IN_DATA, key, "adapter_config.json")
    fewer = changed(case, adapter, target_modules=["c_attn"], rank_pattern={})
    case.start(0, "third", **{**start, "model__adapter": str(fewer)}).expect_failure(IN_DATA, "lora_A", "this model has not")
    Job(case.folder, 0, "export", changed(case, adapter, base_model_name_or_path="some/where"), case.folder / "merged").expect_failure(IN_DATA, "some/where", "--base")


def bottleneck_of(base, **keys):
    return keys_of(base, **{"tune__train": None, "tune__method": "bottleneck", "tune__bottleneck": 8, "train__steps": 8, "optim__lr": 1e-2, **keys})


def adapters_begin_as_the_base_and_resume(case):
    base = base_of(case)
    before = digest_of(base)
    for name, keys in (("full", keys_of(base, tune__train=None)), ("start", bottleneck_of(base))):
        case.train(0, name, **{**keys, "train__steps": 1, "model__dropout": 0})
    first = [case.metrics(run, "step")[0]["loss"] for run in ("full", "start")]
    check(first[0] == first[1], f"before the first update the loss is not the base's: {first}")
    case.train(0, "whole", **bottleneck_of(base))
    for ranks in (2,) if LIGHT else (2, 4):
        case.train(ranks, "pieces", STOPPED, **bottleneck_of(base, train__stop_after=3))
    case.train(1, "pieces", **bottleneck_of(base))
    check(case.digest("pieces") == case.digest("whole"), "the resumed run ends in other weights than the undisturbed one")
    check(digest_of(base) == before, "the base's folder was written to")
    case.start(0, "whole", **bottleneck_of(base, tune__bottleneck_activation="relu")).expect_failure(USAGE, "tune.bottleneck_activation", "silu")


def adapters_are_used_where_they_are(case):
    base = base_of(case)
    job = case.train(0, **bottleneck_of(base, tune__bottleneck_at="mlp", checkpoint__export=True, data__valid=[str(case.text)], train__eval_batches=4))
    check(f"trained: {2 * (2 * 64 * 8 + 64 + 8)} of" in job.stderr, "the number of trained parameters is not told", job)
    adapter = case.folder / "run" / "adapter"
    told = json.loads((adapter / "adapter_config.json").read_text())
    check(told["method"] == "bottleneck" and told["bottleneck_at"] == "mlp" and (adapter / "adapter_model.safetensors").exists(), f"{told}")
    losses = []
    for model in ("run", "base/model"):
        job = evaluation_of(case, "--model", case.folder / model)
        job.expect(OK)
        losses.append(json.loads(job.stdout)["loss"])
    trained = case.metrics("run", "eval")[-1]["valid_loss"]
    check(losses[0] == trained < losses[1], f"losses of the run {losses[0]}, where it ended {trained}, of the base {losses[1]}")
    Job(case.folder, 0, "generate", case.folder / "run", "--prompt", "a", "--set", "generate.max_new_tokens=4").expect(OK)
    Job(case.folder, 0, "export", case.folder / "run", case.folder / "whole").expect_failure(USAGE, "no place for", "--adapter")


def prompt_of(base, **keys):
    return keys_of(base, **{"tune__train": None, "tune__method": "prompt", "tune__prompt_length": 5, "train__steps": 8, "optim__lr": 0.1, **keys})


def what_stands_in_front_is_resumed_on_2_4_1_undisturbed(case):
    base = base_of(case)
    before = digest_of(base)
    text = {"tune__prompt_text": "a text of which there is no end, or at least none that fits"}
    for name, keys in {"text": text, "prefix": {"tune__method": "prefix"}, **({} if LIGHT else {"random": {"run__dtype": "bf16"}})}.items():
        case.train(0, f"whole-{name}", **prompt_of(base, **keys))
        for ranks in (2,) if LIGHT else (2, 4):
            case.train(ranks, f"pieces-{name}", STOPPED, **prompt_of(base, train__stop_after=3, **keys))
        case.train(1, f"pieces-{name}", **prompt_of(base, **keys))
        check(rows_of(case, f"pieces-{name}") == rows_of(case, f"whole-{name}"), f"{name}: losses and norms of the resumed run are others")
        check(case.digest(f"pieces-{name}") == case.digest(f"whole-{name}"), f"{name}: the resumed run ends in other weights than the undisturbed one")
    check(digest_of(base) == before, "the base's folder was written to")
    case.start(0, "whole-text", **prompt_of(base, tune__prompt_length=6)).expect_failure(USAGE, "tune.prompt_length", "5")
    case.start(0, "whole-text", **prompt_of(base, tune__method="prefix")).expect_failure(USAGE, "tune.method", "prompt")


def a_soft_prompt_begins_as_its_text(case):
    """Its rows are embeddings of the base, to the bit, and repeat as the text's tokens."""
    base = base_of(case)
    keys = {"tune__prompt_text": "the", "tune__prompt_length": 12, "optim__lr": 0, "train__steps": 1, "checkpoint__export": True}
    job = case.train(0, **prompt_of(base, **keys))
    check(f"trained: {12 * 64} of" in job.stderr, "the number of trained parameters is not told", job)
    rows = tensors_of(case.folder / "run" / "adapter", "adapter_model")["prompt_embeddings"]
    table = tensors_of(base)["transformer.wte.weight"]
    rows, table = ([data[i : i + 256] for i in range(0, len(data), 256)] for data in (rows, table))
    ids = [table.index(row) for row in rows]
    n = next(n for n in range(1, 13) if all(ids[i] == ids[i % n] for i in range(12)))
    check(len(ids) == 12 and n <= 3, f"the text's tokens repeat as {ids}")


def is_used_where_it_is(case, method, peft_type):
    """What a method puts in front of a text: evaluated, generated with, gone on from."""
    base = base_of(case)
    judged = {"data__valid": [str(case.text)], "train__eval_batches": 4}
    case.train(0, **prompt_of(base, tune__method=method, checkpoint__export=True, **judged))
    adapter = case.folder / "run" / "adapter"
    told = json.loads((adapter / "adapter_config.json").read_text())
    check(told["peft_type"] == peft_type and told["num_virtual_tokens"] == 5 and told["task_type"] == "CAUSAL_LM", f"{told}")
    losses, texts = [], []
    for model in ("run", "run/adapter", "base/model"):
        job = evaluation_of(case, "--model", case.folder / model)
        job.expect(OK)
        losses.append(json.loads(job.stdout)["loss"])
        texts.append(Job(case.folder, 0, "generate", case.folder / model, "--prompt", "a", "--greedy", "--set", "generate.max_new_tokens=4"))
        texts[-1].expect(OK)
    trained = case.metrics("run", "eval")[-1]["valid_loss"]
    check(losses[0] == losses[1] == trained < losses[2], f"losses of the run {losses[0]}, of its adapter {losses[1]}, where it ended {trained}, of the base {losses[2]}")
    check(texts[0].stdout == texts[1].stdout, "the run and its adapter generate different texts")
    start = prompt_of(base, model__adapter=str(adapter), optim__lr=0, train__steps=1, checkpoint__export=True, **{f"tune__{key}": None for key in ("method", "prompt_length")})
    case.train(2, "second", **start)
    check(tensors_of(case.folder / "second" / "adapter", "adapter_model") == tensors_of(adapter, "adapter_model"), "the adapter is not written as it was read")
    case.start(0, "third", **prompt_of(base, tune__method=method, tune__prompt_length=6, model__adapter=str(adapter))).expect_failure(USAGE, "of 5 tokens", "leave tune.method out")
    case.start(0, "third", **{**start, "model__adapter": str(changed(case, adapter, num_transformer_submodules=2))}).expect_failure(IN_DATA, "num_transformer_submodules")
    case.start(0, "third", **prompt_of(base, tune__method=method, tune__prompt_length=4000)).expect_failure(USAGE, "tune.prompt_length", "train.micro_batch_tokens")
    for model in ("run", "run/adapter"):
        Job(case.folder, 0, "export", case.folder / model, case.folder / "whole").expect_failure(USAGE, "no place for", "--adapter")


def a_soft_prompt_is_used_where_it_is(case):
    is_used_where_it_is(case, "prompt", "PROMPT_TUNING")


def a_prefix_is_used_where_it_is(case):
    is_used_where_it_is(case, "prefix", "PREFIX_TUNING")


if __name__ == "__main__":
    raise SystemExit(main([what_stands_in_front_is_resumed_on_2_4_1_undisturbed, a_soft_prompt_begins_as_its_text, a_soft_prompt_is_used_where_it_is, a_prefix_is_used_where_it_is, phases_resumed_on_2_4_1_are_undisturbed, a_phase_is_the_run_that_trains_just_that, what_has_begun_stays, phases_are_planned,
                           dora_begins_as_the_base_and_merges, dora_resumed_on_2_4_1_is_undisturbed, an_adapter_is_a_start, adapters_begin_as_the_base_and_resume, adapters_are_used_where_they_are, lora_resumed_on_2_4_1_is_undisturbed, lora_merged_is_unmerged, only_the_part_changes, resumed_on_2_4_1_is_undisturbed, the_base_must_be_that_of_the_checkpoint,
                           a_run_and_its_export_say_the_same, a_random_base_is_the_seed, a_base_may_be_a_checkpoint, the_plan_is_smaller]))
