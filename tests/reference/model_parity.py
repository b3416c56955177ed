#!/usr/bin/env python3
"""Models against transformers: logits, loss, every gradient, 20 AdamW steps, exported folders; GPT-2, Llama, Mistral of many shapes.

Bounds: fp32 within 1e-5 of the fp64 truth, relative to the tensor's norm; bf16 by the 2x rule: the error against fp64 is at most
twice that of transformers' own bf16 run on the same weights."""
import argparse, json, os, subprocess, sys, tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch
import transformers as tf
from safetensors.torch import load_file, save_file

tf.logging.set_verbosity_error()
tf.utils.logging.disable_progress_bar()
torch.manual_seed(7)
failures = []


def check(ok, what):
    print(("ok    " if ok else "FAIL  ") + what, flush=True)
    if not ok:
        failures.append(what)


def llama(**kw):
    base = dict(vocab_size=211, hidden_size=48, intermediate_size=88, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2,
                max_position_embeddings=256, initializer_range=0.1, rms_norm_eps=1e-5, tie_word_embeddings=False)
    base.update(kw)
    return tf.LlamaConfig(**base)


def gpt2(**kw):
    base = dict(vocab_size=197, n_embd=48, n_head=4, n_layer=3, n_positions=128, initializer_range=0.1)
    base.update(kw)
    return tf.GPT2Config(**base)


ROPE = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32}
MODELS = {
    "gpt2": (gpt2(), tf.GPT2LMHeadModel),
    "gpt2-untied-inner": (gpt2(tie_word_embeddings=False, n_inner=80, activation_function="gelu"), tf.GPT2LMHeadModel),
    "llama-gqa": (llama(), tf.LlamaForCausalLM),
    "llama-mha-tied": (llama(num_key_value_heads=6, tie_word_embeddings=True), tf.LlamaForCausalLM),
    "llama-mqa-head24": (llama(num_key_value_heads=1, head_dim=24), tf.LlamaForCausalLM),
    "llama3-rope": (llama(rope_parameters=ROPE, tie_word_embeddings=True), tf.LlamaForCausalLM),
    "llama-linear-rope": (llama(rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}), tf.LlamaForCausalLM),
    "llama-biases": (llama(attention_bias=True, mlp_bias=True), tf.LlamaForCausalLM),
    "mistral-window": (tf.MistralConfig(vocab_size=211, hidden_size=48, intermediate_size=88, num_hidden_layers=2, num_attention_heads=6,
                                        num_key_value_heads=2, head_dim=8, sliding_window=9, initializer_range=0.1), tf.MistralForCausalLM),
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
    return torch.cat(logits).detach().double(), float(loss), {n: p.grad.detach().double() for n, p in model.named_parameters()}


def error(a, b):
    return float((a - b).norm() / b.norm().clamp_min(1e-300))


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
    rounded = type(model)(model.config).to(torch.bfloat16)
    rounded.load_state_dict({k: v.to(torch.bfloat16) for k, v in model.state_dict().items()})
    truth = type(model)(model.config).double()
    truth.load_state_dict({k: v.double() for k, v in rounded.state_dict().items()})
    tl, _, tg = reference(truth, sequences)
    bl, _, bg = reference(rounded.eval(), sequences)
    out = probe(args, folder, batch, "bf16")
    ratios = {n: error(out[n], tg[n]) / max(error(bg[n], tg[n]), 1e-9) for n in tg}
    whole = (sum((out[n] - tg[n]).norm() ** 2 for n in tg) / sum((bg[n] - tg[n]).norm() ** 2 for n in tg)) ** 0.5
    check(error(out["logits"], tl) <= 2 * error(bl, tl), f"{name} bf16: logits' error {error(out['logits'], tl) / error(bl, tl):.2f} of the plain run's")
    check(float(whole) <= 2.0 and max(ratios.values()) <= 2.0, f"{name} bf16: gradients' error {float(whole):.2f} of the plain run's, one tensor at most {max(ratios.values()):.2f}")


TRAIN = """
run: {{dir: {dir}, dtype: fp32, seed: 1}}
model: {{path: {folder}, dropout: 0}}
data: {{train: {data}, format: tokens, tokenizer: {tokenizer}, placement: windows, sequence_length: 32}}
train: {{steps: 20, micro_batch_tokens: 32, micro_batches: 4, clip_norm: 1.0}}
optim: {{lr: 1e-3, beta2: 0.95, weight_decay: 0.1, schedule: constant}}
"""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--espalier", required=True)
    parser.add_argument("--build", required=True)
    args = parser.parse_args()
    for name, (config, kind) in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            model = kind(config).eval()
            with torch.no_grad():
                for n, p in model.named_parameters():
                    if p.dim() == 1:
                        p.add_(0.1 * torch.randn_like(p))  # norms and biases off their trivial values
            model.save_pretrained(folder)
            batch, sequences = make_batch(config.vocab_size)
            compare(name, args, folder, model, batch, sequences)
    print(f"{len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
