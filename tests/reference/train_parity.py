#!/usr/bin/env python3
"""Twenty steps of `espalier train` against transformers and torch.optim.AdamW, and equalities between runs of the program.

    python train_parity.py --espalier PROGRAM --build FOLDER

Six documents of real text (or texts with labels, or pairs of texts), each a micro-batch of its own, two micro-batches a step. In which order they come is the program's affair: of
all pairs that the epoch has left, the reference takes the one whose loss is the reported one. Which tokens of a masked LM are guessed, and what is shown for them, is a Philox
number; those are drawn here a second time, from the paper.
Bounds: fp32 within 1e-5 of the same steps in fp64; bf16 by the 2x rule, against plain bf16 with fp32 master weights."""
import collections
import glob
import itertools
import json
import math
import sys
import tempfile

import torch
import transformers as tf

from documents import kind_of, logits_of, loss_of
from parity_tools import ROOT, ROPE, TEXT, TOKENIZER, arguments, bert, check, distilbert, error, espalier, finish, gpt2, llama, make_model, roberta, t5, tokenize

STEPS, WARMUP, END = 20, 4, 0
SEED, MASK, MASK_SHARE = 5, 4, 0.3
WORDPIECE = ROOT / "configs/data/wordpiece2000"
SMALL = dict(vocab_size=2048, num_hidden_layers=2, bos_token_id=END, eos_token_id=END)
Recipe = collections.namedtuple("Recipe", "schedule clip")
MODELS = {
    "gpt2": (gpt2(vocab_size=2048, n_layer=2, bos_token_id=END, eos_token_id=END), Recipe("linear", 2.0)),
    "llama-gqa": (llama(**SMALL), Recipe("cosine", 1.0)),
    "llama-gqa-tied": (llama(**{**SMALL, "tie_word_embeddings": True}), Recipe("cosine", math.inf)),
    "llama3-rope-tied": (llama(**{**SMALL, "tie_word_embeddings": True}, rope_parameters=ROPE, num_key_value_heads=3), Recipe("constant", 2.0)),
}
WIDE = dict(vocab_size=2048, num_labels=3)
PAIRS = dict(vocab_size=2048, eos_token_id=END)
HEADS = {
    "bert-classes": (bert(**WIDE, num_hidden_layers=2), Recipe("linear", 2.0), tf.BertForSequenceClassification),
    "distilbert-classes": (distilbert(**WIDE, n_layers=2), Recipe("cosine", 1.0), tf.DistilBertForSequenceClassification),
    "roberta-classes": (roberta(**WIDE, num_hidden_layers=2), Recipe("constant", 2.0), tf.RobertaForSequenceClassification),
    "gpt2-classes": (gpt2(**WIDE, n_layer=2), Recipe("linear", 2.0), tf.GPT2ForSequenceClassification),
    "bert-masked": (bert(vocab_size=2048, num_hidden_layers=2), Recipe("linear", 2.0), tf.BertForMaskedLM),
    "distilbert-masked": (distilbert(vocab_size=2048, n_layers=2), Recipe("cosine", 1.0), tf.DistilBertForMaskedLM),
    "t5-v1.0": (t5(**PAIRS), Recipe("linear", 2.0), tf.T5ForConditionalGeneration),
    "t5-v1.1": (t5(**PAIRS, feed_forward_proj="gated-gelu", tie_word_embeddings=False), Recipe("cosine", 1.0), tf.T5ForConditionalGeneration),
}
LABELS = ["bad", "fair", "good"]
CONFIG = """
run: {{seed: {seed}, threads: 1}}
model: {{path: {model}, dropout: 0}}
data: {{train: {text}, tokenizer: {tokenizer}, cache: {cache}, sequence_length: 32, {data}}}
train: {{steps: 20, micro_batch_tokens: 32, micro_batches: 2, clip_norm: {clip}{train}}}
optim: {{lr: 2e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, schedule: {schedule}, warmup_steps: 4}}
log: {{tensorboard: false}}
"""


