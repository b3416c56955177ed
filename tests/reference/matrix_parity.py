#!/usr/bin/env python3
"""Twenty steps of training by the optimizers that work on whole matrices, against transformers' Adafactor and torch.optim.Muon.

    python matrix_parity.py --espalier PROGRAM --build FOLDER

torch.optim.Muon rounds to bf16 before it orthogonalises. The truth is its own program in fp64, with that rounding left out. Bounds: losses
and weights of fp32 within 1e-5 of the truth, and nearer to it than torch.optim.Muon as it is.

GPT-2's biases of queries, keys and values are one tensor, a third of whose gradient is but rounding: Adafactor makes steps of that and divides
all of the tensor by it, so that no two programs agree; its rate is 0 here."""
import collections
import contextlib
import re
import sys
import tempfile
import unittest.mock

import torch
import transformers as tf
from transformers.optimization import Adafactor

from documents import logits_of, loss_of
from parity_tools import arguments, bert, check, error, finish, gpt2, llama, make_model
from tuning_parity import CLIP, SMALL, STEPS, comparable, train, worst_weight, write_data

LLAMA = llama(vocab_size=2048, bos_token_id=0, eos_token_id=0)
SHAPES = {
    "gpt2": (gpt2(**SMALL), tf.GPT2LMHeadModel),
    "llama": (LLAMA, tf.LlamaForCausalLM),
    "bert-classes": (bert(vocab_size=2048, num_labels=3), tf.BertForSequenceClassification),
}
CASES = [  # shape, optimizer, its keys, what the control changes
    ("gpt2", "adafactor", {"optim.rates": ["*c_attn.bias=0"]}, {"optim.weight_decay": 0.2}),
    ("llama", "adafactor", {"optim.clip_threshold": 0.5}, {"optim.clip_threshold": 1}),
    ("bert-classes", "adafactor", {}, {"optim.lr": 2.1e-3}),
    ("gpt2", "muon", {}, {"optim.momentum": 0.9}),
    ("llama", "muon", {"optim.muon_scale": "original", "optim.adamw_lr": 1e-3}, {"optim.adamw_lr": 2e-3}),
    ("bert-classes", "muon", {"optim.momentum": 0.9}, {"optim.muon_scale": "original"}),
]


def groups(named):
    return [{"params": [p for _, p in named if (p.dim() > 1) == matrix], "weight_decay": 0.1 if matrix else 0.0} for matrix in (True, False)]


def optimizers_of(name, named, keys):
    if name == "adafactor":
        named = [(n, p) for n, p in named if not n.endswith("c_attn.bias")]
        return [Adafactor(groups(named), lr=2e-3, clip_threshold=keys.get("optim.clip_threshold", 1.0), scale_parameter=False, relative_step=False)]
    layers = [p for n, p in named if p.dim() == 2 and re.search(r"\.(h|layers|layer)\.\d+\.", n)]
    others = [(n, p) for n, p in named if not any(p is q for q in layers)]
    muon = torch.optim.Muon(layers, lr=2e-3, weight_decay=0.1, momentum=keys.get("optim.momentum", 0.95),
                            adjust_lr_fn=keys.get("optim.muon_scale", "match_rms_adamw"))
    return [muon, torch.optim.AdamW(groups(others), lr=keys.get("optim.adamw_lr", 2e-3), betas=(0.9, 0.95), eps=1e-8)]


def follow(model, document, name, keys, rounded):
    """Trains the model in fp64 by the reference; returns its losses."""
    exact = unittest.mock.patch.object(torch.Tensor, "bfloat16", lambda tensor: tensor.clone())
    optimizers, losses = optimizers_of(name, list(model.named_parameters()), keys), []
    rates = [tf.get_scheduler("linear", one, num_warmup_steps=4, num_training_steps=STEPS) for one in optimizers]
    with contextlib.nullcontext() if rounded else exact:
        for _ in range(STEPS):
            total, weight = loss_of(logits_of(model, document), document)
            (total / weight).backward()
            losses.append((total / weight).item())
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            for one in (*optimizers, *rates):
                one.step()
            model.zero_grad()
    return losses


def far(named, other):
    return max(error(comparable(n, p.detach()), comparable(n, q.detach())) for (n, p), (_, q) in zip(named, other))


def compare(args, folder, shape, name, keys, control):
    config, kind = SHAPES[shape]
    start = make_model(config, f"{folder}/base", kind)
    document = write_data(args, folder, collections.namedtuple("Case", "kind optimizer")(kind, name))
    model = start.double()
    named = list(model.named_parameters())
    rounded = kind.from_pretrained(f"{folder}/base").eval().double()
    expected = follow(model, document, name, keys, False)
    words = [f"{key}={value}" for key, value in keys.items()]
    rows = train(args, folder, "run", *words)
    off, worst = max(abs(a / b - 1) for (a, _), b in zip(rows, expected)), worst_weight(folder, "run", named)
    label = f"{shape}, {name}"
    check(len(rows) == STEPS and off <= 1e-5, f"{label}: {STEPS} steps, loss {expected[0]:.3f} to {expected[-1]:.3f}, off by {off:.1e}")
    check(worst[0] <= 1e-5, f"{label}: final weights off by at most {worst[0]:.1e} ({worst[1]})")
    if name == "muon":
        follow(rounded, document, name, keys, True)
        own = far(list(rounded.named_parameters()), named)
        check(worst[0] < own, f"{label}: torch.optim.Muon, which rounds to bf16, is {own:.1e} off")
    train(args, folder, "control", *words, *(f"{key}={value}" for key, value in control.items()))
    worst = worst_weight(folder, "control", named)
    check(worst[0] > 1e-5, f"{label}: another {next(iter(control))} is noticed: {worst[0]:.1e} ({worst[1]})")


def main():
    args = arguments(__doc__)
    torch.manual_seed(13)
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            compare(args, folder, *case)
    return finish()


if __name__ == "__main__":
    sys.exit(main())
