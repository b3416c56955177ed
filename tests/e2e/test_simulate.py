# test: tier=default timeout=240
"""`espalier bench comm` measures what is between ranks, and `espalier plan` simulates steps and long runs with it, or with what is assumed of
GPUs and networks that this machine lacks."""

import json
import pathlib
import statistics
import subprocess
import sys

import job
from hosts import Hosts
from job import GPUS, MODEL, OK, ROOT, USAGE, Job, check, main, needs_emulated_gpus

GOLDEN = ROOT / "tests/goldens/plan_llama3_8b_1024.json"  # "times" of the command below, without memory
LLAMA3 = ["configs/llama3_8b_full.yaml", "--ranks", "1024", "--ranks-per-node", "8", "--network", "ndr", "--gpu", "h100", "--jitter", "1", "--write", "100",
          "--set", "train.micro_batches=1024"]
CARD = 20e6  # bytes a second that a test's host sends
LARGEST = 2**20  # bytes that two ranks of each of two hosts sum or gather: two messages behind each other, and as many bytes over a card
PARTS = ("data", "compute", "waits", "agree", "update", "gathers")


def times(*words):
    out = subprocess.run([str(job.espalier), "plan", *map(str, words), "--json"], cwd=ROOT, capture_output=True, text=True, timeout=job.DEADLINE)
    check(out.returncode == OK, out.stderr)
    rows = json.loads(out.stdout)["times"]
    for row in rows:
        step, run = row["step_seconds"], row["run"]
        check(abs(sum(step[part] for part in PARTS) / step["step"] - 1) < 1e-9, f"the parts of a step do not add up: {step}")
        check(0 < run["goodput"] <= 1 and step["late"] > 0, f"{run}")
    return rows


def bench(case, ranks, name, *words):
    path = case.folder / name
    ran = Job(case.folder, ranks, "bench", "comm", "--largest", "1", "--rounds", "3", "--output", path, *words)
    ran.expect(OK)
    return path, ran.stdout


def what_is_measured_is_planned_with(case):
    path, table = bench(case, 2, "network.json")
    check(all(word in table for word in ("sum, ring", "sum, tree", "sum in bf16", "gather", "sum for all", "within a host")), table)
    network = json.loads(path.read_text(encoding="utf-8"))
    check(set(network["within"]) == {"ring", "tree", "exchange", "gather"} and network["between"] == {} and not network["hidden"], f"{network}")
    check(all(link["latency"] >= 0 and link["bandwidth"] > 0 for link in network["within"].values()), f"{network}")
    config = case.config("run", train__micro_batches=8)
    words = [config, "--peak", "10", "--network", path, "--cores", "2"]
    rows = times(*words, "--ranks", "4")
    check([row["ranks"] for row in rows] == [1, 2, 4], "one, two and four ranks are simulated")
    steps = [row["step_seconds"] for row in rows]
    check(steps[0]["waits"] == steps[0]["gathers"] == 0 and steps[1]["waits"] > 0 and steps[1]["gathers"] > 0, f"{steps}")
    check(abs(steps[2]["compute"] / steps[1]["compute"] - 1) < 1e-9, f"four ranks on two cores are no faster than two: {steps}")
    Job(case.folder, 0, "plan", config, "--device", "cuda", "--network", "ndr", "--ranks", "8").expect_failure(USAGE, "--gpu")
    Job(case.folder, 0, "plan", config, "--network", "ndr", "--gpu", "h100", "--ranks", "8").expect_failure(USAGE, "bf16")
    Job(case.folder, 0, "plan", config, "--device", "cpu", "--gpu", "h100").expect_failure(USAGE, "--device cuda")
    Job(case.folder, 0, "plan", config, "--gpu", "h1000").expect_failure(USAGE, "h200")
    refused = Job(case.folder, 0, "plan", *words, "--ranks", "4", "--ranks-per-node", "2")
    refused.expect_failure(USAGE, "links between hosts")
    Job(case.folder, 0, "plan", config, "--peak", "10", "--network", "no-such").expect_failure(USAGE, "bench comm", "ndr")
    Job(case.folder, 0, "bench", "comm").expect_failure(USAGE, "mpirun")


