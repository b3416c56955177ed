# test: tier=default timeout=240
"""Ranks that hold, run or read something else than the others are found and named: test_replicas.py ESPALIER"""

import json
import os
import pathlib
import re
import signal
import struct
import sys

import job as jobs
from job import GPUS, NUMERIC, OK, USAGE, Skipped, check, main, needs_emulated_gpus

FROZEN = {"tune__method": "lora", "train__steps": 100000, "run__check_replicas_every": 5}


# ---- A bit in the memory of a rank.


def writable_maps(pid):
    """Address ranges of memory that belongs to no file, but for the terabytes that a sanitizer reserves."""
    for line in pathlib.Path(f"/proc/{pid}/maps").read_text(encoding="ascii").splitlines():
        fields = line.split()
        if fields[1].startswith("rw") and (len(fields) < 6 or fields[5] == "[heap]"):
            begin, end = (int(x, 16) for x in fields[0].split("-"))
            if end - begin < 1 << 30:
                yield begin, end


def flip(pid, needle, at):
    """Flips the lowest bit of byte `at` of every place of a process that holds `needle`; returns how many there were."""
    found = 0
    os.kill(pid, signal.SIGSTOP)
    try:
        with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
            for begin, end in writable_maps(pid):
                try:
                    memory.seek(begin)
                    text = memory.read(end - begin) or b""
                except OSError:
                    continue
                place = text.find(needle)
                while place >= 0:
                    memory.seek(begin + place + at)
                    memory.write(bytes([needle[at] ^ 1]))
                    found += 1
                    place = text.find(needle, place + 1)
    except PermissionError as why:
        raise Skipped(f"the memory of another process cannot be written here: {why}") from None
    finally:
        os.kill(pid, signal.SIGCONT)
    return found


def tensor_of(folder, name):
    blob = (folder / "model.safetensors").read_bytes()
    n = struct.unpack("<Q", blob[:8])[0]
    header = json.loads(blob[8:8 + n])
    begin, end = header[name]["data_offsets"]
    return blob[8 + n + begin:8 + n + end]


def a_flipped_bit(case):
    """In a frozen matrix of one of three ranks: named, and nothing is saved of it. Where nobody looks it goes unnoticed."""
    name = "transformer.h.1.attn.c_proj.weight"
    case.train(0, "made", train__steps=1, train__micro_batches=1, checkpoint__export=True)
    model = case.folder / "made" / "model"
    keys = {**FROZEN, "model__config": None, "model__path": model, "checkpoint__every": 1000, "train__micro_batches": 3, "run__reduction": "fast"}
    needle = tensor_of(model, name)[:256]
    job = case.start(3, **keys)
    job.wait_for("ten steps", lambda: case.last_step() >= 10)
    check(flip(job.pids()[1], needle, 77) >= 1, f"{name} was not found in the memory of rank 1", job)
    line = job.expect_failure(NUMERIC, "replicas differ: rank 1 on ", "has other bits than most ranks", f"weights of {name} (frozen)", "no checkpoint yet")
    check(" more tensors" not in line, f"more than one tensor is said to differ: {line}")
    check(not case.checkpoints(), "something was saved")
    job = case.start(3, "unseen", **{**keys, "run__check_replicas_every": 0})
    job.wait_for("ten steps", lambda: case.last_step("unseen") >= 10)
    check(flip(job.pids()[1], needle, 77) >= 1, "the control's tensor was not found", job)
    seen = case.last_step("unseen")
    job.wait_for("more steps", lambda: case.last_step("unseen") >= seen + 12)
    job.end()


def a_flipped_bit_on_a_gpu(case):
    """Device memory is read in pieces to be compared; the emulated GPU's lies in the process. Until the bit flips, nothing is said."""
    needs_emulated_gpus()
    name = "transformer.h.1.attn.c_proj.weight"
    case.train(0, "made", train__steps=1, train__micro_batches=1, checkpoint__export=True)
    model = case.folder / "made" / "model"
    keys = {**FROZEN, "run__device": "emu", "model__config": None, "model__path": model, "train__micro_batches": 2, "train__micro_batch_tokens": 64, "run__check_replicas_every": 2}
    job = case.start(2, environment=GPUS, **keys)
    job.wait_for("two comparisons", lambda: case.last_step() >= 5)
    check(flip(job.pids()[1], tensor_of(model, name)[:256], 77) >= 1, f"{name} was not found in the memory of rank 1", job)
    line = job.expect_failure(NUMERIC, "replicas differ: rank 0 on ", ", rank 1 on ", "which is right cannot be told", f"weights of {name} (frozen)")
    check(" more tensors" not in line, f"more than one tensor is said to differ: {line}")


