#!/usr/bin/env python3
"""The same training work in Espalier and in PyTorch with transformers, interleaved on this machine: tokens a second, share of the matrix
peak, peak memory, and their ratios.

    python tests/bench/peers.py --espalier build/release/espalier [--case NAME ...] [--dtype fp32 ...] [--rounds 3] [--steps 6] [--threads 2]

Both do full steps on the same shapes: forward, backward, global norm and clipping, AdamW; dropout 0. PyTorch runs its scaled-dot-product
attention and fused AdamW, bf16 by autocast. In imdb-lengths both train on documents of the lengths that film reviews have, cut at 512 tokens:
Espalier packs them, PyTorch pads batches of 8 to the longest; tokens a second count real tokens only (needs ESPL_SHARED_DATA). tinyllama-lora and
tinyllama-qlora train updates of rank 16 of all matrices at TinyLlama-1.1B's true shape, 22 layers, 512 tokens, through peft; of QLoRA both hold the base in
NF4 with quantised scales (bitsandbytes), which neither loads: it is random. The base in fp32 takes 4.2 GiB in each. In minilm-128
and minilm-512 both train a classifier of MiniLM-L6's shape on the same reviews, cut at 128 and 512 tokens, again packed and padded. Each round runs one after the other; the first two steps of a process are not counted; figures are
medians over all counted steps, memory is the largest resident size of the process. OPENBLAS_* variables are
unset for both, so that OpenBLAS chooses its kernels by the CPU. Needs torch and transformers in this Python, and peft and bitsandbytes for LoRA."""
import argparse, json, os, resource, statistics, subprocess, sys, tempfile, time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TINYLLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 32000, "hidden_size": 2048, "intermediate_size": 5632,
             "num_hidden_layers": 4, "num_attention_heads": 32, "num_key_value_heads": 4, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5,
             "tie_word_embeddings": False, "hidden_act": "silu", "initializer_range": 0.02, "bos_token_id": 1, "eos_token_id": 2}
TINYLLAMA_WHOLE = {**TINYLLAMA, "num_hidden_layers": 22}
MINILM = {"model_type": "bert", "architectures": ["BertForSequenceClassification"], "vocab_size": 30522, "hidden_size": 384, "intermediate_size": 1536,
          "num_hidden_layers": 6, "num_attention_heads": 12, "max_position_embeddings": 512, "type_vocab_size": 2, "hidden_act": "gelu",
          "layer_norm_eps": 1e-12, "initializer_range": 0.02, "pad_token_id": 0}
CASES = {  # name: config.json, rows, tokens a row
    "gpt2-124m": ("configs/models/gpt2-124m/config.json", 4, 256),
    "llama-15m": ("configs/models/llama-15m/config.json", 8, 256),
    "tinyllama-4-layers": (TINYLLAMA, 2, 256),
    "tinyllama-lora": (TINYLLAMA_WHOLE, 1, 512),
    "tinyllama-qlora": (TINYLLAMA_WHOLE, 1, 512),
    "imdb-lengths": ("configs/models/llama-15m/config.json", 8, 512),
    "minilm-128": (MINILM, 16, 128),
    "minilm-512": (MINILM, 8, 512),
}
DATA_KEYS = {None: ("tokenizer", "sequence_length", "cache", "append_eos"), "classification": ("sequence_length", "cache")}
DATA = os.environ.get("ESPL_SHARED_DATA") or os.path.join(ROOT, "..", "shared", "data")
REVIEWS = os.path.join(DATA, "imdb", "q2000_train.jsonl")
ON_REVIEWS = {  # case: what its recipe adds about the data
    "imdb-lengths": {"train": REVIEWS, "placement": "packed", "text_field": "text"},
    "minilm-128": {"train": REVIEWS, "task": "classification", "tokenizer": f"{DATA}/tokenizers/bert-base-uncased"},
    "minilm-512": {"train": REVIEWS, "task": "classification", "tokenizer": f"{DATA}/tokenizers/bert-base-uncased"},
}
LORA = {"tinyllama-lora": "as_is", "tinyllama-qlora": "nf4"}  # case: tune.base
WARM = 2


def load_config(case):
    config = CASES[case][0]
    return config if isinstance(config, dict) else json.load(open(os.path.join(ROOT, config)))


