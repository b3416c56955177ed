#!/usr/bin/env python3
"""Steps as `espalier plan` simulates them against steps as they are, on this machine, interleaved; for a machine that does nothing else:

    python3 tests/bench/simulate.py --espalier build/release/espalier [--rounds 3] [--ranks 1 2 4] [--steps 12]

A Llama of 15 M weights, four micro-batches of 1,024 tokens a step, so 1, 2 and 4 ranks share the same work; ranks share the cores where
there are more of them than cores. Each round: a run of one rank that says how fast a micro-batch is (`--like`), `bench comm` on two ranks
that says how fast sums are (`--network`), then for each number of ranks a run that is measured. Nothing of the measured runs enters a
prediction. Medians over the steps of a run, then over rounds. Exit code 1 when a prediction is further than --within percent off."""
import argparse, json, os, statistics, subprocess, sys, tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ENV = dict({k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")}, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
MPIRUN = ["mpirun", "--oversubscribe", "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1", "-n"]
KEYS = {"model.config": "configs/models/llama-15m/config.json", "data.train": "configs/data/shakespeare.txt", "data.tokenizer": "configs/data/bpe2048",
        "data.placement": "windows", "data.sequence_length": 512, "data.append_eos": "false", "train.micro_batch_tokens": 1024, "train.micro_batches": 4,
        "optim.lr": "1e-4", "checkpoint.export": "false", "checkpoint.background": "false", "log.tensorboard": "false", "log.progress": "none"}


def call(args, ranks, *words):
    command = [*(MPIRUN + [str(ranks)] if ranks > 1 else []), args.espalier, *words]
    out = subprocess.run(command, cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=900)
    if out.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit {out.returncode}: {out.stderr[-800:]}")
    return out.stdout


def sets(folder, **changes):
    keys = {**KEYS, "data.cache": f"{folder}/cache", **changes}
    return [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]


def train(args, folder, name, ranks):
    """Seconds of a step. One rank computes with all cores, several with one thread each."""
    threads = max(1, os.cpu_count() // ranks)
    call(args, ranks, "train", f"{folder}/empty.yaml", "--resume", "never", *sets(folder, **{"run.dir": f"{folder}/{name}", "run.threads": threads, "train.steps": args.steps}))
    with open(f"{folder}/{name}/metrics.jsonl", encoding="utf-8") as lines:
        steps = [line["step_seconds"] for line in map(json.loads, lines) if line["event"] == "step"]
    return statistics.median(steps[1:])


def predict(args, folder, ranks):
    words = ["--network", f"{folder}/network.json"] if ranks > 1 else []
    plan = call(args, 1, "plan", f"{folder}/empty.yaml", "--json", "--ranks", str(ranks), "--peak", "100", "--like", f"{folder}/like", *words, *sets(folder))
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
            train(args, folder, "like", 1)
            call(args, 2, "bench", "comm", "--output", f"{folder}/network.json")
            for n in args.ranks:
                measured[n].append(train(args, folder, f"ranks-{n}", n))
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
