#!/usr/bin/env python3
"""LoRA against PEFT: which matrices get updates, the loss, and the gradient of every A and B, for all families; twenty steps of training, to
adapters that PEFT reads and from adapters that PEFT wrote, and the merged model.

    python lora_parity.py --espalier PROGRAM --build FOLDER

Bounds as in model_parity.py: fp32 within 1e-5 of PEFT in fp64, relative to the tensor's norm."""
import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile

import peft
import torch
import transformers as tf
from safetensors.torch import load_file, save_file

from documents import check_tuned, errors, logits_of, loss_of, make_document, pack, reference
from parity_tools import TEXT, TOKENIZER, arguments, bert, check, distilbert, error, espalier, finish, gpt2, llama, make_model, roberta, t5, tokenize

RANK, ALPHA = 4, 6
CASES = {  # name: class, config, targets
    "gpt2": (None, gpt2(), ["c_attn"]),
    "gpt2-all": (None, gpt2(), "all-linear"),
    "gpt2-mlp": (None, gpt2(activation_function="gelu"), ["c_fc"]),
    "llama": (None, llama(), ["q_proj", "v_proj"]),
    "llama-all": (None, llama(attention_bias=True, mlp_bias=True), "all-linear"),
    "llama-k-down": (None, llama(tie_word_embeddings=True), ["k_proj", "down_proj"]),
    "bert-classes": (tf.BertForSequenceClassification, bert(), ["query", "value"]),
    "bert-mlm-all": (tf.BertForMaskedLM, bert(), ["query", "key", "value", "dense"]),
    "distilbert-classes": (tf.DistilBertForSequenceClassification, distilbert(), ["q_lin", "v_lin", "lin1"]),
    "roberta-mlm": (tf.RobertaForMaskedLM, roberta(), ["key"]),
    "t5-v1.0": (tf.T5ForConditionalGeneration, t5(), ["q", "v"]),
    "t5-v1.1-all": (tf.T5ForConditionalGeneration, t5(feed_forward_proj="gated-gelu", tie_word_embeddings=False), "all-linear"),
}
PATTERNS = {  # name: ranks and alphas that differ for some of the matrices
    "gpt2-all": ({"c_proj": 2}, {}),
    "llama-all": ({"q_proj": 7, "layers.1.mlp.up_proj": 2, "down_proj": 1}, {"k_proj": 3.5, "layers.1.mlp.up_proj": 16}),
    "bert-mlm-all": ({"attention.output.dense": 3, "key": 5}, {"key": 10}),
}
DORA = ["gpt2-all", "llama", "llama-all", "bert-classes", "bert-mlm-all", "distilbert-classes", "roberta-mlm", "t5-v1.0", "t5-v1.1-all"]
DROPPED = {"dora-dropout-llama": (llama(attention_bias=True), ["o_proj", "down_proj"]),
           "dora-dropout-gpt2": (gpt2(resid_pdrop=0, embd_pdrop=0, attn_pdrop=0), ["c_attn", "c_proj", "c_fc"])}
LENGTHS = [37, 1, 20, 6]
STEPS, END = 20, 0
LR = 3e-3  # larger steps make the losses of neighbouring starts part by themselves
EPS = 1e-3  # AdamW divides by a gradient's size: with less, the rounding of elements that are next to nothing counts as much as all others
SMALL = dict(vocab_size=2048, bos_token_id=END, eos_token_id=END)
TRAINED = {  # name: config, settings beside rank and alpha
    "gpt2": (gpt2(**SMALL), "method: lora, targets: [all-linear]"),
    "llama-rslora": (llama(**SMALL), "method: lora, targets: [all-linear], rank_stabilised: true"),
    "llama-k-up": (llama(**SMALL), "method: lora, targets: [k_proj, up_proj]"),
    "llama-ranks": (llama(**SMALL), "method: lora, targets: [all-linear], ranks: ['*.1.self_attn.*=2', q_proj=7, down_proj=1], alphas: [up_proj=2.5], rank_stabilised: true"),
    "dora-gpt2": (gpt2(**SMALL), "method: dora, targets: [all-linear]"),
    "dora-llama": (llama(**SMALL), "method: dora, targets: [all-linear], ranks: [k_proj=2]"),
}
ADAPTERS = {  # name: config, what PEFT is told beside rank and alpha
    "from-peft-gpt2": (gpt2(**SMALL), dict(target_modules=["c_attn", "c_fc"], rank_pattern={"c_fc": 2}, fan_in_fan_out=True)),
    "from-peft-llama": (llama(**SMALL), dict(target_modules="all-linear", use_rslora=True, rank_pattern={"^model.layers.1.mlp.up_proj": 2, "q_proj": 6},
                                             alpha_pattern={r"layers\.2\.self_attn\.v_proj": 3})),
    "from-peft-dora": (llama(**SMALL, attention_bias=True), dict(target_modules="all-linear", use_dora=True)),
    "from-peft-layers": (llama(**SMALL), dict(target_modules=r".*\.[02]\.self_attn\.[qk]_proj", modules_to_save=["lm_head"])),
}
CONFIG = """
run: {{threads: 1, dir: {folder}/run}}
model: {{path: {folder}/base, dropout: 0}}
data: {{train: {folder}/text.txt, tokenizer: {tokenizer}, cache: {folder}/cache, sequence_length: 32, document: line}}
train: {{steps: {steps}, micro_batch_tokens: 32, micro_batches: 1, clip_norm: 0}}
tune: {{{settings}}}
optim: {{lr: {lr}, beta1: 0.9, beta2: 0.95, eps: {eps}, weight_decay: 0.1, schedule: constant}}
log: {{tensorboard: false}}
"""


