#!/usr/bin/env python3
"""PyTorch doing the work that Espalier does, for gpu_peers.py: peer_torch.py CASE cuda|cpu [--small]. Models are plain modules without graph
breaks, compiled (torch.compile) on a GPU, bf16 by autocast over fp32 weights, scaled-dot-product attention, fused AdamW, clipping.

CASE is a model of gpu_peers.py as JSON, {"model": config.json, "rows": B, "tokens": T}: prints a line {"ready": ...}, then for every line "N"
on stdin does N steps and prints {"seconds": [...], "peak_bytes": ...}. Or "kernels": prints the milliseconds of attention (each of the library's
ways), of fused AdamW, of a copy and of a matrix product, once for every line on stdin."""

import json
import math
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

DEVICE = sys.argv[2]
SMALL = "--small" in sys.argv
WAYS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION, "efficient": SDPBackend.EFFICIENT_ATTENTION, "plain": SDPBackend.MATH}
# name: batch, tokens, heads, key/value heads, head size
ATTENTION = {"gpt2 attention": (2, 16, 2, 2, 64), "llama attention": (1, 40, 2, 1, 128)} if SMALL else {
    "gpt2 attention": (32, 1024, 12, 12, 64), "llama attention": (1, 8192, 32, 8, 128)}
ELEMENTS, SIDE, COPIED = (2048, 32, 1 << 16) if SMALL else (124439808, 8192, 1 << 31)


def wait():
    if DEVICE == "cuda":
        torch.cuda.synchronize()


# ---- Models.


class GPT2Block(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        width = c["n_embd"]
        self.heads, self.eps = c["n_head"], c["layer_norm_epsilon"]
        self.norm1, self.norm2 = torch.nn.LayerNorm(width, self.eps), torch.nn.LayerNorm(width, self.eps)
        self.qkv, self.out = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)
        self.up, self.down = torch.nn.Linear(width, 4 * width), torch.nn.Linear(4 * width, width)

    def forward(self, x):
        b, t, width = x.shape
        q, k, v = (y.view(b, t, self.heads, -1).transpose(1, 2) for y in self.qkv(self.norm1(x)).split(width, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, width)
        x = x + self.out(y)
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class GPT2(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        self.words, self.places = torch.nn.Embedding(c["vocab_size"], c["n_embd"]), torch.nn.Embedding(c["n_positions"], c["n_embd"])
        self.blocks = torch.nn.ModuleList(GPT2Block(c) for _ in range(c["n_layer"]))
        self.norm = torch.nn.LayerNorm(c["n_embd"], c["layer_norm_epsilon"])

    def forward(self, ids, targets):
        x = self.words(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.norm(x), self.words.weight)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]).float(), targets.reshape(-1))


