"""Logits that are a hash of the last three tokens: the same here and in tests/unit/toy_model.h, so that decoding can be compared
token for token without a model. All values are whole multiples of 1/grid: equal logits occur, and every one is exact in float."""
import torch

MASK = 0xFFFFFFFF


def mix(h):
    h ^= h >> 16
    h = h * 0x7FEB352D & MASK
    h ^= h >> 15
    h = h * 0x846CA68B & MASK
    return h ^ h >> 16


def logits(ids, vocab, grid):
    """In [-4, 8), a row of `vocab` floats."""
    state = 0x9E3779B9
    for token in ids[-3:]:
        state = mix(state ^ token)
    return torch.tensor([mix((state + v * 0x85EBCA6B) & MASK) % (12 * grid) / grid - 4 for v in range(vocab)], dtype=torch.float32)