def espalier(args, case, dtype, folder):
    _, rows, tokens = CASES[case]
    with open(f"{folder}/config.json", "w") as f:
        json.dump(load_config(case), f)
    recipe = {"run": {"dir": f"{folder}/run", "dtype": dtype, "threads": args.threads}, "model": {"config": f"{folder}/config.json", "dropout": 0, "recompute": args.recompute},
              "data": {"train": f"{ROOT}/configs/data/shakespeare.txt", "tokenizer": f"{ROOT}/configs/data/bpe2048", "placement": "windows", "sequence_length": tokens,
                       "cache": f"{folder}/cache", "append_eos": False},
              "train": {"steps": args.steps + WARM, "micro_batch_tokens": rows * tokens, "micro_batches": 1}, "optim": {"lr": 1e-4, "schedule": "constant"},
              "checkpoint": {"export": False}, "log": {"tensorboard": False, "progress": "none"}}
    if case in LORA:
        recipe["tune"] = {"method": "lora", "targets": ["all-linear"], "rank": 16, "alpha": 32, "base": LORA[case]}
    if case in ON_REVIEWS:
        recipe["data"] = {**{k: recipe["data"][k] for k in DATA_KEYS[ON_REVIEWS[case].get("task")]}, **ON_REVIEWS[case]}
    with open(f"{folder}/recipe.yaml", "w") as f:
        json.dump(recipe, f)  # JSON is YAML
    out = subprocess.run([args.espalier, "train", f"{folder}/recipe.yaml", "--resume", "never"], capture_output=True, text=True, timeout=900)
    if out.returncode != 0:
        sys.exit(f"espalier ended with {out.returncode}: {out.stderr[-500:]}")
    lines = [json.loads(x) for x in open(f"{folder}/run/metrics.jsonl")]
    steps = [x for x in lines if x["event"] == "step"][WARM:]
    peak = next(x["peak_rss_bytes"] for x in lines if x["event"] == "summary")
    tokens = [b["tokens"] - a["tokens"] for a, b in zip(lines_of_steps(lines), lines_of_steps(lines)[1:])][WARM - 1:]
    return {"seconds": [x["step_seconds"] for x in steps], "tokens": tokens, "mfu": [x["mfu"] for x in steps], "peak_bytes": peak}


def lines_of_steps(lines):
    return [x for x in lines if x["event"] == "step"]


def padded_reviews(case, steps, rows, longest):
    """Batches of `rows` reviews, padded to the longest of each; their classes, or, for language models, labels -100 on the padding."""
    import torch, tokenizers
    tokenizer = tokenizers.Tokenizer.from_file(f"{ON_REVIEWS[case].get('tokenizer', f'{ROOT}/configs/data/bpe2048')}/tokenizer.json")
    tokenizer.no_padding()
    tokenizer.enable_truncation(longest)
    reviews = [json.loads(line) for line in open(REVIEWS)]
    for k in range(steps):
        some = [reviews[i % len(reviews)] for i in range(k * rows, (k + 1) * rows)]
        ids = [torch.tensor(tokenizer.encode(x["text"]).ids) for x in some]
        pad = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(x) for x in ids], batch_first=True)
        labels = torch.tensor([int(x["label"]) for x in some]) if "task" in ON_REVIEWS[case] else pad.masked_fill(mask == 0, -100)
        yield {"input_ids": pad, "attention_mask": mask, "labels": labels}, int(mask.sum())


def fixed_batches(case, steps, rows, tokens):
    import torch
    ids = torch.randint(0, 2048, (rows, tokens))
    for _ in range(steps):
        yield {"input_ids": ids, "labels": ids}, rows * tokens


def with_updates(model, quantised):
    """The model with LoRA by peft; over linear layers of bitsandbytes that are quantised one after the other, so that the base is never there twice."""
    import peft, torch
    if quantised:
        import bitsandbytes
        for name, layer in list(model.named_modules()):
            if isinstance(layer, torch.nn.Linear) and name != "lm_head":
                four = bitsandbytes.nn.Linear4bit(layer.in_features, layer.out_features, bias=False, compute_dtype=layer.weight.dtype, quant_type="nf4", compress_statistics=True)
                four.weight = bitsandbytes.nn.Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True)
                model.set_submodule(name, four.to("cpu"))
    return peft.get_peft_model(model, peft.LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))


