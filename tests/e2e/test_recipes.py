# test: tier=default timeout=240 sanitized=no
"""Every recipe in configs/ runs by the command that its own comment gives, with steps, layers and texts cut down: none can rot unseen.

The command is the first one in the comment that names the recipe and carries no --set, that is, as the recipe stands (of `A && B` the last). What
a recipe or its command reads from runs/ must be what another recipe leaves there, which runs before. A recipe whose data are not in the tree has
`espalier plan` for a command."""

import json
import os
import re
import shlex

from job import OK, ROOT, Job, check, main

FEWER = ("train.steps=2", "train.epochs=0.5", "train.micro_batch_tokens=512", "train.micro_batches=1", "train.eval_every=0", "train.eval_batches=1", "eval.generate_texts=2", "generate.max_new_tokens=6",
         "checkpoint.every=0", "checkpoint.keep_best=false", "run.threads=1", "log.progress=none", "log.tensorboard=false", "data.cache=cache")
MOST = {"vocab_size": 2048, **dict.fromkeys(("n_layer", "n_layers", "num_hidden_layers", "num_layers", "num_decoder_layers"), 2)}
AT_ONCE = 2


def commands(path):
    """The commands of a recipe's comment: the parts that `&&` joins, each a list of words."""
    comment = "\n".join(line[1:] for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#"))
    lines = re.sub(r"\\\n", " ", comment).splitlines()
    return [[shlex.split(part, comments=True) for part in line.split("&&")] for line in lines if line.startswith("     ") and "espalier " in line]


def command_of(path):
    """The words behind `espalier` of what runs the recipe as it stands; None: no such command."""
    for parts in commands(path):
        last = parts[-1]
        if f"configs/{path.name}" in last and not any("--set" in part for part in parts):
            return last[last.index("espalier") + 1:]
    return None


def shallow_models(folder):
    """configs/ with two layers and a small vocabulary for each model, all else linked."""
    (folder / "configs" / "models").mkdir(parents=True)
    for item in (ROOT / "configs").iterdir():
        if item.name != "models":
            (folder / "configs" / item.name).symlink_to(item)
    for config in (ROOT / "configs" / "models").glob("*/config.json"):
        rows = json.loads(config.read_text(encoding="utf-8"))
        rows.update({key: min(rows[key], most) for key, most in MOST.items() if key in rows})
        (folder / "configs" / "models" / config.parent.name).mkdir()
        (folder / "configs" / "models" / config.parent.name / "config.json").write_text(json.dumps(rows), encoding="utf-8")


def needs(path):
    """Folders of runs/ that a recipe and its command read."""
    found = re.findall(r"^ +(?:path|checkpoint): (runs/\S+)", path.read_text(encoding="utf-8"), re.M) + [word for word in command_of(path) or [] if word.startswith("runs/")]
    return {folder.split("/")[1] for folder in found} - {leaves(path)}


def leaves(path):
    found = re.search(r"^run:\n(?:  .*\n)*?  dir: runs/(\S+)", path.read_text(encoding="utf-8"), re.M)
    return found.group(1) if found else None


def order(recipes):
    """Recipes behind those whose results they read, in rounds."""
    makers = {leaves(path): path for path in recipes}
    missing = {path.name: needs(path) - makers.keys() for path in recipes}
    check(not any(missing.values()), f"no recipe leaves what these read: { {k: v for k, v in missing.items() if v} }")
    rounds, done = [], set()
    while len(done) < len(recipes):
        ready = [path for path in recipes if path not in done and all(makers[name] in done for name in needs(path))]
        check(ready, f"these wait for each other: {[path.name for path in recipes if path not in done]}")
        rounds.append(ready)
        done.update(ready)
    return rounds


def start(case, words):
    sets = [word for text in FEWER for word in ("--set", text)] if words[0] != "plan" else []
    return Job(case.folder, 0, *words, *sets)


def every_recipe_runs(case):
    recipes = sorted((ROOT / "configs").glob("*.yaml"))
    check(len(recipes) > 20, "the recipes are not found")
    shallow_models(case.folder)
    found = {path: command_of(path) for path in recipes}
    check(all(found.values()), f"no command that runs them as they stand (without --set) is in the comments of {[path.name for path in recipes if not found[path]]}")
    for ready in order(recipes):
        for at in range(0, len(ready), AT_ONCE):
            for path, job in [(path, start(case, found[path])) for path in ready[at : at + AT_ONCE]]:
                check(job.finish() == OK, f"{path.name} does not run", job)
                check(found[path][0] != "train" or (case.folder / "runs" / leaves(path) / "done").exists(), f"{path.name} did not end", job)


def a_recipe_that_rots_is_seen(case):
    """The control: a command that carries --set is none, a file that is gone is seen, as is a folder that nobody leaves."""
    text = (ROOT / "configs" / "quickstart.yaml").read_text(encoding="utf-8")
    path = case.folder / "rotten.yaml"
    path.write_text("#     espalier train configs/rotten.yaml --set a.b=1\n" + text, encoding="utf-8")
    check(command_of(path) is None, "a command with --set passes for one without")
    path.write_text(re.sub(r"train: .*", "train: configs/data/gone.txt", "#     espalier train configs/rotten.yaml\n" + text), encoding="utf-8")
    shallow_models(case.folder)
    (case.folder / "configs" / "rotten.yaml").symlink_to(path)
    check(start(case, command_of(path)).finish() != OK, "a recipe without its data runs")
    path.write_text(text.replace("model:", "model:\n  path: runs/nobody/model"), encoding="utf-8")
    try:
        order([path])
    except Exception as problem:  # what check() raises
        check("nobody" in str(problem), str(problem))
    else:
        check(False, "a base that nobody leaves is not seen")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    raise SystemExit(main([every_recipe_runs, a_recipe_that_rots_is_seen]))
