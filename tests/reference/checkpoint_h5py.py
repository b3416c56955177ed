#!/usr/bin/env python3
"""Reads a checkpoint as a stranger with h5py would: the index's whole tensors, and the shards' attributes and checksums.

    checkpoint_h5py.py PATH/OF/test_checkpoint [RANKS ...]

test_checkpoint writes the checkpoint; what each byte must be is computed here again. Needs h5py and numpy; xxhash and h5dump where there
are any. Exit 1 on a difference.
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import h5py
import numpy as np

GENERATION = 3
PIECE = 1 << 20  # bytes that one checksum covers
# Group, name, dtype in the file, shape; in the order of the test's table, which the bytes depend on.
TENSORS = [
    ("model", "wte.weight", "<f4", (37, 5)),
    ("model", "h.0.attn.weight", "<f4", (3, 7, 11)),
    ("model", "h.0.ln.bias", "<u2", (13,)),
    ("model", "conv.weight", "<f2", (2, 3, 5, 7)),
    ("model", "scale", "<f8", (1,)),
    ("model", "nothing", "<f4", (0, 4)),
    ("model", "a.first", "<i4", (2,)),
    ("exp_avg", "wte.weight", "<f4", (37, 5)),
    ("exp_avg", "big.weight", "<f4", (1277, 511)),
    ("counters", "steps", "<i8", (3,)),
    ("counters", "flags", "|u1", (9,)),
]


def expected_bytes(i, n):
    k = np.arange(n, dtype=np.uint64) + np.uint64(1)
    with np.errstate(over="ignore"):
        salt = np.uint64((i * 131 + GENERATION * 65537 + 7) * 0xC2B2AE3D27D4EB4F % 2**64)
        x = k * np.uint64(0x9E3779B97F4A7C15) ^ salt
    return ((x >> np.uint64(56)) ^ (x >> np.uint64(29))).astype(np.uint8)


def check_index(step):
    with h5py.File(step / "index.h5") as index:
        assert index["model/wte.weight"].is_virtual
        for i, (group, name, dtype, shape) in enumerate(TENSORS):
            dataset = index[group][name]
            assert dataset.shape == shape and dataset.dtype == np.dtype(dtype), (group, name, dataset.shape, dataset.dtype)
            found = np.frombuffer(dataset[...].tobytes(), np.uint8)
            assert np.array_equal(found, expected_bytes(i, found.size)), f"{group}/{name}: whole tensor differs"


def check_shards(step):
    try:
        import xxhash
    except ImportError:
        xxhash = None
    shards = sorted(step.glob("shard-*.h5"))
    for path in shards:
        with h5py.File(path) as shard:
            for i, (group, name, dtype, shape) in enumerate(TENSORS):
                if group not in shard or name not in shard[group]:
                    continue
                dataset = shard[group][name]
                begin, end = int(dataset.attrs["begin"]), int(dataset.attrs["end"])
                stored = tuple(dataset.attrs["shape"]) or (1,)
                assert stored == shape and dataset.shape == (end - begin,), (group, name)
                found = dataset[...].tobytes()
                size = np.dtype(dtype).itemsize
                assert found == expected_bytes(i, int(np.prod(shape)) * size)[begin * size : end * size].tobytes(), f"{path}: {group}/{name}"
                if xxhash:
                    first = int(dataset.attrs["piece"])
                    pieces = np.array([xxhash.xxh3_64_intdigest(found[k : k + PIECE]) for k in range(0, len(found), PIECE)], "<u8")
                    assert np.array_equal(shard["checksums"][first : first + pieces.size], pieces), f"{path}: {group}/{name}: checksums of pieces"
                    assert xxhash.xxh3_64_hexdigest(pieces.tobytes()) == dataset.attrs["xxh3"].decode(), f"{path}: {group}/{name}: checksum"
    manifest = json.loads((step / "manifest.json").read_text())
    assert {f["name"] for f in manifest["files"]} == {p.name for p in shards} | {"index.h5"}
    return len(shards)


def check_missing_shard(step):
    """A missing shard must show as NaN, never as plausible numbers."""
    victim = sorted(step.glob("shard-*.h5"))[-1]
    victim.unlink()
    with h5py.File(step / "index.h5") as index:
        assert np.isnan(index["exp_avg/big.weight"][-1, -1])


def check_h5dump(step):
    if shutil.which("h5dump"):
        for path in step.glob("*.h5"):
            subprocess.run(["h5dump", "-H", path], check=True, stdout=subprocess.DEVNULL)


def main():
    for ranks in [int(r) for r in sys.argv[2:]] or [1, 3, 4]:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.argv[1], "--write", folder, str(ranks)], check=True, stderr=subprocess.DEVNULL)
            step = pathlib.Path(folder) / "step-00000007"
            check_index(step)
            n = check_shards(step)
            check_h5dump(step)
            check_missing_shard(step)
            print(f"{n} shards: {len(TENSORS)} whole tensors as saved")


if __name__ == "__main__":
    main()