def an_odd_number_of_ranks_has_no_tree(case):
    path, table = bench(case, 3, "three.json")
    network = json.loads(path.read_text(encoding="utf-8"))
    check("   sum, tree" not in table and network["within"]["tree"] == network["within"]["gather"], table)


def the_emulated_gpus_network_is_measured(case):
    needs_emulated_gpus()
    config = case.config("run", run__device="emu")
    path = case.folder / "emu.json"
    Job(case.folder, 2, "bench", "comm", config, "--largest", "1", "--rounds", "1", "--output", path,
        environment=GPUS).expect(OK)
    network = json.loads(path.read_text(encoding="utf-8"))
    check(network["hidden"] and network["ring_gather"] and network["cores"] == 0, f"{network}")


def a_run_says_how_fast_it_is(case):
    """Of one rank the simulated step is the sum of what was measured: nothing is added, nothing is lost."""
    keys = {"train__steps": 6, "train__micro_batches": 2, "run__threads": 1}
    case.train(0, "one", **keys)
    steps = case.metrics("one", "step")[1:]
    row = times(case.config("other", **keys), "--like", case.folder / "one", "--peak", "10", "--threads", "1", "--cores", "1")[-1]["step_seconds"]
    middle = {name: statistics.median_high([step[column] for step in steps]) for name, column in (("compute", "compute_seconds"), ("data", "data_seconds"), ("update", "optimizer_seconds"))}
    check(all(abs(row[name] / seconds - 1) < 1e-6 for name, seconds in middle.items()), f"simulated {row}, measured {middle}")
    twice = times(case.config("twice", **{**keys, "train__micro_batches": 4}), "--like", case.folder / "one", "--peak", "10", "--threads", "1", "--cores", "1")[-1]["step_seconds"]
    check(abs(twice["compute"] / row["compute"] - 2) < 1e-6 and twice["update"] == row["update"], f"{twice}")
    Job(case.folder, 0, "plan", case.config("larger", **keys, train__micro_batch_tokens=256), "--peak", "10", "--like", case.folder / "one").expect_failure(USAGE, "micro_batch_tokens")
    case.train(2, "two", **keys)
    Job(case.folder, 0, "plan", case.config("run"), "--peak", "10", "--like", case.folder / "two").expect_failure(USAGE, "one rank")


def slowed(case, hosts):
    """Seconds in which ranks of a run waited for each other, and what a plan with the network as measured says."""
    case.model.write_text(json.dumps({**MODEL, "n_embd": 128}), encoding="utf-8")
    network, keys = case.folder / "hosts.json", {"train__steps": 5, "train__micro_batches": 4, "run__threads": 1, "run__reduction": "fast", "checkpoint__every": 0}
    hosts.launch(2, "bench", "comm", "--largest", "1", "--rounds", "5", "--output", network).expect(OK)
    hosts.start(case, 2, "hosts", **keys).expect(OK)
    case.train(0, "one", **keys)
    waited = statistics.median(step["communication_seconds"] for step in case.metrics("hosts", "step")[1:])
    plan = [case.config("hosts", **keys), "--peak", "10", "--like", case.folder / "one", "--ranks", "4", "--ranks-per-node", "2", "--network"]
    return waited, network, lambda path: (lambda step: step["waits"] + step["gathers"])(times(*plan, path)[-1]["step_seconds"])


