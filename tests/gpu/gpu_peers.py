"""The part `peers`: PyTorch on the same GPU in the same run, turn by turn with Espalier, and their ratios."""

import json
import select
import statistics
import subprocess
import sys
import time

from gpu_session import ROOT, OutOfTime, Skip, plan, train

LLAMA_8B_STACK = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336,
                  "num_hidden_layers": 8, "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
                  "rope_theta": 500000.0, "tie_word_embeddings": False, "hidden_act": "silu", "initializer_range": 0.02, "bos_token_id": 0, "eos_token_id": 0}
SMALLER = {"n_layer": 1, "n_embd": 64, "n_head": 1, "n_positions": 64, "vocab_size": 2048, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1,
           "num_attention_heads": 1, "num_key_value_heads": 1, "max_position_embeddings": 64}
ROUNDS = 2


def cases(small):
    """Name -> model, rows, tokens a row."""
    gpt2 = json.loads((ROOT / "configs/models/gpt2-124m/config.json").read_text(encoding="utf-8"))
    found = {"GPT-2 124M B32 T1024": (gpt2, 32, 1024), "Llama-3-8B shapes, 8 layers, T8192": (LLAMA_8B_STACK, 1, 8192)}
    if small:
        found = {name: ({**model, **{k: v for k, v in SMALLER.items() if k in model}}, 2, 32) for name, (model, _, _) in found.items()}
    return found


class Peer:
    """A process of peer_torch.py that is asked turn by turn."""

    def __init__(self, session, what):
        device = "cpu" if session.small else "cuda"
        words = [sys.executable, str(ROOT / "tests/gpu/peer_torch.py"), what, device, *(["--small"] if session.small else [])]
        self.session = session
        self.errors = open(session.scratch / "peer.log", "a+", encoding="utf-8")
        self.process = session.start(words, ours=False, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.errors.close()

    def answer(self):
        until = time.monotonic() + self.session.seconds_left()
        if not select.select([self.process.stdout], [], [], max(0.1, until - time.monotonic()))[0]:
            raise OutOfTime("PyTorch did not answer in time")
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            raise Skip(f"PyTorch ended: {self.errors.read().strip()[-300:]}")
        return json.loads(line)

    def ask(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        return self.answer()


def have_torch(session):
    code, out, _ = session.run(sys.executable, "-c", "import torch; print(torch.__version__, torch.cuda.is_available())", ours=False)
    if code != 0:
        raise Skip("this Python has no PyTorch")
    version, gpu = out.split()
    if gpu != "True" and not session.small:
        raise Skip(f"PyTorch {version} sees no GPU")
    session.parts[session.part]["torch"] = version


# ---- Training.


def compare_training(session, name, model, rows, tokens):
    steps = 3 if session.small else 10
    skip = 1 if session.small else 4
    keys = {"run.device": session.backend, "run.dtype": "bf16", "data.sequence_length": tokens, "train.steps": steps + skip,
            "train.micro_batch_tokens": rows * tokens, "optim.lr": 1e-4}
    ours, theirs, memory = [], [], 0
    with Peer(session, json.dumps({"model": model, "rows": rows, "tokens": tokens})) as peer:
        ready = peer.answer()
        session.check(f"PyTorch trains {name}", ready["loss"] == ready["loss"], f"ready after {ready['ready']:.1f} s")
        for turn in range(ROUNDS):
            found = train(session, f"peer-{rows}-{tokens}-{turn}", model, keys)
            if not found:
                return
            ours.append(statistics.median(rows * tokens / row["step_seconds"] for row in found["step"][skip:]))
            answer = peer.ask(str(steps))
            theirs.append(statistics.median(rows * tokens / s for s in answer["seconds"]))
            memory = answer["peak_bytes"]
    mine, other = statistics.median(ours), statistics.median(theirs)
    session.parts[session.part].setdefault("training", {})[name] = {"ours": ours, "theirs": theirs, "peak_bytes": memory}
    session.row(f"{name}: training", mine, "tokens/s", other, mine / other, None if session.small else 1.15)
    planned = plan(session, f"peer-{rows}-{tokens}-0")
    if planned and memory:
        session.row(f"{name}: device memory", planned["device_bytes"] / 2**20, "MiB", memory / 2**20, planned["device_bytes"] / memory, -0.8)


# ---- Kernels.


def bench_lines(session, only):
    code, out, errors = session.run(session.program("gpu_bench"), session.backend, "small" if session.small else "full", "bf16", only)
    session.check(f"gpu_bench {only}", code == 0, "" if code == 0 else errors.strip()[-300:])
    lines = [json.loads(line) for line in out.splitlines()]
    return {(line["name"], line["pass"]): line["ms"] for line in lines if "ms" in line}


def compare_kernels(session):
    ours, theirs = [], []
    with Peer(session, "kernels") as peer:
        peer.answer()
        for _ in range(ROUNDS):
            ours.append({k: v for only in ("attention", "adamw", "copy", "matrix") for k, v in bench_lines(session, only).items()})
            theirs.append(peer.ask("again"))
    session.parts[session.part]["kernels"] = theirs
    for name in ("gpt2 attention", "llama attention"):
        mine = statistics.median(turn[name, "forward"] + turn[name, "backward"] for turn in ours)
        ways = {way: statistics.median(sum(turn[name][way]) for turn in theirs) for way, found in theirs[0][name].items() if isinstance(found, list)}
        if ways:
            best = min(ways, key=ways.get)
            session.row(f"{name} forward + backward, beside {best}", mine, "ms", ways[best], ways[best] / mine, None if session.small else 0.9)
    for name, target in (("adamw", None), ("copy", None), ("matrix", None)):
        mine, other = (statistics.median(values) for values in ([t[name, "forward"] for t in ours], [t[name] for t in theirs]))
        session.row(f"{name} beside PyTorch's", mine, "ms", other, other / mine, target)


def peers(session):
    """The same work in PyTorch, interleaved."""
    have_torch(session)
    compare_kernels(session)
    for name, (model, rows, tokens) in cases(session.small).items():
        compare_training(session, name, model, rows, tokens)
