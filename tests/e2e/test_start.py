# test: tier=default timeout=240 sanitized=no
"""The start of a job: files are opened once for all ranks, not once a rank, and what is wrong with one of them is told once."""

import collections
import re
import shutil
import sys

from hosts import Hosts
from job import IN_DATA, OK, USAGE, Job, Skipped, check, main

# By BPF, or each yield of a waiting rank is a stop; a file a process, of which those of different hosts may have the same number.
STRACE = 'exec strace -ff -qq --seccomp-bpf -e trace=openat -o "$0/rank-$OMPI_COMM_WORLD_RANK" "$@"'


def opens(folder, traces):
    """Path, from the case's folder, -> how often it was opened by all processes together."""
    found = collections.Counter()
    for trace in traces.iterdir():  # one a process
        for path in re.findall(r'openat\([^,]*, "([^"]*)"[^\n]*= \d', trace.read_text(encoding="utf-8", errors="replace")):
            if path.startswith(f"{folder}/"):
                found[re.sub(r"-[0-9a-f]{16}$", "-TAG", path[len(str(folder)) + 1:])] += 1
    return found


def traced_by(case, start):
    """Runs the job that start(before) makes; opens of its files."""
    traces = case.folder / "traces"
    shutil.rmtree(traces, ignore_errors=True)
    traces.mkdir()
    start(["sh", "-c", STRACE, str(traces)]).expect(OK)
    return opens(case.folder, traces)


def traced(case, ranks, verb, *arguments):
    return traced_by(case, lambda before: Job(case.folder, ranks, verb, *arguments, before=before))


def grown(few, many):
    return {path: (few[path], many[path]) for path in many if many[path] > few[path]}


def need_strace():
    if shutil.which("strace") is None:
        raise Skipped("strace is not installed")


def model_folder(case):
    """A model with all that may lie beside it, as training leaves it and as people publish it."""
    case.train(1, "made", train__steps=1, checkpoint__export=True)
    folder = case.folder / "made" / "model"
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}', encoding="utf-8")
    (folder / "generation_config.json").write_text('{"eos_token_id": 0}', encoding="utf-8")
    return folder


def opens_do_not_grow_with_ranks(case):
    need_strace()
    folder, found = model_folder(case), {}
    config = case.config("run", model__path=folder, model__config=None, data__tokenizer=None, train__steps=2, data__valid=[str(case.text)])
    for ranks in (1, 2, 4):
        shutil.rmtree(case.folder / "run", ignore_errors=True)
        shutil.rmtree(case.folder / "cache", ignore_errors=True)
        found[ranks] = [traced(case, ranks, "train", config),  # tokenises, begins and saves
                        traced(case, ranks, "train", config, "--set", "train.steps=4"),  # finds the tokens, and resumes
                        traced(case, ranks, "eval", config)]
    first, *_, last = found.values()
    named = ["made/model/config.json", "made/model/model.safetensors", "made/model/tokenizer.json", "made/model/generation_config.json",
             config.name, "run/checkpoints/step-00000002/manifest.json"]
    for name in named:
        check(sum(f[name] for f in last) > 0, f"{name} was never seen: the traces are not what they are taken for")
    check(any(name.endswith(".h5") and name.startswith("cache/") for name in last[1]), "no token store was seen")
    for ranks, counts in found.items():
        for what, few, many in zip(("train", "resume", "eval"), first, counts):
            check(not grown(few, without_parts(many)), f"{what}: opens on 1 and {ranks} ranks: {grown(few, without_parts(many))}")


def without_parts(counts):
    """Without what each rank writes for itself while tokens are made: the part of each, and the pages of the store that they share."""
    return {path: n for path, n in counts.items() if ".part-" not in path and ".tmp-" not in path}


def bases_are_opened_once(case):
    """Of a checkpoint that trained a part: what it names as its base; of an adapter: what that names."""
    need_strace()
    folder = model_folder(case)
    keys = {"model__path": folder, "model__config": None, "data__tokenizer": None, "train__steps": 1, "data__valid": [str(case.text)]}
    case.train(1, "part", tune__train=["layers.1"], **keys)
    case.train(1, "adapter", tune__method="lora", checkpoint__export=True, **keys)
    config = case.config("part", **{**keys, "model__path": None})
    weights = "made/model/model.safetensors"
    for model in ("part", "adapter/adapter"):
        found = [traced(case, n, "eval", config, "--model", case.folder / model) for n in (1, 2)]
        check(found[0][weights] > 0, f"the base of {model} was not read: {found[0]}")
        check(not grown(*found), f"opens on 1 and 2 ranks for {model}: {grown(*found)}")


def large_files_are_opened_once_a_host(case):
    need_strace()
    config = case.config("hosts", model__path=model_folder(case), model__config=None, data__tokenizer=None, train__steps=1)
    one = traced(case, 1, "train", config, "--set", "train.steps=1")
    shutil.rmtree(case.folder / "hosts")
    with Hosts(case.folder / "cluster", 2) as hosts:
        two = traced_by(case, lambda before: hosts.launch(2, "train", config, before=before))
    text, weights = "made/model/tokenizer.json", "made/model/model.safetensors"
    check(two[text] == one[text] and two[weights] == 2 * one[weights], f"opens on 1 rank and on 2 hosts of 2: {one} {two}")


def a_rank_that_opens_for_itself_is_seen(case):
    """The control: four processes that share nothing must be counted as four."""
    need_strace()
    folder = model_folder(case)
    config = case.config("control", model__path=folder, model__config=None, data__tokenizer=None, train__steps=1)
    alone = traced(case, 1, "plan", config)
    many = traced(case, 4, "plan", config)
    check("made/model/config.json" in grown(alone, many), f"four plans opened config.json as often as one: {many}")


def what_is_missing_is_told_once(case):
    for ranks in (1, 4):
        line = Job(case.folder, ranks, "train", case.folder / "none.yaml").expect_failure(USAGE, "none.yaml: cannot be opened: No such file")
        check("rank" not in line, f"a rank is named for what all ranks met: {line}")
    broken = case.folder / "broken"
    broken.mkdir()
    (broken / "config.json").write_text('{"model_type": "gpt2",', encoding="utf-8")
    case.start(4, "broken-run", model__config=broken).expect_failure(IN_DATA, "broken/config.json:1:", "a Hugging Face config.json is expected")
    case.start(4, "no-model", model__config=case.folder / "nowhere").expect_failure(IN_DATA, "nowhere", "No such file")
    case.start(4, "no-tokenizer", data__tokenizer=broken).expect_failure(IN_DATA, "tokenizer.json: cannot open the tokenizer: No such file")


if __name__ == "__main__":
    sys.exit(main([opens_do_not_grow_with_ranks, bases_are_opened_once, large_files_are_opened_once_a_host, a_rank_that_opens_for_itself_is_seen, what_is_missing_is_told_once]))