class Work:
    """A folder with a model, a text and a config, and the runs made from them."""

    def __init__(self, args, folder, config, recipe, lines, kind=None):
        self.args, self.folder = args, folder
        self.model = make_model(config, f"{folder}/base", kind)
        kind = kind_of(self.model)
        text = f"{folder}/text.{'txt' if kind in ('lm', 'mlm') else 'jsonl'}"
        data, train = {"lm": ("document: line", ""), "class": ("task: classification", ""), "mlm": (f"task: mlm, document: line, mlm_probability: {MASK_SHARE}", ""),
                       "pair": ("task: seq2seq", ", micro_batch_target_tokens: 32")}[kind]
        with open(text, "w") as out:
            out.write("".join(row + "\n" for row in rows_of(kind, lines)))
        with open(f"{folder}/config.yaml", "w") as out:
            out.write(CONFIG.format(model=f"{folder}/base", text=text, tokenizer=tokenizer_of(kind), seed=SEED, cache=f"{folder}/cache", data=data, train=train,
                                    schedule=recipe.schedule, clip=recipe.clip if recipe.clip < math.inf else 0))

    def train(self, name, *sets):
        """Runs; returns the step lines of metrics.jsonl."""
        words = [w for key in (f"run.dir={self.folder}/{name}", *sets) for w in ("--set", key)]
        espalier(self.args, "train", f"{self.folder}/config.yaml", *words)
        with open(f"{self.folder}/{name}/metrics.jsonl") as lines:
            return [row for row in map(json.loads, lines) if row["event"] == "step"]

    def weights(self, name):
        """Of a run, in fp32, with names and shapes as transformers loads them."""
        espalier(self.args, "export", f"{self.folder}/{name}", f"{self.folder}/{name}-fp32", "--dtype", "fp32")
        return type(self.model).from_pretrained(f"{self.folder}/{name}-fp32", dtype=torch.float32).state_dict()

    def digest(self, name):
        return espalier(self.args, "verify", "--digest", f"{self.folder}/{name}").strip()


# ---- The reference.

def tokenizer_of(kind):
    return WORDPIECE if kind == "mlm" else TOKENIZER


def read_documents(args, kind):
    """Six documents of 20 to 31 tokens, so that no two fit into 32, and their ids; of a masked LM in the tokenizer's template."""
    with open(TEXT) as text:
        rows = [row.strip() for row in itertools.islice(text, 400) if len(row.split()) > 5]
    lines = [" ".join(pair) for pair in zip(rows[::2], rows[1::2])]
    both = [(line, ids) for line, ids in zip(lines, tokenize(args, lines, tokenizer_of(kind))) if 20 <= len(ids) <= 31][:6]
    return [line for line, _ in both], [torch.tensor(ids) for _, ids in both]


def rows_of(kind, lines):
    """The lines of a file of data: text; text with a label; a text and the one before it."""
    if kind == "class":
        return [json.dumps({"text": line, "label": LABELS[i % 3]}) for i, line in enumerate(lines)]
    return lines if kind in ("lm", "mlm") else [json.dumps({"input": line, "target": lines[i - 1]}) for i, line in enumerate(lines)]


def documents_of(kind, texts):
    """What the program makes of those lines."""
    end = torch.tensor([END])
    if kind == "class":
        return [dict(ids=ids, labels=torch.tensor([i % 3]), weights=torch.ones(1)) for i, ids in enumerate(texts)]
    if kind == "pair":
        return [dict(source_ids=torch.cat([ids, end]), ids=torch.cat([torch.tensor([0]), texts[i - 1]]), targets=torch.cat([texts[i - 1], end]))
                for i, ids in enumerate(texts)]
    return [dict(ids=torch.cat([ids, end]), targets=torch.cat([ids[1:], end, torch.tensor([-1])])) for ids in texts]


