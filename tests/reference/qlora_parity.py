#!/usr/bin/env python3
"""A quantised base against bitsandbytes and PEFT: the values that quantised matrices expand to; loss, logits and the gradient of every A and B
of LoRA over them, for llama, gpt2, bert and t5; twenty steps of training.

    python qlora_parity.py --espalier PROGRAM --build FOLDER

Values of int8 and NF4 are bitsandbytes', bit for bit. So are those of NF4 with quantised scales, but for two things of which neither is a
formula: PyTorch sums the scales' mean in fp32 in an order of its own, where the program sums in double; and the library that bitsandbytes
has for CPUs looks scales up in a table, which at times takes the second nearest value of its map (its other kernels take the nearest). The
values are therefore compared with what bitsandbytes expands when it is given that mean and the nearest codes, bit for bit, and with what it
makes by itself: each scale of ours must be as near to the exact one, but for the rounding of the mean.

PEFT runs in fp64 over a base whose matrices hold what bitsandbytes expands; bounds as in lora_parity.py."""
import json
import os
import subprocess
import sys
import tempfile

import bitsandbytes.functional as bnb
import torch
import transformers as tf
from safetensors.torch import load_file, save_file

import lora_parity as lora
from documents import errors, make_document, pack, reference
from parity_tools import arguments, bert, check, error, espalier, finish, gpt2, llama, make_model, t5

FORMS = {"nf4": "base: nf4, double_quantise: false", "nf4_double": "base: nf4", "int8": "base: int8"}
# Rows of whole blocks: bitsandbytes' library for CPUs expands others with scales of the wrong blocks.
LLAMA, GPT2 = dict(hidden_size=64, intermediate_size=192, num_attention_heads=4, num_key_value_heads=2), dict(n_embd=64)
BERT, T5 = dict(hidden_size=64, intermediate_size=128), dict(d_model=64, d_kv=16, d_ff=128)
CASES = {  # name: class, config, targets
    "llama": (None, llama(**LLAMA), "all-linear"),
    "llama-q": (None, llama(**LLAMA, attention_bias=True), ["q_proj"]),
    "gpt2": (None, gpt2(**GPT2), ["c_attn"]),
    "gpt2-all": (None, gpt2(**GPT2), "all-linear"),
    "bert": (tf.BertForMaskedLM, bert(**BERT), ["query", "value"]),
    "t5": (tf.T5ForConditionalGeneration, t5(**T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False), "all-linear"),
}
SMALL = {"llama": llama(**lora.SMALL, **LLAMA), "gpt2": gpt2(**lora.SMALL, **GPT2)}
BLOCK, GROUP = 64, 256


def is_quantised(name, tensor):
    """Matrices of layers."""
    return tensor.ndim == 2 and any(part in name for part in (".layers.", ".h.", ".layer.")) and "relative_attention_bias" not in name


def nearest_scales(scales):
    """Codes of scales, those of their groups, and the mean: as bitsandbytes' portable kernel has them, of a mean summed in double."""
    code, mean = bnb.create_dynamic_map(), scales.double().mean().float()
    bounds, codes, most = (code[:-1] + code[1:]) / 2, [], []
    for group in (scales - mean).split(GROUP):
        largest = group.abs().max()
        scaled = group * (1.0 / largest) if len(group) == GROUP else group / largest
        codes.append(torch.bucketize(scaled.clamp(-1, 1), bounds, out_int32=True).to(torch.uint8))
        most.append(largest)
    return torch.cat(codes), bnb.QuantState(absmax=torch.stack(most), code=code, blocksize=GROUP, dtype=torch.float32), mean


