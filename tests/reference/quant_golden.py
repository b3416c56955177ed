#!/usr/bin/env python3
"""Makes tests/goldens/quant.json: what bitsandbytes expands quantised matrices to, as a hash of all values and the first of them.

    python quant_golden.py

Inputs follow from their number (input_of here and in tests/unit/test_quant.c)."""
import json

import torch

from parity_tools import ROOT
from qlora_parity import expanded

SHAPES = [(3, 64), (1, 150), (130, 128), (300, 192)]  # a last block that is not full; 260 blocks, 900: more than one group of scales


def input_of(rows, columns):
    i = torch.arange(rows * columns, dtype=torch.int64)
    bits = i * 2654435761 % 2**32
    signed = torch.where(bits >= 2**31, bits - 2**32, bits) >> 8
    return (signed.float() * 2.0**-24 * (1 + i // 64 % 7).float()).view(rows, columns)


def hash_of(values):
    """FNV-1a over the bytes."""
    h = 0xCBF29CE484222325
    for byte in values.numpy().tobytes():
        h = (h ^ byte) * 0x100000001B3 % 2**64
    return f"{h:016x}"


def main():
    cases = []
    for rows, columns in SHAPES:
        for form in ("int8", "nf4", "nf4_double"):
            for across in (0, 1) if form == "int8" else (0,):
                values = expanded(input_of(rows, columns), form, across == 1) + 0.0  # no negative zeros
                cases.append(dict(format=form, rows=rows, columns=columns, outputs_across=across, hash=hash_of(values.contiguous()),
                                  first=[float(x) for x in values.flatten()[:6]]))
    (ROOT / "tests/goldens/quant.json").write_text("[" + ",\n ".join(json.dumps(case) for case in cases) + "]\n")


if __name__ == "__main__":
    main()
