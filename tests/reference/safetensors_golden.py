"""Writes tests/goldens/safetensors_tiny.safetensors with the reference package (pip: safetensors, torch).

Every dtype that Espalier reads, a scalar, an empty tensor, and three that it does not read (BOOL, F8_E4M3, five dimensions).
"""
import pathlib

import torch
from safetensors.torch import save_file

tensors = {
    "f32": torch.arange(6, dtype=torch.float32).reshape(2, 3) / 4 - 0.5,
    "f64": torch.tensor([1.0 / 3.0, -2.5], dtype=torch.float64),
    "f16": torch.tensor([1.5, -0.25, 65504.0], dtype=torch.float16),
    "bf16": torch.tensor([[1.5], [-3.0]], dtype=torch.bfloat16),
    "i64": torch.tensor([-1, 1 << 40], dtype=torch.int64),
    "i32": torch.tensor([-7, 7, 1 << 30], dtype=torch.int32),
    "u8": torch.tensor([0, 127, 255], dtype=torch.uint8),
    "scalar": torch.tensor(42.0),
    "empty": torch.zeros(0, 4),
    "flags": torch.tensor([True, False, True]),
    "f8": torch.tensor([1.0, 2.0]).to(torch.float8_e4m3fn),
    "five": torch.zeros(1, 1, 1, 1, 2),
}
path = pathlib.Path(__file__).parent.parent / "goldens" / "safetensors_tiny.safetensors"
save_file(tensors, path, metadata={"format": "pt", "made by": "tests/reference/safetensors_golden.py"})