class LlamaBlock(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        width, self.heads, self.groups = c["hidden_size"], c["num_attention_heads"], c["num_key_value_heads"]
        self.head = width // self.heads
        self.norm1, self.norm2 = torch.nn.RMSNorm(width, c["rms_norm_eps"]), torch.nn.RMSNorm(width, c["rms_norm_eps"])
        self.qkv = torch.nn.Linear(width, (self.heads + 2 * self.groups) * self.head, bias=False)
        self.out = torch.nn.Linear(width, width, bias=False)
        self.gate_up = torch.nn.Linear(width, 2 * c["intermediate_size"], bias=False)
        self.down = torch.nn.Linear(c["intermediate_size"], width, bias=False)

    def rotate(self, x, cos, sin):
        a, b = x.chunk(2, dim=-1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x.dtype)

    def forward(self, x, cos, sin):
        b, t, width = x.shape
        y = self.qkv(self.norm1(x)).view(b, t, -1, self.head).transpose(1, 2)
        q, k, v = y.split((self.heads, self.groups, self.groups), dim=1)
        y = F.scaled_dot_product_attention(self.rotate(q, cos, sin), self.rotate(k, cos, sin), v, is_causal=True, enable_gqa=self.heads != self.groups)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, width))
        gate, up = self.gate_up(self.norm2(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


class Llama(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        self.words = torch.nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.blocks = torch.nn.ModuleList(LlamaBlock(c) for _ in range(c["num_hidden_layers"]))
        self.norm = torch.nn.RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.head = torch.nn.Linear(c["hidden_size"], c["vocab_size"], bias=False)
        half = c["hidden_size"] // c["num_attention_heads"] // 2
        angles = torch.outer(torch.arange(c["max_position_embeddings"]), c.get("rope_theta", 10000.0) ** (-torch.arange(half) / half))
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, ids, targets):
        x = self.words(ids)
        cos, sin = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        for block in self.blocks:
            x = block(x, cos, sin)
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.view(-1, logits.shape[-1]).float(), targets.reshape(-1))


def make_training(case):
    """A function that does one step."""
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    model = (GPT2 if case["model"]["model_type"] == "gpt2" else Llama)(case["model"]).to(DEVICE)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)
    run = torch.compile(model) if DEVICE == "cuda" else model
    ids = torch.randint(0, min(case["model"]["vocab_size"], 2048), (case["rows"], case["tokens"] + 1), device=DEVICE)

    def step():
        with torch.autocast(DEVICE, dtype=torch.bfloat16):
            loss = run(ids[:, :-1], ids[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    return step


def serve_training(case):
    step = make_training(case)
    start = time.perf_counter()
    for _ in range(1 if SMALL else 4):
        loss = step()
    print(json.dumps({"ready": time.perf_counter() - start, "loss": float(loss), "torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            wait()
            start = time.perf_counter()
            step()
            wait()
            seconds.append(time.perf_counter() - start)
        print(json.dumps({"seconds": seconds, "peak_bytes": torch.cuda.max_memory_allocated() if DEVICE == "cuda" else 0}), flush=True)


# ---- Kernels.


def milliseconds(call):
    """Of one call: the median of some series, each of enough calls."""
    for _ in range(1 if SMALL else 3):
        call()
    wait()
    start = time.perf_counter()
    call()
    wait()
    calls = 1 if SMALL else max(1, min(300, math.ceil(0.05 / (time.perf_counter() - start))))
    series = []
    for _ in range(5):
        wait()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        wait()
        series.append((time.perf_counter() - start) / calls)
    return 1e3 * statistics.median(series)


def time_attention(shape):
    """Way -> [forward, backward] milliseconds."""
    b, t, heads, groups, size = shape
    q, k, v = (torch.randn(b, n, t, size, device=DEVICE, dtype=torch.bfloat16, requires_grad=True) for n in (heads, groups, groups))
    found = {}
    for name, way in WAYS.items():
        if name == "plain" and DEVICE == "cuda":
            continue
        try:
            with sdpa_kernel(way):
                def attend():
                    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=heads != groups)

                out = attend()
                gradient = torch.randn_like(out)
                forward = milliseconds(attend)
                found[name] = [forward, milliseconds(lambda: torch.autograd.grad(out, (q, k, v), gradient, retain_graph=True))]
        except RuntimeError as why:
            found[name] = str(why).splitlines()[0]
    return found


def time_adamw():
    parameter = torch.nn.Parameter(torch.randn(ELEMENTS, device=DEVICE))
    parameter.grad = torch.randn(ELEMENTS, device=DEVICE)
    optimizer = torch.optim.AdamW([parameter], lr=1e-4, fused=True)
    return milliseconds(optimizer.step)


def time_copy():
    a, b = (torch.empty(COPIED, dtype=torch.uint8, device=DEVICE) for _ in range(2))
    return milliseconds(lambda: b.copy_(a))


def time_matrix():
    a, b = (torch.randn(SIDE, SIDE, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    return milliseconds(lambda: a @ b)


def serve_kernels():
    print(json.dumps({"ready": 0, "torch": torch.__version__}), flush=True)
    for _ in sys.stdin:
        found = {name: time_attention(shape) for name, shape in ATTENTION.items()}
        found.update({"adamw": time_adamw(), "copy": time_copy(), "matrix": time_matrix(), "copied": 2 * COPIED, "matrix_flops": 2 * SIDE**3})
        if DEVICE == "cuda":
            torch.cuda.empty_cache()
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "kernels":
        serve_kernels()
    else:
        serve_training(json.loads(sys.argv[1]))