def philox(counter, key):
    """Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011)."""
    c, k, word = list(counter), list(key), 2**32
    for _ in range(10):
        p, q = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [q // word ^ c[1] ^ k[0], q % word, p // word ^ c[3] ^ k[1], p % word]
        k = [(k[0] + 0x9E3779B9) % word, (k[1] + 0xBB67AE85) % word]
    return c


def masked(texts, seed, n_pass, vocabulary):
    """The documents in one pass over the text: of the tokens to be guessed 80 % are shown as the mask, 10 % as any. A token's numbers are those of
    its place in the text under the key of (seed, the purpose of masks, pass)."""
    documents, token = [], 0
    for ids in texts:
        shown, targets = ids.clone(), torch.full_like(ids, -1)
        for i in range(len(ids)):
            whether, how, which, _ = philox((token + i, 0, n_pass, 0), (seed ^ 7 * 0x9E3779B9 % 2**32, 0))
            if 0 < i < len(ids) - 1 and whether < int(MASK_SHARE * 2**32):
                targets[i] = ids[i]
                shown[i] = MASK if how < int(0.8 * 2**32) else which * vocabulary // 2**32 if how < int(0.9 * 2**32) else ids[i]
        documents.append(dict(ids=shown, targets=targets))
        token += len(ids)
    return documents


def passes_of(kind, texts, seed):
    """The documents by the pass over them."""
    if kind != "mlm":
        return lambda n_pass: documents_of(kind, texts)
    with open(WORDPIECE / "tokenizer.json", encoding="utf-8") as file:
        vocabulary = len(json.load(file)["model"]["vocab"])
    return lambda n_pass: masked(texts, seed, n_pass, vocabulary)


def optimizer_of(parameters, schedule):
    decays = lambda name, p: p.dim() > 1 and "relative_attention_bias" not in name
    groups = [{"params": [p for name, p in parameters if decays(name, p)], "weight_decay": 0.1},
              {"params": [p for name, p in parameters if not decays(name, p)], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=2e-3, betas=(0.9, 0.95), eps=1e-8)
    name = {"constant": "constant_with_warmup"}.get(schedule, schedule)
    return optimizer, tf.get_scheduler(name, optimizer, num_warmup_steps=WARMUP, num_training_steps=STEPS)


def sum_loss(model, d):
    return loss_of(logits_of(model, d), d)[0]


def weight(d):
    return len(d["labels"]) if "labels" in d else int((d["targets"] >= 0).sum())


def step_loss(model, documents, chosen):
    return sum(sum_loss(model, documents[i]) for i in chosen) / sum(weight(documents[i]) for i in chosen)


def nearest_pair(model, documents, left, reported):
    """The pair of `left` whose mean loss is the nearest to the reported one, and how far it is."""
    with torch.no_grad():
        losses = torch.stack([sum_loss(model, d) for d in documents])
    mean = {pair: float(losses[list(pair)].sum()) / sum(weight(documents[i]) for i in pair) for pair in itertools.combinations(left, 2)}
    pair = min(mean, key=lambda p: abs(mean[p] - reported))
    return pair, abs(mean[pair] - reported) / reported


def truth(start, passes, recipe, reported):
    """The steps in fp64: (loss, norm, rate) of each, the order found, the final weights."""
    model = type(start)(start.config).double().eval()
    model.load_state_dict(start.state_dict())
    optimizer, rate = optimizer_of(list(model.named_parameters()), recipe.schedule)
    rows, order, left, n_pass = [], [], [], 0
    for row in reported:
        if not left:
            documents, n_pass = passes(n_pass), n_pass + 1
            left = list(range(len(documents)))
        pair, off = nearest_pair(model, documents, left, row["loss"])
        if off > 1e-5:
            raise SystemExit(f"no two documents have the reported loss {row['loss']}")
        left = [i for i in left if i not in pair]
        order.append(pair)
        optimizer.zero_grad()
        loss = step_loss(model, documents, pair)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        rows.append((loss.item(), norm.item(), rate.get_last_lr()[0]))
        optimizer.step()
        rate.step()
    return rows, order, model.state_dict()


def plain_bf16(start, documents, recipe, order):
    """The usual recipe: forward and backward in bf16, master weights and AdamW in fp32."""
    model = type(start)(start.config).to(torch.bfloat16).eval()
    masters = {name: torch.nn.Parameter(p.detach().clone()) for name, p in start.named_parameters()}
    optimizer, rate = optimizer_of(list(masters.items()), recipe.schedule)
    losses = []
    for chosen in order:
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(masters[name])
        model.zero_grad()
        loss = step_loss(model, documents, chosen)
        loss.backward()
        for name, p in model.named_parameters():
            masters[name].grad = p.grad.float()
        torch.nn.utils.clip_grad_norm_(masters.values(), recipe.clip)
        optimizer.step()
        rate.step()
        losses.append(loss.item())
    return losses, {name: p.detach() for name, p in masters.items()}


# ---- Comparing.

def comparable(name, tensor):
    """Without the biases of keys: softmax does not see them, their gradient is but rounding, and AdamW makes steps of that."""
    if name.endswith(("key.bias", "k_lin.bias")):
        return tensor[:0]
    width = tensor.numel() // 3
    return torch.cat([tensor[:width], tensor[2 * width:]]) if name.endswith("c_attn.bias") else tensor


def distance(found, true, start):
    """Of all weights together, relative to how far training moved them."""
    def squares(a, b):
        return sum((comparable(n, a[n]).double() - comparable(n, b[n]).double()).norm() ** 2 for n in start)
    return float(squares(found, true) / squares(start, true)) ** 0.5


def worst_weight(found, true):
    return max((error(comparable(n, found[n]), comparable(n, true[n])), n) for n in true)


def compare_masks(name, work, texts):
    """That the losses tell masks apart: with those of another seed, or of another pass, no two documents have the first one."""
    loss, model = work.train("first", "train.steps=1")[0]["loss"], work.model.double()
    nearest = {(seed, n_pass): nearest_pair(model, passes_of("mlm", texts, seed)(n_pass), range(len(texts)), loss)[1] for seed in (SEED, SEED + 1) for n_pass in (0, 1)}
    work.model.float()
    check(nearest[SEED, 0] <= 1e-5 < min(off for key, off in nearest.items() if key != (SEED, 0)),
          f"{name} fp32: other masks are noticed: " + ", ".join(f"seed {seed} pass {n_pass} {off:.1e}" for (seed, n_pass), off in nearest.items()))


def compare_fp32(name, work, passes, recipe):
    reported = work.train("fp32")
    rows, order, weights = truth(work.model, passes, recipe, reported)
    for key, column in (("loss", 0), ("grad_norm", 1), ("lr", 2)):
        off = max(abs(row[key] - true[column]) / max(true[column], 1e-12) for row, true in zip(reported, rows))
        check(off <= 1e-5 and len(reported) == STEPS, f"{name} fp32: {STEPS} steps, {key} off by at most {off:.1e}")
    clipped = sum(true[1] > recipe.clip for true in rows)
    found = work.weights("fp32")
    check(set(found) == set(weights), f"{name} fp32: the same tensors")
    worst = worst_weight(found, weights)
    moved = distance(found, weights, work.model.state_dict())
    check(worst[0] <= 1e-5, f"{name} fp32: {clipped} steps clipped, final weights off by at most {worst[0]:.1e} ({worst[1]}), {moved:.1e} of the way")
    work.train("control", "optim.weight_decay=0.11")
    worst = worst_weight(work.weights("control"), weights)
    check(worst[0] > 1e-5, f"{name} fp32: a weight decay of 0.11 in place of 0.1 is noticed: {worst[0]:.1e} ({worst[1]})")
    return rows, order, weights


def compare_bf16(name, work, documents, recipe, rows, order, weights):
    reported = work.train("bf16", "run.dtype=bf16")
    losses, masters = plain_bf16(work.model, documents, recipe, order)
    off = lambda values: sum((value - true[0]) ** 2 for value, true in zip(values, rows)) ** 0.5
    ratio = off([row["loss"] for row in reported]) / off(losses)
    check(ratio <= 2, f"{name} bf16: the error of the losses is {ratio:.2f} of the plain run's")
    start = {n: p for n, p in work.model.state_dict().items() if n in masters}
    found = distance(work.weights("bf16"), weights, start)
    plain = distance(masters, weights, start)
    check(found <= 2 * plain, f"{name} bf16: final weights are off by {found:.3f} of the way, in the plain run by {plain:.3f}")


# ---- Equalities.

def compare_recompute(name, work):
    seen = set()
    for dropout in (0, 0.1):
        digests = []
        for mode in ("none", "selective", "full"):
            work.train(f"{mode}-{dropout}", f"model.recompute={mode}", f"model.dropout={dropout}", "train.steps=6")
            digests.append(work.digest(f"{mode}-{dropout}"))
        check(len(set(digests)) == 1, f"{name}: recompute none, selective, full with dropout {dropout}: digests {' '.join(digests)}")
        seen.update(digests)
    check(len(seen) == 2, f"{name}: dropout 0 and 0.1 differ")


def compare_cuts(name, work):
    """One step is always the whole text: in six micro-batches, three, or one."""
    sets = [(f"train.micro_batch_tokens={tokens}", f"train.micro_batches={count}") for tokens, count in ((32, 6), (64, 3), (192, 1))]
    for i, keys in enumerate(sets):
        work.train(f"cut{i}", *keys)
    whole = work.weights("cut0")
    for i in (1, 2):
        worst = worst_weight(work.weights(f"cut{i}"), whole)
        check(worst[0] <= 1e-5, f"{name}: {STEPS} steps of {sets[i]} and of {sets[0]}: weights differ by at most {worst[0]:.1e} ({worst[1]})")


def compare_store(name, work):
    """The token store that a run made is data of its own."""
    stores = glob.glob(f"{work.folder}/cache/*.h5")
    work.train("store", f"data.train={stores[0]}", "data.format=tokens")
    check(work.digest("store") == work.digest("fp32"), f"{name}: from the token store the same digest as from the text")


def main():
    args = arguments(__doc__)
    torch.manual_seed(11)
    for name, (config, recipe, *kind) in {**MODELS, **HEADS}.items():
        with tempfile.TemporaryDirectory() as folder:
            task = "mlm" if "masked" in name else None
            lines, texts = read_documents(args, task)
            work = Work(args, folder, config, recipe, lines, *kind)
            passes = passes_of(kind_of(work.model), texts, SEED)
            rows, order, weights = compare_fp32(name, work, passes, recipe)
            if task == "mlm":
                compare_masks(name, work, texts)
            if "tied" not in name and not kind:
                compare_bf16(name, work, passes(0), recipe, rows, order, weights)
                compare_recompute(name, work)
                compare_cuts(name, work)
                compare_store(name, work)
    return finish()


if __name__ == "__main__":
    sys.exit(main())