def torch_child(args, case, dtype):
    import torch, transformers
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    raw = load_config(case)
    _, rows, tokens = CASES[case]
    for key in ("attn_pdrop", "embd_pdrop", "resid_pdrop", "hidden_dropout_prob", "attention_probs_dropout_prob"):
        if key in raw or raw["model_type"] == "bert":
            raw[key] = 0.0
    config = transformers.AutoConfig.for_model(raw.pop("model_type"), **{k: v for k, v in raw.items() if k != "architectures"})
    config.use_cache = False
    classifies = "task" in ON_REVIEWS.get(case, {})
    model = (transformers.AutoModelForSequenceClassification if classifies else transformers.AutoModelForCausalLM).from_config(config)
    if case in LORA:
        model = with_updates(model, LORA[case] == "nf4")
    model.train()
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=1e-4, weight_decay=0.01, fused=True)
    seconds, counts = [], []
    batches = padded_reviews if case in ON_REVIEWS else fixed_batches
    for batch, real in batches(case, args.steps + WARM, rows, tokens):
        start = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bf16"):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - start)
        counts.append(real)
    print(json.dumps({"seconds": seconds[WARM:], "tokens": counts[WARM:], "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


def pytorch(args, case, dtype):
    env = dict(os.environ, OMP_NUM_THREADS=str(args.threads), HF_HUB_OFFLINE="1")
    out = subprocess.run([sys.executable, __file__, "--child", "--espalier", "-", "--case", case, "--dtype", dtype, "--steps", str(args.steps), "--threads", str(args.threads)],
                         capture_output=True, text=True, env=env, timeout=1800)
    if out.returncode != 0:
        sys.exit(f"the PyTorch run ended with {out.returncode}: {out.stderr[-500:]}")
    return json.loads(out.stdout.splitlines()[-1])


def rates(run):
    return [n / s for n, s in zip(run["tokens"], run["seconds"])]


def compare(args, case, dtype):
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(args.rounds):
            ours.append(espalier(args, case, dtype, folder))
            theirs.append(pytorch(args, case, dtype))
    _, rows, tokens = CASES[case]
    a, b = (statistics.median(x for r in runs for x in rates(r)) for runs in (ours, theirs))
    pair = [statistics.median(rates(o)) / statistics.median(rates(t)) for o, t in zip(ours, theirs)]
    memory_a, memory_b = max(r["peak_bytes"] for r in ours), max(r["peak_bytes"] for r in theirs)
    share = statistics.median(x for r in ours for x in r["mfu"])
    return {"case": case, "shape": f"{rows} x {tokens}", "dtype": dtype, "espalier_tokens_per_second": a, "pytorch_tokens_per_second": b, "ratio": a / b,
            "ratio_low": min(pair), "ratio_high": max(pair), "share_of_matrix_peak": share, "espalier_mib": memory_a / 2**20, "pytorch_mib": memory_b / 2**20,
            "memory_ratio": memory_a / memory_b}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--espalier", required=True)
    p.add_argument("--case", nargs="*", default=list(CASES), choices=list(CASES))
    p.add_argument("--dtype", nargs="*", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--steps", type=int, default=6)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--recompute", default="selective", choices=["none", "selective", "full"])
    p.add_argument("--json")
    p.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = p.parse_args()
    for name in [x for x in os.environ if x.startswith("OPENBLAS_")]:
        del os.environ[name]
    if args.child:
        return torch_child(args, args.case[0], args.dtype[0])
    results = []
    print("| case | tokens a step | dtype | Espalier tok/s | PyTorch tok/s | ratio (rounds) | of matrix peak | Espalier MiB | PyTorch MiB | memory ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for case in args.case:
        for dtype in args.dtype:
            r = compare(args, case, dtype)
            results.append(r)
            print(f"| {case} | {r['shape']} | {dtype} | {r['espalier_tokens_per_second']:.0f} | {r['pytorch_tokens_per_second']:.0f} | {r['ratio']:.2f} "
                  f"({r['ratio_low']:.2f}-{r['ratio_high']:.2f}) | {100 * r['share_of_matrix_peak']:.0f} % | {r['espalier_mib']:.0f} | {r['pytorch_mib']:.0f} | {r['memory_ratio']:.2f} |", flush=True)
    if args.json:
        json.dump(results, open(args.json, "w"), indent=1)


if __name__ == "__main__":
    main()