def expanded(tensor, form, in_out):
    """What bitsandbytes makes of a matrix; of nf4_double with the mean and codes of nearest_scales."""
    if form == "int8":
        codes, rows, _ = bnb.int8_vectorwise_quant(tensor.T.contiguous() if in_out else tensor)
        values = bnb.int8_vectorwise_dequant(codes, rows)
        return values.T.contiguous() if in_out else values
    packed, state = bnb.quantize_4bit(tensor, blocksize=BLOCK, compress_statistics=False, quant_type="nf4")
    if form == "nf4_double":
        state.absmax, state.state2, state.offset = nearest_scales(state.absmax)
        state.nested = True
    return bnb.dequantize_4bit(packed, state)


def check_live_scales(name, tensor):
    """Scales that bitsandbytes quantises by itself are no nearer to the exact ones than ours."""
    _, exact = bnb.quantize_4bit(tensor, blocksize=BLOCK, compress_statistics=False, quant_type="nf4")
    _, live = bnb.quantize_4bit(tensor, blocksize=BLOCK, compress_statistics=True, quant_type="nf4")
    codes, state, mean = nearest_scales(exact.absmax)
    theirs = bnb.dequantize_blockwise(live.absmax, live.state2) + live.offset
    ours = bnb.dequantize_blockwise(codes, state) + mean
    slack = 4 * torch.finfo(torch.float32).eps * exact.absmax.max()
    nearer = ((ours - exact.absmax).abs() <= (theirs - exact.absmax).abs() + slack).all()
    other = int((codes != live.absmax).sum())
    check(bool(nearer) and other <= 0.05 * len(codes) + 1, f"{name}: of {len(codes)} scales bitsandbytes' library takes {other} other codes, none of them nearer")


def expand_base(folder, to, form, in_out):
    """A folder whose quantised matrices hold what bitsandbytes expands; how many."""
    tensors = load_file(f"{folder}/model.safetensors")
    names = [n for n, t in tensors.items() if is_quantised(n, t)]
    for n in names:
        tensors[n] = expanded(tensors[n], form, in_out)
    os.makedirs(to, exist_ok=True)
    for file in os.listdir(folder):
        if file != "model.safetensors" and os.path.isfile(f"{folder}/{file}"):
            open(f"{to}/{file}", "wb").write(open(f"{folder}/{file}", "rb").read())
    save_file(tensors, f"{to}/model.safetensors", {"format": "pt"})
    return names


# ---- Values.


def compare_values(args):
    """Merged exports of updates that are zero, which are the base as it was multiplied with."""
    for family, config in SMALL.items():
        for form, settings in FORMS.items():
            with tempfile.TemporaryDirectory() as folder:
                lora.prepare(args, folder, config, f"method: lora, {settings}")
                lora.train(args, folder, "run", "train.steps=1", "optim.lr=0")
                espalier(args, "export", f"{folder}/run", f"{folder}/merged")
                names = expand_base(f"{folder}/base", f"{folder}/expected", form, family == "gpt2")
                base, ours, theirs = (load_file(f"{folder}/{which}/model.safetensors") for which in ("base", "merged", "expected"))
                same = sum(torch.equal(ours[n], theirs[n]) for n in names)
                moved = {n for n in ours if not torch.equal(ours[n], base[n])}
                check(same == len(names) > 11 and moved == set(names), f"{family} {form}: {same} of {len(names)} matrices are bitsandbytes', bit for bit; no other tensor is quantised")
                other = expand_base(f"{folder}/base", f"{folder}/other", "nf4" if form != "nf4" else "int8", family == "gpt2")
                values = load_file(f"{folder}/other/model.safetensors")
                check(not any(torch.equal(ours[n], values[n]) for n in other), f"{family} {form}: another format has other values")
    torch.manual_seed(5)
    for shape in ((64, 64), (300, 128), (2048, 512), (7, 9)):
        check_live_scales(f"scales {shape}", torch.randn(shape) * 0.02)


# ---- Gradients.