def wrapped(model, targets, patterns, dora):
    """The model with updates whose B is not zero (nor magnitudes the norms), and its gradients' names as the program has them."""
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=targets, bias="none", lora_dropout=0.0,
                             use_dora=dora, rank_pattern=patterns[0], alpha_pattern=patterns[1], fan_in_fan_out=isinstance(model, tf.GPT2LMHeadModel))
    tuned = peft.get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.1)
            if "magnitude" in name:
                parameter.mul_(1 + 0.2 * torch.rand_like(parameter))
    return tuned


def ours(name):
    return name.removeprefix("base_model.model.").replace(".default.", ".").replace("magnitude_vector.weight", "magnitude_vector")


def save(tuned, folder):
    """Base and updates among the tensors of one folder."""
    tensors = load_file(f"{folder}/model.safetensors")
    tensors.update({ours(n): p.detach().float().clone() for n, p in tuned.named_parameters() if "lora_" in n})
    save_file(tensors, f"{folder}/model.safetensors", {"format": "pt"})


def probe(args, folder, batch, dtype, targets, patterns, dora, *more):
    with tempfile.TemporaryDirectory() as tmp:
        save_file(batch, f"{tmp}/in.safetensors")
        words = [targets] if isinstance(targets, str) else targets[:]
        words += [f"{kind}:{target}={n}" for kind, pattern in zip(("rank", "alpha"), patterns) for target, n in pattern.items()]
        lora = ",".join(["lora", str(RANK), str(ALPHA), *words, *["dora"] * dora, *more])
        subprocess.run([f"{args.build}/tests/probe", folder, f"{tmp}/in.safetensors", f"{tmp}/out", dtype, lora], check=True, timeout=120)
        return load_file(f"{tmp}/out/model.safetensors")


def compare(name, args, folder, model, tuned, batch, documents, targets, patterns, dora):
    logits, loss, grads = reference(model.double(), documents)
    grads = {ours(n): g for n, g in grads.items() if "lora_" in n}
    check_tuned(name, batch, (logits, loss, grads), sum(p.numel() for p in tuned.parameters() if p.requires_grad),
                lambda dtype: probe(args, folder, batch, dtype, targets, patterns, dora))


class Fixed(torch.nn.Module):
    """A dropout by a draw that was made elsewhere."""

    def __init__(self, mask):
        super().__init__()
        self.mask = mask

    def forward(self, x):
        return x * self.mask


