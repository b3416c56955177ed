"""Reads with the reference package (pip: safetensors, torch) what the product writes: shards, their index, a single file.

    python tests/reference/safetensors_roundtrip.py build/release/tests/test_safetensors

The program writes the tensors of tests/unit/test_safetensors.c; element k of tensor i is 100 i + k (mod 251 for u8).
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from safetensors import safe_open

EXPECTED = [
    ("model.embed.weight", torch.float32, [5, 3]),
    ("model.mask", torch.uint8, [7]),
    ("model.norm.weight", torch.bfloat16, [8]),
    ("model.steps", torch.int64, []),
    ("model.scale", torch.float64, [3]),
    ("\u00e9 \"quoted\"", torch.float16, [1, 2, 2]),
]


def value(i):
    _, dtype, shape = EXPECTED[i]
    n = torch.Size(shape).numel()
    numbers = 100 * i + torch.arange(n, dtype=torch.float64)
    return (numbers % 251 if dtype == torch.uint8 else numbers).to(dtype).reshape(shape)


def read(path):
    with safe_open(path, framework="pt") as f:
        assert f.metadata() == {"format": "pt"}, f.metadata()
        return {name: f.get_tensor(name) for name in f.keys()}


def check(found):
    assert set(found) == {name for name, _, _ in EXPECTED}, sorted(found)
    for i, (name, dtype, shape) in enumerate(EXPECTED):
        assert found[name].dtype == dtype and list(found[name].shape) == shape, name
        assert torch.equal(found[name], value(i)), (name, found[name], value(i))


with tempfile.TemporaryDirectory() as folder:
    single = pathlib.Path(folder) / "adapter_model.safetensors"
    subprocess.run([sys.argv[1], folder, single], check=True)
    check(read(single))
    index = json.loads((pathlib.Path(folder) / "model.safetensors.index.json").read_text())
    shards = {file: read(pathlib.Path(folder) / file) for file in set(index["weight_map"].values())}
    assert len(shards) == 3
    check({name: shards[file][name] for name, file in index["weight_map"].items()})
    assert index["metadata"]["total_size"] == sum(t.nbytes for s in shards.values() for t in s.values())
print("ok: the reference package reads what was written")
