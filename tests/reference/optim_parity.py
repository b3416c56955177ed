#!/usr/bin/env python3
"""Twenty steps of every update rule against what its authors publish: torch.optim.AdamW and SGD, the program of Lion's paper, and AdamW with
the states of bitsandbytes' 8-bit optimizers, whose own functions round them here.

    python optim_parity.py --espalier PROGRAM --build FOLDER

Two groups of parameters, each half of the elements, with rates and decays of their own.
The gradients are the same numbers for both, over seven decades of size, some of them zero. Bounds: weights within 1e-5 of the same steps in
fp64; bytes of states equal but for what rounding in fp32 may put on the other side of a border, one of ten thousand, each to the next value."""
import collections
import pathlib
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file

from parity_tools import arguments, check, error, finish

N, STEPS, BLOCK = 256 * 40, 20, 256
BASE = dict(lr=1e-3, beta1=0.9, beta2=0.99, eps=1e-8, decay=0.1, momentum=0.9, nesterov=0, lr2=3e-4, decay2=0.05)
Case = collections.namedtuple("Case", "rule keys")


class Lion(torch.optim.Optimizer):
    """Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", program 1."""

    def __init__(self, parameters, lr, betas, weight_decay):
        super().__init__(parameters, dict(lr=lr, betas=betas, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                m = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                beta1, beta2 = group["betas"]
                direction = torch.sign(beta1 * m + (1 - beta1) * p.grad)
                p.sub_(group["lr"] * (direction + group["weight_decay"] * p))
                m.mul_(beta2).add_(p.grad, alpha=1 - beta2)


def optimizer_of(rule, halves, k):
    groups = [{"params": [halves[0]]}, {"params": [halves[1]], "lr": k["lr2"], "weight_decay": k["decay2"]}]
    if rule == "sgd":
        return torch.optim.SGD(groups, lr=k["lr"], momentum=k["momentum"], nesterov=bool(k["nesterov"]), weight_decay=k["decay"])
    if rule == "lion":
        return Lion(groups, k["lr"], (k["beta1"], k["beta2"]), k["decay"])
    return torch.optim.AdamW(groups, lr=k["lr"], betas=(k["beta1"], k["beta2"]), eps=k["eps"], weight_decay=k["decay"])


def numbers():
    torch.manual_seed(7)
    sizes = 10.0 ** torch.randint(-5, 2, (N,))
    gradients = torch.randn(STEPS, N) * sizes
    gradients[:, ::97] = 0
    return torch.randn(N), gradients


def reference(rule, keys, weight, gradients):
    halves = [torch.nn.Parameter(half) for half in weight.double().chunk(2)]
    optimizer = optimizer_of(rule, halves, keys)
    for row in gradients:
        for p, half in zip(halves, row.double().chunk(2)):
            p.grad = half
        optimizer.step()
    names = [name for name, value in optimizer.state[halves[0]].items() if torch.is_tensor(value) and value.numel() == N // 2]
    return {"weight": torch.cat(halves).detach(), **{name: torch.cat([optimizer.state[p][name] for p in halves]) for name in names}}


def quantised(x, values):
    """By bitsandbytes, as its kernels for GPUs do: the nearest value. On CPUs only formats other than fp32, bf16 and fp16 take that path;
    the others round through a table, which turns 0 into another value."""
    return torch.ops.bitsandbytes.quantize_blockwise(x.double(), values, BLOCK)


def reference_8bit(keys, weight, gradients):
    """AdamW whose moments pass through bitsandbytes' blockwise quantisation after every step, in fp32."""
    from bitsandbytes import functional as bnb
    k, w = keys, weight.clone()
    lr, decay = (torch.cat([torch.full((N // 2,), k[name]), torch.full((N // 2,), k[name + "2"])]) for name in ("lr", "decay"))
    maps = {"exp_avg": bnb.create_dynamic_map(signed=True), "exp_avg_sq": bnb.create_dynamic_map(signed=False)}
    code = {name: torch.zeros(N, dtype=torch.uint8) for name in maps}
    scale = {name: torch.zeros(N // BLOCK) for name in maps}
    for t, g in enumerate(gradients, 1):
        s = {name: torch.ops.bitsandbytes.dequantize_blockwise(code[name], scale[name], maps[name], BLOCK, torch.float32) for name in maps}
        s["exp_avg"] = k["beta1"] * s["exp_avg"] + (1 - k["beta1"]) * g
        s["exp_avg_sq"] = k["beta2"] * s["exp_avg_sq"] + (1 - k["beta2"]) * g * g
        denominator = s["exp_avg_sq"].sqrt() / (1 - k["beta2"] ** t) ** 0.5 + k["eps"]
        w = w - lr * (s["exp_avg"] / (1 - k["beta1"] ** t) / denominator + decay * w)
        for name in maps:
            code[name], scale[name] = quantised(s[name], maps[name])
    return {"weight": w, **code, **{name + "_scale": scale[name] for name in maps}}


def run(args, rule, keys, weight, gradients):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        save_file({"weight": weight, "gradients": gradients.reshape(-1)}, folder / "model.safetensors")
        words = [f"{key}={value}" for key, value in keys.items()]
        subprocess.run([f"{args.build}/tests/rule_probe", rule, folder, folder / "out.safetensors", *words], check=True, timeout=60)
        return load_file(folder / "out.safetensors")


def worst(found, true):
    return max((error(found[name], true[name]), name) for name in true)


def compare(args, name, case, weight, gradients):
    keys = {**BASE, **case.keys}
    found, true = run(args, case.rule, keys, weight, gradients), reference(case.rule, keys, weight, gradients)
    off = worst(found, true)
    check(set(found) >= set(true) and off[0] <= 1e-5, f"{name}: {STEPS} steps, {', '.join(sorted(true))} off by at most {off[0]:.1e} ({off[1]})")
    for key in ("decay", "lr2"):
        off = worst(run(args, case.rule, {**keys, key: keys[key] * 1.1}, weight, gradients), true)
        check(off[0] > 1e-5, f"{name}: a tenth more {key} is noticed: {off[0]:.1e} ({off[1]})")


def compare_8bit(args, weight, gradients):
    found, true = run(args, "adamw8bit", BASE, weight, gradients), reference_8bit(BASE, weight, gradients)
    off = worst(found, {name: true[name] for name in ("weight", "exp_avg_scale", "exp_avg_sq_scale")})
    check(off[0] <= 1e-5, f"adamw8bit: {STEPS} steps, weights and scales off by at most {off[0]:.1e} ({off[1]})")
    for name in ("exp_avg", "exp_avg_sq"):
        apart = (found[name].int() - true[name].int()).abs()
        other = int((apart > 0).sum())
        check(other <= N // 10000 and int(apart.max()) <= 1, f"adamw8bit: {other} of {N} bytes of {name} are others than bitsandbytes'")
    spoilt = run(args, "adamw8bit", {**BASE, "beta2": 0.98}, weight, gradients)
    check(int((spoilt["exp_avg_sq"] != true["exp_avg_sq"]).sum()) > N // 10000, "adamw8bit: another beta2 is noticed")


def main():
    args = arguments(__doc__)
    weight, gradients = numbers()
    for name, case in {"adamw": Case("adamw", {}), "sgd": Case("sgd", dict(lr=1e-2)), "sgd without momentum": Case("sgd", dict(momentum=0)),
                       "sgd, nesterov": Case("sgd", dict(nesterov=1)), "lion": Case("lion", {})}.items():
        compare(args, name, case, weight, gradients)
    compare_8bit(args, weight, gradients)
    return finish()


if __name__ == "__main__":
    sys.exit(main())
