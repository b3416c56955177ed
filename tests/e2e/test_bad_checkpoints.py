# test: tier=default timeout=420
"""A damaged checkpoint is told from a good one: the newest good one is used, with a line about what was skipped, or the run is refused."""

import json
import shutil
import sys

from job import IN_DATA, MODEL, OK, STOPPED, USAGE, Job, check, main, seeded

KEYS = {"train__steps": 8, "checkpoint__every": 2, "checkpoint__keep_last": 3, "checkpoint__writers": 2}


def interrupted(case):
    """A run of 8 steps that was stopped after 6, with checkpoints of 2, 4 and 6; and its undisturbed twin."""
    case.train(1, "whole", train__steps=8)
    case.train(2, "stopped", STOPPED, train__stop_after=6, **KEYS)
    check(sorted(case.checkpoints("stopped")) == [2, 4, 6], f"checkpoints {sorted(case.checkpoints('stopped'))}")
    check(len(list(case.checkpoints("stopped")[6].glob("shard-*.h5"))) == 2, "two writers should write two shards")


def fresh(case, run="run"):
    shutil.rmtree(case.folder / run, ignore_errors=True)
    shutil.copytree(case.folder / "stopped", case.folder / run)


def flip(path, at):
    blob = bytearray(path.read_bytes())
    blob[at] ^= 0x40
    path.write_bytes(bytes(blob))


def goes_on_from(case, step, ranks, *words):
    """The run takes the checkpoint of `step`, says these words, and ends as if nothing had been."""
    job = case.start(ranks, **KEYS)
    job.expect(OK, f"step {step} of 8", *words)
    check(case.digest() == case.digest("whole"), "the run ends in other weights than the undisturbed one", job)
    check(case.steps() == list(range(1, 9)), f"metrics.jsonl has steps {case.steps()}")


def damaged_newest(case):
    draw = seeded()
    interrupted(case)
    fresh(case)
    goes_on_from(case, 6, 1)
    for i, name in enumerate(("shard-00000.h5", "shard-00001.h5", "manifest.json", "index.h5")):
        fresh(case)
        path = case.checkpoints()[6] / name
        at = draw.randrange(path.stat().st_size)
        print(f"    flipping byte {at} of {name}")
        flip(path, at)
        Job(case.folder, 0, "verify", path.parent).expect_failure(IN_DATA, name)
        if name == "index.h5":  # for other programs; no run reads it
            goes_on_from(case, 6, 2)
        else:
            goes_on_from(case, 4, i % 2, "step-00000006", "is skipped", name)


def incomplete_newest(case):
    interrupted(case)
    fresh(case)
    (case.checkpoints()[6] / "shard-00001.h5").unlink()
    goes_on_from(case, 4, 4, "step-00000006", "is skipped", "shard-00001.h5")
    fresh(case)
    (case.checkpoints()[6] / "manifest.json").unlink()
    goes_on_from(case, 4, 2)
    fresh(case)
    path = case.checkpoints()[6] / "shard-00000.h5"
    path.write_bytes(path.read_bytes()[:-1])
    goes_on_from(case, 4, 0, "step-00000006", "is skipped", "shard-00000.h5")


def none_is_good(case):
    interrupted(case)
    fresh(case)
    for path in case.checkpoints().values():
        flip(path / "shard-00000.h5", 3000)
    before = sorted(p.name for p in (case.folder / "run" / "checkpoints").iterdir() if p.is_dir())
    for ranks in (0, 2):
        case.start(ranks, **KEYS).expect_failure(IN_DATA, "none of 3 checkpoints verifies")
        case.start(ranks, "run", ["--resume", case.checkpoints()[4]], **KEYS).expect_failure(IN_DATA, "step-00000004", "shard-00000.h5")
    check(sorted(p.name for p in (case.folder / "run" / "checkpoints").iterdir() if p.is_dir()) == before, "a refused run changed the checkpoints")


def of_another_model(case):
    interrupted(case)
    fresh(case)
    for code, words, change in [
            (IN_DATA, ["transformer.wte.weight", "[2048, 64]", "[2048, 96]"], {"n_embd": 96}),
            (IN_DATA, ["transformer.h.2"], {"n_layer": 3}),
            (USAGE, ["gpt2", "llama"], {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "hidden_size": 64,
                                        "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4,
                                        "max_position_embeddings": 128, "rms_norm_eps": 1e-05, "rope_theta": 10000.0})]:
        case.model.write_text(json.dumps({**MODEL, **change}), encoding="utf-8")
        for ranks in (0, 2):
            case.start(ranks, **KEYS).expect_failure(code, *words)
    case.model.write_text(json.dumps(MODEL), encoding="utf-8")
    goes_on_from(case, 6, 2)


if __name__ == "__main__":
    sys.exit(main([damaged_newest, incomplete_newest, none_is_good, of_another_model]))
