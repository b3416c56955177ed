#!/usr/bin/env python3
"""What ranks, checkpoints and starting cost, on this machine, interleaved:

    python3 tests/bench/ranks.py --espalier build/release/espalier [--rounds 3] [--part scaling sharding checkpoints saves copies start]

scaling      GPT-2 124M, 2 micro-batches of 4 x 256 a step: one rank of one thread against two ranks of one thread (2.0 is ideal)
sharding     the same model, 4 micro-batches a step: one rank of one thread against 2 and 4 ranks in every way of run.sharding, and 4 in groups of 2: tokens a second, the planned memory of a
             rank, MiB that it sends in a step, and the share of the step in which it waits for messages
checkpoints  one micro-batch a step on one rank of all cores: a checkpoint every 10 steps against none
saves        a checkpoint (1.5 GB) after each of 5 short steps: how long training stands still for one that is written behind it, as a share of a minute; and how fast one
             in the foreground is, against as many bytes in one file by plain write and fsync, by turns on the same disk
copies       one rank of one thread on each of two hosts (of namespaces, tests/e2e/hosts.py: messages go through the kernel's network), 256 tokens a micro-batch, one each a step:
             checkpoint.memory_every 1 against none, how long training stands still for a copy that is taken and travels (the first, which takes its memory, too), and the seconds from the
             kill of a rank to the beginning of the first step after a start from memory, and from the checkpoint that was made in the copy's place
start        GPT-2 124M from safetensors in the page cache: seconds from exec to the end of the first step, and that step's own"""
import argparse, glob, json, os, pathlib, shutil, statistics, subprocess, sys, tempfile, time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ENV = dict({k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")}, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")


def recipe(folder, **changes):
    keys = {"run.dir": f"{folder}/run", "model.config": "configs/models/gpt2-124m/config.json", "model.dropout": 0, "data.train": "configs/data/shakespeare.txt",
            "data.tokenizer": "configs/data/bpe2048", "data.placement": "windows", "data.sequence_length": 256, "data.cache": f"{folder}/cache", "data.append_eos": "false",
            "train.steps": 6, "train.micro_batch_tokens": 1024, "train.micro_batches": 2, "optim.lr": "1e-4", "checkpoint.export": "false", "log.tensorboard": "false",
            "log.progress": "none"}
    keys.update(changes)
    return [x for k, v in keys.items() for x in ("--set", f"{k}={v}")]


def train(args, folder, ranks, **changes):
    command = ["taskset", "-c", "0"] if changes.pop("pin", False) else []
    if ranks > 1:
        command += ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks)]
    command += [args.espalier, "train", f"{folder}/empty.yaml", "--resume", "never"] + recipe(folder, **changes)
    start = time.time()
    out = subprocess.run(command, cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=900)
    if out.returncode != 0:
        sys.exit(f"exit {out.returncode}: {out.stderr[-800:]}")
    lines = [json.loads(x) for x in open(f"{folder}/run/metrics.jsonl")]
    return start, [x for x in lines if x["event"] == "step"]


def rate(steps):
    return statistics.median(x["tokens_per_second"] for x in steps[1:])


def scaling(args, folder):
    one, two, waits = [], [], []
    for _ in range(args.rounds):
        one.append(rate(train(args, folder, 1, pin=True, **{"run.threads": 1})[1]))
        steps = train(args, folder, 2, **{"run.threads": 1})[1]
        two.append(rate(steps))
        waits.append(statistics.median(x["communication_seconds"] / x["step_seconds"] for x in steps[1:]))
    print(f"| scaling | 1 rank {statistics.median(one):.0f} tok/s, 2 ranks {statistics.median(two):.0f} tok/s, waiting for messages {100 * statistics.median(waits):.1f} % | "
          f"{statistics.median(b / a for a, b in zip(one, two)):.2f} |")


def planned(args, folder, ranks, **changes):
    command = [args.espalier, "plan", f"{folder}/empty.yaml", "--json", "--ranks", str(ranks), "--threads", "1", "--peak", "100"]
    plan = json.loads(subprocess.run(command + recipe(folder, **changes), cwd=ROOT, env=ENV, capture_output=True, text=True, check=True, timeout=60).stdout)
    return plan["total_bytes"] / 2**20, plan["wire_bytes_per_rank"] / 2**20


