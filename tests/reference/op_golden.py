"""Writes tests/goldens/ops.json: ops of the tape, forward and gradients, by torch in fp64 (rotary embedding by transformers'
Llama, relative positions by its T5), and AdamW by torch.optim in fp32.

    python tests/reference/op_golden.py tests/goldens/ops.json
"""
import json
import sys

import torch
import torch.nn.functional as F
import transformers
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb
from transformers.models.t5.modeling_t5 import T5Attention

EPS = torch.tensor(1e-5, dtype=torch.float32).item()
SEGMENTS = [0, 3, 4]
POSITIONS = [0, 1, 2, 0]
N = SEGMENTS[-1]
LOSS_SCALE = 0.125


def numbers(*shape):
    """Few digits, so that the file is small."""
    return (torch.round(torch.randn(*shape, dtype=torch.float64) * 16) / 16).requires_grad_()


def case(name, op, attrs, inputs, params, outputs, douts, stats=None, targets=None):
    """Gradients of sum(dout . out) over inputs and params, as slots of one case."""
    torch.autograd.backward(outputs, douts)
    slots = {}
    for kind, tensors in (("in", inputs), ("param", params)):
        for i, t in enumerate(tensors):
            slots[f"{kind}{i}"] = t
            slots[f"d{kind}{i}"] = t.grad
    for i, (out, dout) in enumerate(zip(outputs, douts)):
        slots[f"out{i}"] = out
        slots[f"dout{i}"] = dout
    slots.update(stats or {})
    if op == "linear_xent":
        del slots["dout0"]
    flat = {k: v.detach().flatten().tolist() for k, v in slots.items()}
    row = {"name": name, "op": op, **attrs, "slots": flat}
    if targets is not None:
        row["targets"] = targets
    return row


def resnorm(kind):
    a, b, gain, bias = numbers(N, 6), numbers(N, 6), numbers(6), numbers(6)
    x = a + b
    if kind == 0:
        y, mean, square = F.layer_norm(x, (6,), gain, bias, EPS), x.mean(-1), x.var(-1, unbiased=False)
    else:
        y, mean, square = F.rms_norm(x, (6,), gain, EPS), torch.zeros(N, dtype=torch.float64), (x * x).mean(-1)
    stats = {"out2": torch.stack([mean, torch.rsqrt(square + EPS)], -1)}
    params = [gain, bias] if kind == 0 else [gain]
    return case(["layer norm", "rms norm"][kind], "resnorm", {"n_in": 6, "kind": kind, "eps": EPS}, [a, b], params, [x, y],
                [numbers(N, 6).detach(), numbers(N, 6).detach()], stats)


ACTIVATIONS = [lambda x: F.gelu(x, approximate="tanh"), F.gelu, F.relu, F.silu, torch.tanh]


def act(kind):
    x = numbers(N, 4)
    return case(f"activation {kind}", "act", {"n_in": 4, "kind": kind}, [x], [], [ACTIVATIONS[kind](x)], [numbers(N, 4).detach()])


def glu(kind):
    x = numbers(N, 6)
    gate, up = x.chunk(2, -1)
    return case(f"glu {kind}", "glu", {"n_in": 6, "n_out": 3, "kind": kind}, [x], [], [ACTIVATIONS[kind](gate) * up],
                [numbers(N, 3).detach()])


def qkv():
    heads, groups, d, width = 2, 1, 4, 5
    x, weight, bias = numbers(N, width), numbers((heads + 2 * groups) * d, width), numbers((heads + 2 * groups) * d)
    y = F.linear(x, weight, bias).view(N, heads + 2 * groups, d).transpose(0, 1)[None]
    angle = torch.tensor(POSITIONS, dtype=torch.float64)[:, None] * 10000.0 ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)
    cos, sin = (f(torch.cat([angle, angle], -1)).float().double()[None] for f in (torch.cos, torch.sin))
    q, k = apply_rotary_pos_emb(y[:, :heads], y[:, heads:heads + groups], cos, sin)
    out = torch.cat([q, k, y[:, heads + groups:]], 1)[0].transpose(0, 1).reshape(N, -1)
    attrs = {"n_in": width, "n_out": (heads + 2 * groups) * d, "heads": heads, "kv_heads": groups, "head_dim": d, "rope_dim": d,
             "positions": 8}
    return case("rotary qkv", "qkv", attrs, [x], [weight, bias], [out], [numbers(N, out.shape[1]).detach()])


