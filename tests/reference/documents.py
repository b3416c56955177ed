"""One document of each kind of model, what transformers makes of it by itself, and documents packed as the program takes them."""
import torch

from parity_tools import check, error

F = torch.nn.functional


def kind_of(model):
    name = type(model).__name__
    return "class" if "Classification" in name else "mlm" if "MaskedLM" in name else "pair" if "T5" in name else "lm"


def make_document(model, x):
    """Token ids x, and whatever else the model's kind of document has, at random: a class and its weight, every third token masked, the
    target of an encoder-decoder."""
    config = model.config
    if kind_of(model) == "class":
        half = len(x) // 2 if getattr(config, "type_vocab_size", 1) > 1 else len(x)
        label = torch.randint(0, config.num_labels, (1,))
        return dict(ids=x, types=(torch.arange(len(x)) >= half).long(), labels=label, weights=1.0 + label.float() / 4)
    if kind_of(model) == "mlm":
        return dict(ids=x, targets=torch.where(torch.arange(len(x)) % 3 == 0, torch.randint(2, config.vocab_size, (len(x),)), -1))
    if kind_of(model) == "pair":
        targets = torch.randint(2, config.vocab_size, (1 + len(x) // 2,))
        return dict(ids=torch.cat([torch.tensor([config.decoder_start_token_id]), targets[:-1]]), targets=targets, source_ids=x)
    return dict(ids=x, targets=torch.cat([x[1:], torch.tensor([-1])]))


def logits_of(model, d):
    if kind_of(model) == "pair":
        return model(input_ids=d["source_ids"][None], decoder_input_ids=d["ids"][None]).logits[0]
    typed = {"token_type_ids": d["types"][None]} if getattr(model.config, "type_vocab_size", 1) > 1 and "types" in d else {}
    logits = model(input_ids=d["ids"][None], **typed).logits
    return logits if kind_of(model) == "class" else logits[0]


def loss_of(logits, d):
    """The sum of losses, and of their weights."""
    wide = logits.float() if logits.dtype == torch.bfloat16 else logits
    if "labels" in d:
        return (d["weights"] * F.cross_entropy(wide, d["labels"], reduction="none")).sum(), float(d["weights"].sum())
    return F.cross_entropy(wide, d["targets"], reduction="sum", ignore_index=-1), int((d["targets"] >= 0).sum())


def reference(model, documents):
    """Each document by itself: logits, the mean loss, and its gradient for every parameter that has one."""
    logits = [logits_of(model, d) for d in documents]
    parts = [loss_of(y, d) for y, d in zip(logits, documents)]
    loss = sum(part[0] for part in parts) / sum(part[1] for part in parts)
    model.zero_grad()
    loss.backward()
    grads = {name: p.grad.detach() for name, p in model.named_parameters() if p.grad is not None}
    return torch.cat(logits).detach(), loss.item(), grads


def offsets(rows):
    return torch.tensor([sum(len(x) for x in rows[:i]) for i in range(len(rows) + 1)])


def pack(documents):
    """Documents one after another, as the program's batches have them."""
    rows = {name: [d[name] for d in documents] for name in documents[0]}
    batch = {name: torch.cat(values) for name, values in rows.items()}
    batch["segments"] = offsets(rows["ids"])
    if "source_ids" in rows:
        batch["source_segments"] = offsets(rows["source_ids"])
    return batch


def group_of(name):
    """Tensors that are one matrix in the program: softmax does not see the bias of keys, its gradient is but rounding."""
    return name.replace("key.bias", "query.bias").replace("value.bias", "query.bias").replace("k_lin.bias", "q_lin.bias").replace("v_lin.bias", "q_lin.bias")


def errors(found, true):
    """Distance of each tensor from the true one, relative to the norm of its group."""
    norms = {}
    for name, t in true.items():
        norms[group_of(name)] = norms.get(group_of(name), 0.0) + float(t.double().norm()) ** 2
    return {name: float((found[name].double() - t.double()).norm()) / max(norms[group_of(name)] ** 0.5, 1e-300) for name, t in true.items()}


def check_tuned(name, batch, expected, trained, run):
    """What a method trains beside a model: run(dtype) gives the program's logits, losses and gradients of a batch, `expected` are torch's logits, loss and gradients
    in fp64, `trained` the number of parameters that torch trains."""
    logits, loss, grads = expected
    mean = 1.0 / float(batch["weights"].sum() if "weights" in batch else (batch["targets"] >= 0).sum())
    for dtype, bound in (("ref64", 1e-6), ("ref32", 1e-5), ("fp32", 1e-5)):
        out = run(dtype)
        found = set(out) - {"logits", "loss", "hidden"}
        count = sum(out[n].numel() for n in found)
        check(found == set(grads) and count == trained, f"{name} {dtype}: {len(found)} tensors, {count} parameters; the reference {len(grads)}, {trained} "
              f"{sorted(found ^ set(grads))[:3]}")
        if found != set(grads):
            return
        worst = max((e, n) for n, e in errors(out, grads).items())
        off = abs(float(out["loss"].sum()) * mean / loss - 1)
        check(error(out["logits"], logits) <= bound and off <= bound, f"{name} {dtype}: logits {error(out['logits'], logits):.1e}, loss {off:.1e}")
        check(worst[0] <= bound, f"{name} {dtype}: {len(grads)} gradients, the worst {worst[0]:.1e} ({worst[1]})")