def sharding(args, folder):
    names = ("none", "optimizer", "gradients", "parameters")
    ways = [(1, "optimizer", "all")] + [(ranks, way, "all") for ranks in (2, 4) for way in names] + [(4, way, "2") for way in names[1:]]
    found, waits = {way: [] for way in ways}, {way: [] for way in ways}
    for _ in range(args.rounds):
        for ranks, way, group in ways:
            keys = {"run.threads": 1, "run.sharding": way, "run.shard_group": group, "train.micro_batches": 4, "train.steps": 3}
            steps = train(args, folder, ranks, pin=ranks == 1, **keys)[1]
            found[ranks, way, group].append(rate(steps))
            waits[ranks, way, group].append(statistics.median(x["communication_seconds"] / x["step_seconds"] for x in steps[1:]))
    one = statistics.median(found[ways[0]])
    print("| ranks | run.sharding | group | tokens/s | of one rank | planned MiB | sent MiB a step | waiting |\n| --- | --- | --- | --- | --- | --- | --- | --- |")
    for ranks, way, group in ways:
        memory, sent = planned(args, folder, ranks, **{"run.sharding": way, "run.shard_group": group, "train.micro_batches": 4})
        speed = statistics.median(found[ranks, way, group])
        print(f"| {ranks} | {way} | {group} | {speed:.0f} | {speed / one:.2f} | {memory:.0f} | {sent:.0f} | {100 * statistics.median(waits[ranks, way, group]):.1f} % |")


def whole(steps):
    return (steps[-1]["time"] - steps[0]["time"]) / (steps[-1]["step"] - steps[0]["step"])


def checkpoints(args, folder):
    with_, without = [], []
    for _ in range(args.rounds):
        without.append(whole(train(args, folder, 1, **{"train.steps": 21, "train.micro_batches": 1})[1]))
        with_.append(whole(train(args, folder, 1, **{"train.steps": 21, "train.micro_batches": 1, "checkpoint.every": 10})[1]))
    print(f"| checkpoint every 10 steps | {statistics.median(without):.3f} s a step without, {statistics.median(with_):.3f} s with (1.5 GB each) | "
          f"{100 * (statistics.median(b / a for a, b in zip(without, with_)) - 1):+.1f} % |")


def written(folder):
    return sum(os.path.getsize(f"{at}/{name}") for at, _, names in os.walk(folder) for name in names)


def plain_write(path, size):
    """Bytes a second of write and fsync, from memory that is there."""
    piece = os.urandom(1 << 26)
    begun = time.monotonic()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for at in range(0, size, len(piece)):
        os.write(fd, piece[:size - at])
    os.fsync(fd)
    os.close(fd)
    seconds = time.monotonic() - begun
    os.remove(path)
    return size / seconds


def saves(args, folder):
    speeds, plain, stalls, size = [], [], [], 0
    keys = {"train.steps": 6, "train.micro_batches": 1, "train.micro_batch_tokens": 256, "checkpoint.every": 1, "checkpoint.keep_last": 6}
    for _ in range(args.rounds):
        steps = train(args, folder, 1, **keys, **{"checkpoint.background": "false"})[1]
        size = written(f"{folder}/run/checkpoints/step-00000002")
        held = [x["save_seconds"] for x in steps if x["save_seconds"] > 0][1:]  # the first save takes its memory, too
        subprocess.run(["rm", "-r", f"{folder}/run"], check=True)
        for seconds in held:
            speeds.append(size / seconds)
            plain.append(plain_write(f"{folder}/plain", size))
        steps = train(args, folder, 1, **{**keys, "train.steps": 4, "train.micro_batches": 32, "checkpoint.every": 2})[1]
        stalls += [x["save_seconds"] for x in steps if x["save_seconds"] > 0][:1]
    mine, theirs = statistics.median(speeds), statistics.median(plain)
    print(f"| a save a minute | training stands still for {statistics.median(stalls):.3f} s | {100 * statistics.median(stalls) / 60:.2f} % |")
    print(f"| {size / 1e9:.2f} GB in the foreground | {mine / 1e9:.2f} GB/s ({min(speeds) / 1e9:.2f}-{max(speeds) / 1e9:.2f}), plain write and fsync {theirs / 1e9:.2f} "
          f"({min(plain) / 1e9:.2f}-{max(plain) / 1e9:.2f}) | {mine / theirs:.2f} |")


def events(folder, name):
    path = pathlib.Path(f"{folder}/run/metrics.jsonl")
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [x for x in (json.loads(line) for line in lines if line.endswith(b"\n")) if x["event"] == name]