def attention(causal):
    heads, groups, d = 4, 2, 4
    x = numbers(N, (heads + 2 * groups) * d)
    parts, lse = [], []
    for a, b in zip(SEGMENTS, SEGMENTS[1:]):
        q, k, v = (t.reshape(b - a, -1, d).transpose(0, 1)[None] for t in x[a:b].split([heads * d, groups * d, groups * d], -1))
        o = F.scaled_dot_product_attention(q, k, v, is_causal=bool(causal), scale=0.5, enable_gqa=True)
        parts.append(o[0].transpose(0, 1).reshape(b - a, heads * d))
        scores = 0.5 * q @ k.repeat_interleave(heads // groups, 1).transpose(-1, -2)
        hidden = torch.ones(b - a, b - a, dtype=torch.bool).triu(1) if causal else torch.zeros(b - a, b - a, dtype=torch.bool)
        lse.append(scores.masked_fill(hidden, -torch.inf).logsumexp(-1)[0].transpose(0, 1))
    attrs = {"heads": heads, "kv_heads": groups, "head_dim": d, "causal": causal, "scale": 0.5}
    return case(f"attention causal {causal}", "attention", attrs, [x], [], [torch.cat(parts)], [numbers(N, heads * d).detach()],
                {"out1": torch.cat(lse)})


def relative_buckets(first, last, causal, buckets, distance):
    return T5Attention._relative_position_bucket(torch.arange(first, last + 1), not causal, buckets, distance)


def biased_attention(causal):
    heads, d, buckets, distance = 2, 4, 8, 5
    x, bias = numbers(N, 3 * heads * d), numbers(buckets, heads)
    parts, lse = [], []
    for a, b in zip(SEGMENTS, SEGMENTS[1:]):
        q, k, v = (t.reshape(b - a, heads, d).transpose(0, 1) for t in x[a:b].chunk(3, -1))
        bucket = torch.stack([relative_buckets(-i, b - a - 1 - i, causal, buckets, distance) for i in range(b - a)])
        scores = q @ k.transpose(-1, -2) + bias[bucket].permute(2, 0, 1)
        if causal:
            scores = scores.masked_fill(torch.ones(b - a, b - a, dtype=torch.bool).triu(1), -torch.inf)
        parts.append((scores.softmax(-1) @ v).transpose(0, 1).reshape(b - a, heads * d))
        lse.append(scores.logsumexp(-1).transpose(0, 1))
    attrs = {"heads": heads, "kv_heads": heads, "head_dim": d, "causal": causal, "scale": 1, "rel_buckets": buckets, "rel_distance": distance}
    return case(f"relative attention causal {causal}", "attention", attrs, [x], [bias], [torch.cat(parts)],
                [numbers(N, heads * d).detach()], {"out1": torch.cat(lse)})


def cross_attention():
    heads, groups, d, source = 4, 2, 4, [0, 2, 5]
    q_all, kv_all = numbers(N, heads * d), numbers(source[-1], 2 * groups * d)
    parts, lse = [], []
    for a, b, c, e in zip(SEGMENTS, SEGMENTS[1:], source, source[1:]):
        q = q_all[a:b].reshape(b - a, heads, d).transpose(0, 1)[None]
        k, v = (t.reshape(e - c, groups, d).transpose(0, 1)[None] for t in kv_all[c:e].chunk(2, -1))
        o = F.scaled_dot_product_attention(q, k, v, scale=0.5, enable_gqa=True)
        parts.append(o[0].transpose(0, 1).reshape(b - a, heads * d))
        lse.append((0.5 * q @ k.repeat_interleave(heads // groups, 1).transpose(-1, -2)).logsumexp(-1)[0].transpose(0, 1))
    attrs = {"heads": heads, "kv_heads": groups, "head_dim": d, "scale": 0.5, "source": source}
    return case("cross attention", "cross_attention", attrs, [q_all, kv_all], [], [torch.cat(parts)], [numbers(N, heads * d).detach()],
                {"out1": torch.cat(lse)})


def bucket_lists():
    """Of offsets -200 .. 200, for the sizes of T5 and for odd ones."""
    shapes = [(0, 32, 128), (1, 32, 128), (0, 20, 50), (1, 7, 100)]
    return [{"causal": c, "rel_buckets": n, "rel_distance": d, "of": relative_buckets(-200, 200, c, n, d).tolist()} for c, n, d in shapes]


def linear_xent():
    x, weight, targets = numbers(N, 5), numbers(7, 5), [3, -1, 0, 6]
    loss = F.cross_entropy(0.5 * x @ weight.T, torch.tensor(targets), ignore_index=-1, reduction="none")
    return case("cross entropy", "linear_xent", {"n_in": 5, "vocab": 7, "scale": 0.5, "loss_scale": LOSS_SCALE}, [x], [weight], [loss],
                [torch.full((N,), LOSS_SCALE, dtype=torch.float64)], targets=targets)


def classifier():
    x, weight, bias, targets = numbers(N, 5), numbers(3, 5), numbers(3), [2, 0, -1, 1]
    weights = [0.5, 2.0, 1.0, 0.25]
    losses = F.cross_entropy(0.5 * x @ weight.T + bias, torch.tensor(targets), ignore_index=-1, reduction="none")
    loss = losses * torch.tensor(weights, dtype=torch.float64)
    row = case("classifier", "linear_xent", {"n_in": 5, "vocab": 3, "scale": 0.5, "loss_scale": LOSS_SCALE}, [x], [weight, bias], [loss],
               [torch.full((N,), LOSS_SCALE, dtype=torch.float64)], targets=targets)
    return {**row, "weights": weights}


def embed():
    words, places, kinds = numbers(5, 6), numbers(8, 6), numbers(2, 6)
    ids, types = [3, 0, 3, 4], [0, 1, 1, 0]
    out = 1.5 * F.embedding(torch.tensor(ids), words) + F.embedding(torch.tensor(POSITIONS) + 2, places) + F.embedding(torch.tensor(types), kinds)
    attrs = {"n_out": 6, "vocab": 5, "positions": 8, "position_offset": 2, "types": 2, "scale": 1.5}
    row = case("embed with types", "embed", attrs, [], [words, places, kinds], [out], [numbers(N, 6).detach()])
    return {**row, "ids": ids, "token_types": types}


def pool(kind):
    x = numbers(N, 3)
    out = x[torch.tensor([SEGMENTS[:-1], [end - 1 for end in SEGMENTS[1:]]][kind])]
    return case(f"pool {kind}", "pool", {"n_in": 3, "kind": kind}, [x], [], [out], [numbers(len(SEGMENTS) - 1, 3).detach()])


def mlp(kind, layout, biases):
    x, up, bias = numbers(N, 5), numbers(5, 8), numbers(8)
    down, bias2 = numbers(8, 3), numbers(3)
    hidden = x @ up + (bias if biases else 0)
    out = ACTIVATIONS[kind](hidden) @ down + (bias2 if biases else 0)
    row = case(f"mlp {kind}", "mlp", {"n_in": 5, "ffn": 8, "n_out": 3, "kind": kind, "layout": layout}, [x],
               [up, bias, down, bias2] if biases else [up, down], [out], [numbers(N, 3).detach()], {"out1": hidden})
    slots = row["slots"]
    if not biases:
        slots["param2"], slots["dparam2"] = slots.pop("param1"), slots.pop("dparam1")
    for name, shape in (("param0", (5, 8)), ("param2", (8, 3))) if layout == 0 else ():
        for slot in (name, f"d{name}"):
            slots[slot] = torch.tensor(slots[slot], dtype=torch.float64).view(*shape).T.flatten().tolist()
    return row


def adamw():
    weight = torch.nn.Parameter(torch.randn(8))
    start, grads = weight.tolist(), torch.round(torch.randn(10, 8) * 16) / 16
    optimizer = torch.optim.AdamW([weight], lr=0.01, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1, foreach=False)
    for grad in grads:
        weight.grad = grad.clone()
        optimizer.step()
    state = optimizer.state[weight]
    return {"start": start, "grads": grads.flatten().tolist(), "weight": weight.tolist(), "m": state["exp_avg"].tolist(),
            "v": state["exp_avg_sq"].tolist()}


def main():
    torch.manual_seed(0)
    cases = [resnorm(0), resnorm(1), *(act(k) for k in range(5)), glu(0), glu(3), qkv(), attention(0), attention(1), linear_xent()]
    optimizer = adamw()
    cases += [mlp(0, 1, True), mlp(1, 0, True), mlp(0, 0, False)]
    cases += [classifier(), embed(), pool(0), pool(1)]
    cases += [biased_attention(0), biased_attention(1), cross_attention()]
    rows = ",\n".join(json.dumps(c) for c in cases)
    with open(sys.argv[1], "w") as f:
        made_with = f"transformers {transformers.__version__}, torch {torch.__version__}"
        f.write(f'{{"made_with": "{made_with}", "segments": {SEGMENTS}, "adamw": {json.dumps(optimizer)}, "buckets": {json.dumps(bucket_lists())}, "cases": [\n{rows}\n]}}\n')


main()
