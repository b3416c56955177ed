#!/usr/bin/env python3
"""Models against transformers: logits, loss and every gradient, of GPT-2, Llama and Mistral of many shapes.

    python model_parity.py --espalier PROGRAM --build FOLDER

Bounds: fp32 within 1e-5 of the fp64 truth, relative to the tensor's norm; bf16 by the 2x rule: the error against fp64 is at most
twice that of transformers' own bf16 run on the same weights."""
import glob
import subprocess
import sys
import tempfile

import torch
import transformers as tf
from safetensors.torch import load_file, save_file

from parity_tools import ROPE, arguments, check, error, finish, gpt2, llama, make_model

MODELS = {
    "gpt2": gpt2(),
    "gpt2-untied-inner": gpt2(tie_word_embeddings=False, n_inner=80, activation_function="gelu"),
    "llama-gqa": llama(),
    "llama-mha-tied": llama(num_key_value_heads=6, tie_word_embeddings=True),
    "llama-mqa-head24": llama(num_key_value_heads=1, head_dim=24),
    "llama3-rope": llama(rope_parameters=ROPE, tie_word_embeddings=True),
    "llama-linear-rope": llama(rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}),
    "llama-biases": llama(attention_bias=True, mlp_bias=True),
    "mistral-window": tf.MistralConfig(vocab_size=211, hidden_size=48, intermediate_size=88, num_hidden_layers=2, num_attention_heads=6,
                                       num_key_value_heads=2, head_dim=8, sliding_window=9, initializer_range=0.1),
}
LENGTHS = [37, 1, 20, 6]


def make_batch(vocab):
    ids = [torch.randint(3, vocab, (n,)) for n in LENGTHS]
    targets = [torch.cat([x[1:], torch.tensor([-1])]) for x in ids]
    segments = torch.tensor([0] + [sum(LENGTHS[: i + 1]) for i in range(len(LENGTHS))])
    return dict(ids=torch.cat(ids), targets=torch.cat(targets), positions=torch.cat([torch.arange(n) for n in LENGTHS]), segments=segments), ids


def reference(model, sequences):
    """Each document by itself: logits, summed loss over all targets, gradients of the mean."""
    logits, total, count = [], 0.0, 0
    for x in sequences:
        out = model(input_ids=x[None]).logits[0]
        logits.append(out)
        if len(x) > 1:
            total = total + torch.nn.functional.cross_entropy(out[:-1].float() if out.dtype == torch.bfloat16 else out[:-1], x[1:], reduction="sum")
            count += len(x) - 1
    loss = total / count
    model.zero_grad()
    loss.backward()
    return torch.cat(logits).detach().double(), loss.item(), {n: p.grad.detach().double() for n, p in model.named_parameters()}


def probe(args, folder, batch, dtype):
    with tempfile.TemporaryDirectory() as tmp:
        save_file({k: v.long() for k, v in batch.items()}, f"{tmp}/in.safetensors")
        subprocess.run([f"{args.build}/tests/probe", folder, f"{tmp}/in.safetensors", f"{tmp}/out", dtype], check=True, timeout=120)
        return load_file(f"{tmp}/out/model.safetensors")


def compare(name, args, folder, model, batch, sequences):
    logits, loss, grads = reference(model.double(), sequences)
    mean = 1.0 / sum(n - 1 for n in LENGTHS)
    for dtype, bound in (("ref64", 1e-6), ("ref32", 1e-5), ("fp32", 1e-5)):  # rope tables are float in ref64 too
        out = probe(args, folder, batch, dtype)
        worst = max((error(out[n], g), n) for n, g in grads.items())
        check(set(grads) == set(out) - {"logits", "loss"}, f"{name} {dtype}: the same parameters")
        check(error(out["logits"], logits) <= bound and abs(float(out["loss"].sum()) * mean - loss) <= bound * loss,
              f"{name} {dtype}: logits {error(out['logits'], logits):.1e}, loss {abs(float(out['loss'].sum()) * mean / loss - 1):.1e}")
        check(worst[0] <= bound, f"{name} {dtype}: {len(grads)} gradients, the worst {worst[0]:.1e} ({worst[1]})")


def same_probe(args, folder, batch, expected):
    out = probe(args, folder, batch, "fp32")
    return out.keys() == expected.keys() and all(torch.equal(t, out[n]) for n, t in expected.items())


def compare_layouts(name, args, folder, model, batch):
    """The same weights as other folders hold them: in shards with an index; without the prefix, with a head of their own, and with the
    masks and frequencies that older files carry along."""
    expected = probe(args, folder, batch, "fp32")
    with tempfile.TemporaryDirectory() as other:
        model.float().save_pretrained(other, max_shard_size="60KB")
        shards = len(glob.glob(f"{other}/*.safetensors"))
        check(shards > 1 and same_probe(args, other, batch, expected), f"{name}: the same from {shards} shards")
    with tempfile.TemporaryDirectory() as other:
        model.config.save_pretrained(other)
        tensors = {n.removeprefix(model.base_model_prefix + "."): t.clone() for n, t in model.state_dict().items()}
        for layer in range(model.config.num_hidden_layers):
            tensors[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 8, 8).tril()
            tensors[f"layers.{layer}.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
        save_file(tensors, f"{other}/model.safetensors", {"format": "pt"})
        check(same_probe(args, other, batch, expected), f"{name}: the same from names without prefix, among buffers")


def compare_bf16(name, args, folder, model, batch, sequences):
    rounded = type(model)(model.config).to(torch.bfloat16)
    rounded.load_state_dict({k: v.to(torch.bfloat16) for k, v in model.state_dict().items()})
    truth = type(model)(model.config).double()
    truth.load_state_dict({k: v.double() for k, v in rounded.state_dict().items()})
    tl, _, tg = reference(truth.eval(), sequences)
    bl, _, bg = reference(rounded.eval(), sequences)
    out = probe(args, folder, batch, "bf16")
    logits = error(out["logits"], tl) / error(bl, tl)
    worst = max((error(out[n], tg[n]) / max(error(bg[n], tg[n]), 1e-9), n) for n in tg)
    whole = float((sum((out[n] - tg[n]).norm() ** 2 for n in tg) / sum((bg[n] - tg[n]).norm() ** 2 for n in tg)) ** 0.5)
    check(logits <= 2, f"{name} bf16: the logits' error is {logits:.2f} of the plain run's")
    check(whole <= 2 and worst[0] <= 2, f"{name} bf16: the gradients' error is {whole:.2f} of the plain run's, of one at most {worst[0]:.2f} ({worst[1]})")


def main():
    args = arguments(__doc__)
    torch.manual_seed(7)
    for name, config in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            model = make_model(config, folder)
            batch, sequences = make_batch(config.vocab_size)
            compare(name, args, folder, model, batch, sequences)
            compare_bf16(name, args, folder, model, batch, sequences)
            compare_layouts(name, args, folder, model, batch)
    return finish()


if __name__ == "__main__":
    sys.exit(main())