def probe(args, folder, batch, dtype, targets, form):
    with tempfile.TemporaryDirectory() as tmp:
        save_file(batch, f"{tmp}/in.safetensors")
        words = ",".join(["lora", str(lora.RANK), str(lora.ALPHA), *([targets] if isinstance(targets, str) else targets)])
        subprocess.run([f"{args.build}/tests/probe", folder, f"{tmp}/in.safetensors", f"{tmp}/out", dtype, words, form], check=True, timeout=120)
        return load_file(f"{tmp}/out/model.safetensors")


def compare_gradients(name, args, kind, config, targets, form):
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(config, f"{folder}/base", kind)
        documents = [make_document(model, torch.randint(3, config.vocab_size, (n,))) for n in lora.LENGTHS]
        expand_base(f"{folder}/base", f"{folder}/expanded", form, isinstance(model, tf.GPT2LMHeadModel))
        plain = reference(model.double(), documents)[0]
        model = type(model).from_pretrained(f"{folder}/expanded", dtype=torch.float32)
        tuned = lora.wrapped(model, targets, ({}, {}), False)
        lora.save(tuned, f"{folder}/base")
        batch = pack(documents)
        logits, loss, grads = reference(model.double(), documents)
        grads = {lora.ours(n): g for n, g in grads.items() if "lora_" in n}
        mean = 1.0 / float((batch["targets"] >= 0).sum())
        for dtype, bound in (("ref64", 1e-6), ("ref32", 1e-5), ("fp32", 1e-5)):
            out = probe(args, f"{folder}/base", batch, dtype, targets, form)
            check(set(out) - {"logits", "loss", "hidden"} == set(grads), f"{name} {form} {dtype}: {len(grads)} matrices of updates")
            worst = max((e, n) for n, e in errors(out, grads).items())
            off = max(error(out["logits"], logits), abs(float(out["loss"].sum()) * mean / loss - 1))
            check(off <= bound and worst[0] <= bound, f"{name} {form} {dtype}: logits and loss {off:.1e}, gradients {worst[0]:.1e} ({worst[1]})")
        check(error(plain, logits) > 1e-3, f"{name} {form}: a base that is not quantised has other logits")


# ---- Training.


def compare_training(name, args, config, form):
    with tempfile.TemporaryDirectory() as folder:
        settings = f"method: lora, rank: {lora.RANK}, alpha: {lora.ALPHA}, targets: [all-linear], {FORMS[form]}"
        model, document = lora.prepare(args, folder, config, settings)
        lora.train(args, folder, "start", "train.steps=1", "optim.lr=0")
        expand_base(f"{folder}/base", f"{folder}/expanded", form, name == "gpt2")
        model = type(model).from_pretrained(f"{folder}/expanded", dtype=torch.float32)
        lora.follow(f"{name} {form}", args, folder, model, document, lora.adapter_of(model, f"{folder}/start/adapter"))
        words = ["--json", "--model", f"{folder}/run", "--set", f"data.valid={folder}/text.txt"]
        judged = json.loads(espalier(args, "eval", f"{folder}/config.yaml", *words))["loss"]
        over = type(model).from_pretrained(f"{folder}/expanded", dtype=torch.float64)
        with torch.no_grad():
            total, weight = lora.loss_of(lora.logits_of(lora.adapter_of(over, f"{folder}/run/adapter").base_model.model, document), document)
        off = abs(judged / float(total / weight) - 1)
        check(off <= 1e-5, f"{name} {form}: eval of the run, loss {judged:.4f}, off by {off:.1e} from PEFT's over the expanded base")


def main():
    args = arguments(__doc__)
    torch.manual_seed(12)
    compare_values(args)
    for name, (kind, config, targets) in CASES.items():
        for form in FORMS:
            compare_gradients(name, args, kind, config, targets, form)
    for name, form in (("gpt2", "nf4_double"), ("llama", "nf4_double"), ("llama", "int8")):
        compare_training(name, args, SMALL[name], form)
    return finish()


if __name__ == "__main__":
    sys.exit(main())