def on_hosts(hosts, folder, **changes):
    keys = {"model.config": f"{ROOT}/configs/models/gpt2-124m/config.json", "data.train": f"{ROOT}/configs/data/shakespeare.txt", "data.tokenizer": f"{ROOT}/configs/data/bpe2048",
            "train.micro_batch_tokens": 256, "run.threads": 1, **changes}
    return hosts.launch(1, "train", f"{folder}/empty.yaml", *recipe(folder, **keys))


def with_copies(hosts, folder, every):
    """Seconds of a step, and those of standing still by copy."""
    on_hosts(hosts, folder, **{"train.steps": 12, "checkpoint.memory_every": every}).expect(0)
    steps, made = events(folder, "step"), len(events(folder, "memory_copy"))
    shutil.rmtree(f"{folder}/run")
    return whole(steps), sum(x["save_seconds"] for x in steps) / max(made, 1)


def restart(hosts, folder, key, is_there, words):
    """Seconds from a kill to the first step. What was lost is not made up for."""
    keys = {"train.steps": 1000, key: 1}
    job = on_hosts(hosts, folder, **keys)
    job.wait_for("a state to go on from", is_there)
    killed = time.time()
    os.kill(job.pids()[1], 9)
    job.finish()
    job = on_hosts(hosts, folder, **keys)
    job.wait_for("a step", lambda: events(folder, "step")[-1:] and events(folder, "step")[-1]["time"] > killed)
    first = next(x for x in events(folder, "step") if x["time"] > killed)
    if words not in job.stderr:
        sys.exit(f"not '{words}': {job.stderr[-800:]}")
    job.end()
    shutil.rmtree(f"{folder}/run")
    return first["time"] - first["step_seconds"] - killed


def copies(args, folder):
    sys.path.insert(0, f"{ROOT}/tests/e2e")
    import job
    from hosts import Hosts
    job.espalier, job.DEADLINE = pathlib.Path(args.espalier).resolve(), 900
    os.environ.update(ENV)
    without, with_, stills, memory, disk = [], [], [], [], []
    for _ in range(args.rounds):
        with Hosts(pathlib.Path(folder) / "hosts", 2) as hosts:
            without.append(with_copies(hosts, folder, 0)[0])
            step, still = with_copies(hosts, folder, 1)
            with_.append(step)
            stills.append(still)
            memory.append(restart(hosts, folder, "checkpoint.memory_every", lambda: events(folder, "memory_copy"), "resumed from the in-memory copy"))
            disk.append(restart(hosts, folder, "checkpoint.every", lambda: glob.glob(f"{folder}/run/checkpoints/step-????????/manifest.json"), "resumed from"))
        shutil.rmtree(f"{folder}/hosts")
    print(f"| checkpoint.memory_every 1 | {statistics.median(without):.3f} s a step without, {statistics.median(with_):.3f} s with; a copy holds training up for "
          f"{statistics.median(stills):.3f} s | {100 * (statistics.median(b / a for a, b in zip(without, with_)) - 1):+.1f} % |")
    print(f"| a rank is killed | {statistics.median(memory):.2f} s to the next step from memory, {statistics.median(disk):.2f} s from disk | "
          f"{statistics.median(a / b for a, b in zip(memory, disk)):.2f} |")


def start(args, folder):
    train(args, folder, 1, **{"train.steps": 1, "checkpoint.export": "true", "train.micro_batches": 1})
    os.rename(f"{folder}/run/model", f"{folder}/model")
    found = []
    for _ in range(args.rounds):
        began, steps = train(args, folder, 1, **{"train.steps": 1, "train.micro_batches": 1, "model.config": "", "model.path": f"{folder}/model"})
        found.append((steps[0]["time"] - began - steps[0]["step_seconds"], steps[0]["step_seconds"]))
    before, first = (statistics.median(x) for x in zip(*found))
    print(f"| start | {before:.2f} s to the first step, which takes {first:.2f} s | {before + first:.2f} s |")


def main():
    parts = {"scaling": scaling, "sharding": sharding, "checkpoints": checkpoints, "saves": saves, "copies": copies, "start": start}
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--espalier", required=True)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--part", nargs="*", default=list(parts), choices=list(parts))
    args = p.parse_args()
    args.espalier = os.path.abspath(args.espalier)
    print("| what | figures | result |\n| --- | --- | --- |", flush=True)
    for part in args.part:
        with tempfile.TemporaryDirectory() as folder:
            open(f"{folder}/empty.yaml", "w").close()
            parts[part](args, folder)


if __name__ == "__main__":
    main()