def a_slow_link_is_foreseen(case):
    """Two hosts whose cards send 20 MB/s: they are what ranks wait for, and a plan with them foresees it, as far as a busy machine lets it."""
    with Hosts(case.folder / "hosts", 2) as hosts:
        for name in hosts.names:
            hosts.slow(name, "160mbit")
        waited, network, foresee = slowed(case, hosts)
    found, links = foresee(network), json.loads(network.read_text(encoding="utf-8"))
    print(f"    waited {waited:.3f} s, foreseen {found:.3f} s")
    rates = {op: LARGEST / (2 * links["between"][op]["latency"] + LARGEST / links["between"][op]["bandwidth"]) for op in ("tree", "gather")}
    check(all(0.5 * CARD < rate < 1.05 * CARD for rate in rates.values()), f"cards of 20 MB/s: {rates} of {links['between']}")
    check(all(links["within"][op]["bandwidth"] > 5 * links["between"][op]["bandwidth"] for op in links["between"]), f"{links}")
    check(0.5 < found / waited < 2, f"waited for {waited} s, foreseen are {found} s")
    check(foresee("100gbe") < 0.1 * waited, "the control: with fast cards next to nothing is foreseen")


def differs(found, golden, path=""):
    """Where two trees of numbers differ by more than a millionth."""
    if isinstance(golden, dict):
        return [text for key in golden for text in differs(found.get(key), golden[key], f"{path}.{key}")]
    if isinstance(golden, list):
        return [text for i, (a, b) in enumerate(zip(found, golden, strict=True)) for text in differs(a, b, f"{path}[{i}]")]
    return [] if abs(found - golden) <= 1e-6 * abs(golden) else [f"{path}: {found}, the golden has {golden}"]


def comparable(rows):
    """Without memory; and under a sanitizer, whose red zones make snapshots larger, without what follows from their size."""
    sanitized = b"__asan_init" in pathlib.Path(job.espalier).read_bytes()
    return [{key: value for key, value in row.items() if key != "memory_bytes" and not (sanitized and key == "run")} for row in rows]


def a_thousand_gpus_are_simulated(case):
    """Llama-3-8B on 1,024 H100: the numbers of the golden, and those that follow from the shape by other arithmetic."""
    rows = times(*LLAMA3)
    off = differs(comparable(rows), comparable(json.loads(GOLDEN.read_text(encoding="utf-8"))))
    check(not off, "; ".join(off[:5]))
    check([row["ranks"] for row in rows] == [8, 16, 32, 64, 128, 256, 512, 1024], f"{[row['ranks'] for row in rows]}")
    last, tokens, width, layers, parameters = rows[-1]["step_seconds"], 8192, 4096, 32, 8030261248
    matrices = layers * (4096 * (4096 + 1024) * 2 + 3 * 4096 * 14336)
    head, pairs = 128256 * width, tokens * (tokens + 1) / 2
    # Forward, forward again and backward of layers; of the head, the loss, forward and backward; attention's backward is 3.5 forwards.
    products = 2 * tokens * (4 * matrices + 3 * head) / (0.6 * 989e12)
    attention = layers * 4 * pairs * width * (2 + 3.5) / (0.2 * 989e12)
    check(1.0 < last["compute"] / (products + attention) < 1.15, f"compute {last['compute']} s, products and attention take {products + attention}")
    ring = lambda numbers, size: 34 * ((1024 - 128) * 3.4e-6 + 127 * 14e-6) + numbers * size * 1023 / 1024 / (0.8 * 400e9)
    for name, size in (("sums", 4), ("all_gathers", 2)):
        check(1 <= last[name] / ring(parameters, size) < 1.002, f"{name} {last[name]} s, a ring takes {ring(parameters, size)}")  # padding
    slow = times(*LLAMA3[:6], "ndr1", *LLAMA3[7:])[-1]["step_seconds"]
    check(slow["step"] > 1.2 * last["step"], f"the control: an eighth of the cards is felt: {slow}")
    flowing = times(*LLAMA3, "--set", "run.sharding=gradients")[0]["step_seconds"]
    check(flowing["sums"] > 100 * rows[0]["step_seconds"]["sums"], f"gradients that are cut travel in all 128 micro-batches: {flowing}")


if __name__ == "__main__":
    sys.exit(main([what_is_measured_is_planned_with, an_odd_number_of_ranks_has_no_tree, the_emulated_gpus_network_is_measured, a_run_says_how_fast_it_is,
                   a_slow_link_is_foreseen, a_thousand_gpus_are_simulated]))
