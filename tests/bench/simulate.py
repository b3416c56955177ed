#!/usr/bin/env python3
"""Steps as `espalier plan` simulates them against steps as they are, on this machine, interleaved; for a machine that does nothing else:

    python3 tests/bench/simulate.py --espalier build/release/espalier [--rounds 3] [--ranks 1 2 4] [--steps 12]

A Llama of 15 M weights, four micro-batches of 1,024 tokens a step, so 1, 2 and 4 ranks share the same work; each rank has one thread, and
ranks share the cores where there are more of them. Each round: runs of one rank that say how fast a micro-batch is (`--like`), alone, and as
many at once as there are cores, because ranks share caches and memory; `bench comm` on two ranks, which says how fast sums are (`--network`);
then for each number of ranks a run that is measured. Nothing of the measured runs enters a prediction. Medians over the steps of a run, then
over rounds. Exit code 1 when a prediction is further than --within percent off."""
import argparse, json, os, statistics, subprocess, sys, tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ENV = dict({k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")}, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
MPIRUN = ["mpirun", "--oversubscribe", "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1", "-n"]
KEYS = {"model.config": "configs/models/llama-15m/config.json", "data.train": "configs/data/shakespeare.txt", "data.tokenizer": "configs/data/bpe2048",
        "data.placement": "windows", "data.sequence_length": 512, "data.append_eos": "false", "train.micro_batch_tokens": 1024, "train.micro_batches": 4,
        "optim.lr": "1e-4", "run.threads": 1, "checkpoint.export": "false", "checkpoint.background": "false", "log.tensorboard": "false", "log.progress": "none"}


def launch(args, ranks, *words):
    command = [*(MPIRUN + [str(ranks)] if ranks > 1 else []), args.espalier, *words]
    return subprocess.Popen(command, cwd=ROOT, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    try:
        out, err = process.communicate(timeout=900)
    finally:
        process.kill()
    if process.returncode != 0:
        sys.exit(f"{' '.join(process.args)}: exit {process.returncode}: {err[-800:]}")
    return out


def call(args, ranks, *words):
    return finish(launch(args, ranks, *words))


def sets(folder, **changes):
    keys = {**KEYS, "data.cache": f"{folder}/cache", **changes}
    return [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]


def train(args, folder, *names, ranks=1):
    """Runs at once, one for each name; seconds of a step of the first."""
    runs = [launch(args, ranks, "train", f"{folder}/empty.yaml", "--resume", "never", *sets(folder, **{"run.dir": f"{folder}/{name}", "train.steps": args.steps})) for name in names]
    for run in runs:
        finish(run)
    with open(f"{folder}/{names[0]}/metrics.jsonl", encoding="utf-8") as lines:
        steps = [line["step_seconds"] for line in map(json.loads, lines) if line["event"] == "step"]
    return statistics.median(steps[1:])


def predict(args, folder, ranks):
    words = ["--network", f"{folder}/network.json", "--like", f"{folder}/like-0"] if ranks > 1 else ["--like", f"{folder}/alone"]
    plan = call(args, 1, "plan", f"{folder}/empty.yaml", "--json", "--ranks", str(ranks), "--peak", "100", *words, *sets(folder))
    return json.loads(plan)["times"][-1]["step_seconds"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--espalier", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--within", type=float, default=10.0)
    args = parser.parse_args()
    args.espalier = os.path.abspath(args.espalier)
    measured, predicted = ({n: [] for n in args.ranks} for _ in range(2))
    with tempfile.TemporaryDirectory() as folder:
        open(f"{folder}/empty.yaml", "w").close()
        for _ in range(args.rounds):
            train(args, folder, "alone")
            train(args, folder, *(f"like-{i}" for i in range(os.cpu_count())))
            call(args, 2, "bench", "comm", "--output", f"{folder}/network.json")
            for n in args.ranks:
                measured[n].append(train(args, folder, f"ranks-{n}", ranks=n))
                predicted[n].append(predict(args, folder, n))
                print(f"round: {n} ranks, measured {measured[n][-1]:.4f} s, predicted {predicted[n][-1]['step']:.4f} s", file=sys.stderr)
    print("| ranks | measured s | predicted s | of it compute | data | waiting | update | off by |\n| --- | --- | --- | --- | --- | --- | --- | --- |")
    worst = 0.0
    for n in args.ranks:
        real, parts = statistics.median(measured[n]), {key: statistics.median(p[key] for p in predicted[n]) for key in predicted[n][0]}
        off = 100.0 * (parts["step"] / real - 1.0)
        worst = max(worst, abs(off))
        print(f"| {n} | {real:.4f} | {parts['step']:.4f} | {parts['compute']:.4f} | {parts['data']:.4f} | {parts['waits'] + parts['agree'] + parts['gathers']:.4f} | "
              f"{parts['update']:.4f} | {off:+.1f} % |")
    sys.exit(worst > args.within)


if __name__ == "__main__":
    main()