def compare_dropout(name, args, folder, config, targets):
    """DoRA with dropout, which W's part of an update sees, too: the program's own draw in PEFT's layers."""
    rate, model = 0.25, make_model(config, folder)
    document = make_document(model, torch.randint(3, config.vocab_size, (37,)))
    tuned = wrapped(model, targets, ({}, {}), True)
    save(tuned, folder)
    layers = [module for _, module in tuned.named_modules() if hasattr(module, "lora_dropout")]
    for dtype, bound in (("ref64", 1e-6), ("ref32", 1e-5), ("fp32", 1e-5)):
        out = probe(args, folder, pack([document]), dtype, targets, ({}, {}), True, f"dropout:{rate}")
        masks = [(out[n] != 0).double() / (1 - rate) for n in sorted(out) if n.startswith("dropped-")]
        for layer, mask in zip(layers, masks):
            layer.lora_dropout["default"] = Fixed(mask)
        tuned.double().train()
        _, loss, grads = reference(model, [document])
        grads = {ours(n): g for n, g in grads.items() if "lora_" in n}
        tuned.eval()
        _, undropped, _ = reference(model, [document])
        off, worst = abs(float(out["loss"].mean()) * 37 / 36 / loss - 1), max((e, n) for n, e in errors(out, grads).items())
        check(len(layers) == len(masks) and off <= bound < abs(undropped / loss - 1), f"{name} {dtype}: loss {loss:.4f}, off by {off:.1e}; undropped {undropped:.4f}")
        check(worst[0] <= bound, f"{name} {dtype}: {len(grads)} gradients, the worst {worst[0]:.1e} ({worst[1]})")


def train(args, folder, name, *sets):
    """Runs; returns the losses of its steps."""
    words = [w for key in (f"run.dir={folder}/{name}", *sets) for w in ("--set", key)]
    espalier(args, "train", f"{folder}/config.yaml", *words)
    with open(f"{folder}/{name}/metrics.jsonl") as lines:
        return [row["loss"] for row in map(json.loads, lines) if row["event"] == "step"]


def adapter_of(model, folder):
    """The model with an adapter that the program wrote, as PEFT reads it."""
    return peft.PeftModel.from_pretrained(model, folder, is_trainable=True).double()


def prepare(args, folder, config, settings):
    """A base, a text of one line and a config; returns the base and the document that training sees."""
    model = make_model(config, f"{folder}/base")
    line = next(x.strip() for x in open(TEXT) if len(x.split()) > 9)
    ids = torch.tensor(tokenize(args, [line])[0] + [END])
    open(f"{folder}/text.txt", "w").write(line + "\n")
    open(f"{folder}/config.yaml", "w").write(CONFIG.format(folder=folder, tokenizer=TOKENIZER, steps=STEPS, settings=settings, lr=LR, eps=EPS))
    return model, dict(ids=ids, targets=torch.cat([ids[1:], torch.tensor([-1])]))


def follow(name, args, folder, model, document, tuned, *sets):
    """The same steps by both, from the same adapter."""
    trained = [[p for n, p in tuned.named_parameters() if p.requires_grad and ("magnitude" in n) == kind] for kind in (False, True)]
    groups = [dict(params=trained[0]), dict(params=trained[1], weight_decay=0)]  # lengths of rows do not decay
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.95), eps=EPS, weight_decay=0.1)
    expected = []
    for _ in range(STEPS):
        total, weight = loss_of(logits_of(model, document), document)
        (total / weight).backward()
        expected.append(float((total / weight).detach()))
        optimizer.step()
        optimizer.zero_grad()
    losses = train(args, folder, "run", *sets)
    off = max(abs(a / b - 1) for a, b in zip(losses, expected))
    check(len(losses) == STEPS and off <= 1e-5 and expected[-1] < 0.9 * expected[0], f"{name}: {STEPS} steps, loss {expected[0]:.3f} to {expected[-1]:.3f}, off by {off:.1e}")
    written = load_file(f"{folder}/run/adapter/adapter_model.safetensors")
    mine = {"base_model.model." + ours(n.replace(".modules_to_save", "")): p for n, p in tuned.named_parameters() if p.requires_grad}
    worst = max(error(written[n], mine[n]) for n in mine)
    check(set(written) == set(mine) and worst <= 1e-5, f"{name}: {len(mine)} matrices of the adapter, the worst {worst:.1e}")


def check_merged(name, args, folder, model, document, of, adapter):
    """The export of `of` against PEFT with the adapter."""
    espalier(args, "export", of, f"{folder}/merged")
    with torch.no_grad():
        merged, base = (type(model).from_pretrained(f"{folder}/{which}", dtype=torch.float64) for which in ("merged", "base"))
        before = logits_of(base, document)
        both = logits_of(adapter_of(base, adapter).base_model.model, document)
        off = error(logits_of(merged, document), both)
        check(off <= 1e-5, f"{name}: the merged model's logits, off by {off:.1e} from PEFT's with the adapter")
        check(error(before, both) > 1e-3, f"{name}: the base's logits are others")


