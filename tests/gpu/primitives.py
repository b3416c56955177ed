#!/usr/bin/env python3
"""Compares two outputs of primitives.cu: primitives.py REFERENCE FOUND. `exact` lines bit by bit; `near` ones within the rounding of sums
of 32 products in fp32, each of which the hardware may truncate. Exit 0 when all agree. primitives.py --self-test REFERENCE: a changed bit in any
line must be found."""

import pathlib
import struct
import sys

ROUNDING = 32 * 2.0**-23  # of the sum of absolute values


def read(text):
    """Name -> (kind, words)."""
    lines = {}
    for line in text.splitlines():
        for kind in ("exact", "near"):
            name, found, words = line.partition(f" {kind} ")
            if found:
                lines[name] = (kind, [int(word, 16) for word in words.split()])
    return lines


def real(word):
    return struct.unpack("<f", struct.pack("<I", word))[0]


def differs(kind, want, found):
    """None, or what is different."""
    if len(want) != len(found):
        return f"{len(found)} words, expected {len(want)}"
    n = len(want) // 2 if kind == "near" else len(want)
    for i in range(n):
        if kind == "exact" and want[i] != found[i]:
            return f"word {i} is {found[i]:08x}, expected {want[i]:08x}"
        if kind == "near" and not abs(real(want[i]) - real(found[i])) <= ROUNDING * real(want[n + i]):
            return f"number {i} is {real(found[i])}, expected {real(want[i])} within {ROUNDING * real(want[n + i])}"
    return None


def compare(reference, found):
    """What is wrong, a line each."""
    wrong = [f"{name}: is missing" for name in reference if name not in found]
    wrong += [f"{name}: is not in the reference" for name in found if name not in reference]
    for name, (kind, words) in reference.items():
        why = differs(kind, words, found[name][1]) if name in found else None
        wrong += [f"{name}: {why}"] if why else []
    return wrong


def self_test(reference):
    wrong = compare(reference, reference)
    for name, (kind, words) in reference.items():
        changed = list(words)
        changed[len(words) // 3] ^= 1 << 20
        if not compare(reference, {**reference, name: (kind, changed)}):
            wrong.append(f"{name}: a changed bit was not found")
        if not compare(reference, {k: v for k, v in reference.items() if k != name}):
            wrong.append(f"{name}: its absence was not found")
    return wrong


def main():
    files = [read(pathlib.Path(name).read_text(encoding="utf-8")) for name in sys.argv[1:] if name != "--self-test"]
    wrong = self_test(files[0]) if "--self-test" in sys.argv else compare(*files)
    print("\n".join(wrong) if wrong else f"{len(files[0])} primitives agree")
    return 1 if wrong or not files[0] else 0


if __name__ == "__main__":
    sys.exit(main())