def the_last_save_is_compared(case):
    """A copy that went astray since the last comparison is found before a save; the checkpoint from before stays the newest."""
    name = "transformer.h.0.mlp.c_fc.weight"
    case.train(0, "made", train__steps=1, train__micro_batches=1, checkpoint__export=True)
    model = case.folder / "made" / "model"
    keys = {**FROZEN, "model__config": None, "model__path": model, "checkpoint__every": 8, "checkpoint__keep_last": 1, "run__check_replicas_every": 1000000}
    job = case.start(2, **keys)
    job.wait_for("a checkpoint", lambda: case.checkpoints())
    check(flip(job.pids()[0], tensor_of(model, name)[:256], 5) >= 1, f"{name} was not found", job)
    line = job.expect_failure(NUMERIC, "replicas differ: rank 0 on ", ", rank 1 on ", "which is right cannot be told", f"weights of {name}")
    kept = max(case.checkpoints())
    check(f"go on from the checkpoint of step {kept}," in line, f"the newest is of step {kept}, but it says: {line}")


def a_flipped_bit_of_a_shard(case):
    """Two groups of two ranks, each of which keeps half of the weights: what one keeps is compared with the same half of the other group, not with what its neighbour keeps."""
    name = "transformer.wte.weight"
    case.train(0, "made", train__steps=1, train__micro_batches=1, checkpoint__export=True)
    model = case.folder / "made" / "model"
    keys = {"model__config": None, "model__path": model, "optim__lr": 0, "run__sharding": "parameters", "run__shard_group": "2", "train__micro_batches": 4, "train__micro_batch_tokens": 64,
            "train__steps": 100000, "run__check_replicas_every": 5}
    job = case.start(4, **keys)
    job.wait_for("ten steps", lambda: case.last_step() >= 10)
    check(flip(job.pids()[2], tensor_of(model, name)[:256], 77) >= 1, f"{name} was not found in the memory of rank 2", job)
    line = job.expect_failure(NUMERIC, "replicas differ: rank 0 on ", ", rank 2 on ", "which is right cannot be told", f"weights of {name} (bucket ")
    check("rank 1 on" not in line and "rank 3 on" not in line, f"the other half differs, too: {line}")


# ---- Hosts that are not alike.


def by_rank(case, rank, text):
    """A script in front of the program that does something else on one rank; $1 is the program."""
    path = case.folder / "by_rank.sh"
    path.write_text(f'#!/bin/sh\nif [ "$OMPI_COMM_WORLD_RANK" = {rank} ]; then\n{text}\nfi\nexec "$@"\n', encoding="utf-8")
    path.chmod(0o755)
    return [str(path)]


def another_build(case):
    blob = jobs.espalier.read_bytes()
    at = blob.find(b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0")
    if at < 0:
        raise Skipped("the program has no build id")
    other = case.folder / "espalier"
    other.write_bytes(blob[:at + 16] + bytes([blob[at + 16] ^ 1]) + blob[at + 17:])
    other.chmod(0o755)
    before = by_rank(case, 2, f'shift; set -- {other} "$@"')
    case.start(3, before=before, train__micro_batches=3, run__reduction="fast").expect_failure(USAGE, "rank 2 on ", "differs from most in its program", "cannot train together")


def another_number_of_threads(case):
    job = case.start(3, before=by_rank(case, 0, "export OMP_NUM_THREADS=2"), train__micro_batches=3, run__reduction="fast", run__threads=0, train__steps=2)
    text = job.expect(OK, "rank 0 on ", "differs from most in its kernels", "2 threads", "the run goes on")
    check(len(re.findall("differs from most", text)) == 1, "more than one thing is said to differ", job)


def another_config(case):
    """As where a host sees an older copy of the file."""
    mine, theirs = case.config("run", train__steps=2), case.config("run", train__steps=3)
    job = jobs.Job(case.folder, 2, "train", mine, before=by_rank(case, 1, f'shift 3; set -- {jobs.espalier} train {theirs}'))
    job.expect_failure(USAGE, "rank 0 on ", "rank 1 on ", "differ in their config", "cannot train together")


if __name__ == "__main__":
    sys.exit(main([a_flipped_bit, a_flipped_bit_of_a_shard, a_flipped_bit_on_a_gpu, the_last_save_is_compared, another_build, another_number_of_threads, another_config]))