def compare_training(name, args, folder, config, settings):
    model, document = prepare(args, folder, config, f"rank: {RANK}, alpha: {ALPHA}, {settings}")
    train(args, folder, "start", "train.steps=1", "optim.lr=0")
    base = {n: p for n, p in model.named_parameters()}
    for key, m in load_file(f"{folder}/start/adapter/adapter_model.safetensors").items():
        if key.endswith("magnitude_vector"):
            weight = base[ours(key).replace("lora_magnitude_vector", "weight")].detach().double()
            off = error(m, weight.norm(dim=0 if isinstance(model, tf.GPT2LMHeadModel) else 1))
            if off > 1e-6:
                check(False, f"{name}: {key} does not begin as the norms, off by {off:.1e}")
    follow(name, args, folder, model, document, adapter_of(model, f"{folder}/start/adapter"))
    check_merged(name, args, folder, model, document, f"{folder}/run", f"{folder}/run/adapter")


def digest_of(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(pathlib.Path(folder).iterdir())}


def compare_adapter(name, args, folder, config, settings):
    """An adapter that PEFT made: written again as it is, trained on, judged, merged; the base stays."""
    model, document = prepare(args, folder, config, "")
    before = digest_of(f"{folder}/base")
    model = type(model).from_pretrained(f"{folder}/base")  # PEFT asks it for its folder
    tuned = peft.get_peft_model(model, peft.LoraConfig(r=RANK, lora_alpha=ALPHA, task_type="CAUSAL_LM", **settings))
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
    tuned.save_pretrained(f"{folder}/theirs")
    train(args, folder, "again", "train.steps=1", "optim.lr=0", f"model.adapter={folder}/theirs")
    theirs, again = (load_file(f"{folder}/{which}/adapter_model.safetensors") for which in ("theirs", "again/adapter"))
    same = set(theirs) == set(again) and all(torch.equal(theirs[n], again[n]) for n in theirs)
    check(same, f"{name}: {len(theirs)} tensors of PEFT's adapter are written as they were read {sorted(set(theirs) ^ set(again))[:3]}")
    with torch.no_grad():
        total, weight = loss_of(logits_of(tuned.double().base_model.model, document), document)
    words = ["--json", "--set", f"data.valid={folder}/text.txt", "--set", f"data.tokenizer={TOKENIZER}"]
    judged = [("adapter", f"{folder}/theirs", []), ("base and model.adapter", f"{folder}/base", ["--set", f"model.adapter={folder}/theirs"])]
    for what, path, more in judged:
        found = json.loads(espalier(args, "eval", f"{folder}/config.yaml", "--model", path, *words, *more))["loss"]
        off = abs(found / float(total / weight) - 1)
        check(off <= 1e-5, f"{name}: eval of {what}, loss {found:.4f}, off by {off:.1e} from PEFT's")
    check_merged(f"{name} as PEFT wrote it", args, folder, model, document, f"{folder}/theirs", f"{folder}/theirs")
    follow(name, args, folder, model, document, tuned, f"model.adapter={folder}/theirs")
    check(digest_of(f"{folder}/base") == before, f"{name}: the base's folder is as it was")


def main():
    args = arguments(__doc__)
    torch.manual_seed(11)
    for name, (kind, config, targets), dora in [(name, case, False) for name, case in CASES.items()] + [(f"dora-{n}", CASES[n], True) for n in DORA]:
        with tempfile.TemporaryDirectory() as folder:
            model = make_model(config, folder, kind)
            documents = [make_document(model, torch.randint(3, config.vocab_size, (n,))) for n in LENGTHS]
            patterns = PATTERNS.get(name.removeprefix("dora-"), ({}, {}))
            tuned = wrapped(model, targets, patterns, dora)
            save(tuned, folder)
            compare(name, args, folder, model, tuned, pack(documents), documents, targets, patterns, dora)
    for name, (config, targets) in DROPPED.items():
        with tempfile.TemporaryDirectory() as folder:
            compare_dropout(name, args, folder, config, targets)
    for compared, cases in ((compare_training, TRAINED), (compare_adapter, ADAPTERS)):
        for name, (config, settings) in cases.items():
            with tempfile.TemporaryDirectory() as folder:
                compared(name, args, folder, config, settings)
    return finish()


if __name__ == "__main__":
    sys.exit(main())
