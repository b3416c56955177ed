#!/usr/bin/env python3
"""Checks and times the GPU backend on this machine; tests/gpu/run.sh starts it. tests/gpu/README.md says what the parts are and what the
JSON holds."""

import argparse
import contextlib
import json
import math
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading

import primitives
from gpu_session import ROOT, Session, Skip, file_name, gpu_library_folders, machine, output_of, plan, print_table, train
from gpu_peers import peers

TOTAL_SECONDS = 530
PEAK_DENSE_BF16 = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # FLOP/s by the vendor's data sheets
GPT2_TINY = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "activation_function": "gelu_new", "n_layer": 2, "n_embd": 128, "n_head": 2,
             "n_positions": 128, "vocab_size": 2048, "layer_norm_epsilon": 1e-5, "initializer_range": 0.02, "tie_word_embeddings": True,
             "bos_token_id": 0, "eos_token_id": 0}
LLAMA_TINY = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 2048, "hidden_size": 128, "intermediate_size": 320,
              "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
              "tie_word_embeddings": False, "hidden_act": "silu", "initializer_range": 0.02, "bos_token_id": 0, "eos_token_id": 0}
FINER = 2.0**-16 * math.sqrt(2048)  # a rounding of fp32 is 2^-16 of one of bf16; sums of up to 2,048 terms are kept in fp32 by both and err by some root of that


# ---- primitives


def run_primitives(session):
    """Every primitive against what the emulator printed."""
    name = "primitives" if session.backend == "emu" else "primitives_cuda"
    code, out, errors = session.run(session.program(name))
    if not session.check("primitives run", code == 0, errors.strip()):
        return
    reference = next((f / "reference" / "primitives.txt" for f in session.folders if (f / "reference" / "primitives.txt").is_file()), None)
    want = primitives.read(reference.read_text(encoding="utf-8")) if reference else primitives.read(session.run(session.program("primitives"))[1])
    found = primitives.read(out)
    for primitive, (kind, words) in want.items():
        why = primitives.differs(kind, words, found[primitive][1]) if primitive in found else "is missing"
        session.check(primitive, not why, why or f"{len(words)} words, {kind}")
    session.check("a changed bit is found", not primitives.self_test(want))


# ---- kernels


GROUPS = ("embed", "resnorm", "act", "linear", "qkv", "mlp", "attention", "xent")


@contextlib.contextmanager
def attention_by(whose, library=None):
    """Whose kernels of attention the programs that are started here take: own, auto, cudnn."""
    before = dict(os.environ)
    os.environ["ESPL_CUDA_ATTENTION"] = whose
    if library:
        os.environ["ESPL_CUDNN_LIBRARY"] = str(library)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def run_kernels(session):
    """Every case of every op against fp64 by the 2x rule; attention by our own kernels."""
    with attention_by("own"):
        compare_ops(session)


def compare_ops(session):
    program = session.program("test_ops_emu")
    groups = ("short",) if session.small else GROUPS
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = {group: session.start([program, group], **options) for group in groups}  # at once: the plain loops of the reference take most of the time
    for group, process in running.items():
        code, out, errors = session.finish(process)
        told = (out + errors).splitlines()
        for name in (line.rpartition("] ")[2] for line in told if line.startswith("[       OK")):
            session.check(f"{group}: {name}", True)
        broken = [line for line in told if "allowed" in line or "FAILED" in line]
        session.check(f"{group}: all tests", code == 0, "" if code == 0 else f"exit {code}: " + "; ".join(broken[:8] or [errors.strip()[-600:]]))


# ---- cudnn


def attention_times(session):
    return {(line["name"], line["pass"]): line for line in bench(session, "bf16", "attention")}


def run_cudnn(session):
    """cuDNN's attention where it is taken: against fp64 by the 2x rule, and its time beside that of our kernels."""
    library = session.program("libespalier_emu.so") if session.backend == "emu" else os.environ.get("ESPL_CUDNN_LIBRARY")
    with attention_by("auto", library):
        code, out, errors = session.run(session.program("test_cudnn_emu"), "rule")
    told = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    session.check("cudnn: the cases run", code == 0 and told, f"exit {code}: {errors.strip()[-300:]}" if code or not told else json.dumps(told[0]))
    if not told or not told[0]["chosen"]:
        raise Skip(f"cuDNN's attention is not taken: {told[0]['why'] if told else 'nothing was told'}")
    session.check("cudnn: no result was refused", told[0]["refused"] == 0, told[0]["why"])
    with attention_by("own"):
        ours = attention_times(session)
    with attention_by("auto", library):
        theirs = attention_times(session)
    for key, line in theirs.items():
        if key in ours:
            session.row(f"{key[0]} {key[1]}, {line['shape']}: cuDNN beside our kernels", line["ms"], "ms", ours[key]["ms"], ours[key]["ms"] / line["ms"])


# ---- sanitizer


def run_sanitizer(session):
    """All kernels at small sizes under NVIDIA's checkers."""
    tool = shutil.which("compute-sanitizer") or next((p for p in ("/usr/local/cuda/bin/compute-sanitizer",) if pathlib.Path(p).exists()), None)
    if session.backend == "emu":
        raise Skip("compute-sanitizer needs a GPU; the emulator has checkers of its own")
    if not tool:
        raise Skip("compute-sanitizer is not here")
    for check in ("memcheck", "racecheck"):
        for dtype in ("bf16", "fp32"):
            code, out, _ = session.run(tool, "--tool", check, "--error-exitcode", "9", session.program("gpu_bench"), session.backend, "small", dtype)
            told = [line for line in out.splitlines() if line.startswith("=========")]
            session.check(f"{check} {dtype}", code == 0, "" if code == 0 else f"exit {code}: " + " ".join(told[:6]))


# ---- train


def trace(session, name, model, device, dtype, small):
    keys = {"run.device": device, "run.dtype": dtype, "run.reduction": "tree", "data.sequence_length": 64, "train.steps": 4 if small else 20,
            "train.micro_batch_tokens": 64 if small else 256, "train.micro_batches": 2, "optim.lr": 1e-3}
    found = train(session, f"{name}-{device}-{dtype}", model, keys)
    return found and [(row["loss"], row["grad_norm"]) for row in found["step"]]


def farthest(a, b, column):
    return max(abs(x[column] - y[column]) for x, y in zip(a, b, strict=True))


def run_train(session):
    """Tiny models on this backend and on the CPU: in bf16 at most twice as far from the CPU's fp32 as the CPU's own bf16 is; in fp32 much nearer."""
    for name, model in (("gpt2", GPT2_TINY), ("llama", LLAMA_TINY)):
        traces = {(device, dtype): trace(session, name, model, device, dtype, session.small) for device in ("cpu", session.backend) for dtype in ("fp32", "bf16")}
        if not all(traces.values()):
            return
        truth = traces["cpu", "fp32"]
        for column, what in enumerate(("loss", "gradient norm")):
            scale = farthest(traces["cpu", "bf16"], truth, column)
            for dtype, allowed in (("bf16", 2 * scale), ("fp32", 2 * FINER * scale)):
                off = farthest(traces[session.backend, dtype], truth, column)
                session.check(f"{name} {dtype} {what}", off <= allowed, f"off by {off:.3g}, allowed {allowed:.3g}")
                session.row(f"{name} {dtype}: {what} off the CPU's", off, "", allowed, off / allowed, -1)
        first, last = traces[session.backend, "bf16"][0][0], traces[session.backend, "bf16"][-1][0]
        session.check(f"{name} learns", last < first, f"loss {first:.3f} to {last:.3f}")
    if session.backend == "cuda":
        refuses_ranks_without_a_gpu(session)


def refuses_ranks_without_a_gpu(session):
    """One more rank than there are GPUs: one line, exit 2."""
    launcher = next((f / "mpi" / "bin" / "mpirun" for f in session.folders if (f / "mpi" / "bin" / "mpirun").is_file()), shutil.which("mpirun"))
    gpus = len(output_of("nvidia-smi", "-L").splitlines())
    if not launcher or not gpus:
        return
    code, _, errors = session.run(launcher, "--oversubscribe", "--bind-to", "none", "--mca", "btl", "self,vader", "-n", str(gpus + 1), session.program("espalier"), "train",
                                  session.scratch / "gpt2-cuda-bf16" / "recipe.yaml", "--resume", "never")
    lines = [line for line in errors.splitlines() if line.startswith("espalier: ")]
    session.check(f"{gpus + 1} ranks on {gpus} GPUs are refused", code == 2 and len(lines) == 1, lines[0] if lines else f"exit {code}: {errors.strip()[-300:]}")


# ---- gpt2


def gpt2_model(small):
    return GPT2_TINY if small else json.loads((ROOT / "configs/models/gpt2-124m/config.json").read_text(encoding="utf-8"))


def flops_per_token(model, tokens):
    """Of a training step: six a weight of a matrix, and attention's products over the pairs of a causal mask."""
    if model["model_type"] == "gpt2":
        width, layers, heads = model["n_embd"], model["n_layer"], model["n_embd"]
        matrices = layers * 12 * width * width + model["vocab_size"] * width
    else:
        width, layers = model["hidden_size"], model["num_hidden_layers"]
        head = width // model["num_attention_heads"]
        heads = width
        matrices = layers * (width * (2 * width + 2 * head * model["num_key_value_heads"]) + 3 * width * model["intermediate_size"]) + model["vocab_size"] * width
    return 6 * matrices + 3 * layers * 4 * heads * (tokens + 1) / 2


def rates(found, tokens, skip):
    return [tokens / row["step_seconds"] for row in found["step"][skip:]]


def run_gpt2(session):
    """GPT-2 124M from random weights, 32 sequences of 1,024 tokens a step."""
    length, rows, steps = (64, 2, 3) if session.small else (1024, 32, 20)
    model = gpt2_model(session.small)
    keys = {"run.device": session.backend, "run.dtype": "bf16", "data.sequence_length": length, "train.steps": steps, "train.micro_batch_tokens": rows * length,
            "optim.lr": 6e-4}
    with MemoryWatch() as memory:
        found = train(session, "gpt2-124m", model, keys)
    if not found:
        return
    losses = [row["loss"] for row in found["step"]]
    session.check("the loss falls", losses[-1] < losses[0], f"{losses[0]:.3f} to {losses[-1]:.3f}")
    rate = statistics.median(rates(found, rows * length, 1 if session.small else 5))
    session.row("GPT-2 124M B32 T1024", rate, "tokens/s")
    peak = next((v for k, v in PEAK_DENSE_BF16.items() if k in str(machine()["gpu"])), None)
    achieved = rate * flops_per_token(model, length)
    session.row("GPT-2 124M: model FLOP/s", achieved / 1e12, "TFLOP/s", peak and peak / 1e12, peak and achieved / peak)
    memory_rows(session, plan(session, "gpt2-124m"), memory.taken)


def memory_rows(session, planned, taken):
    """The memory that the GPU lost while the run was on, beside what the plan said. Context and libraries come on top of the plan."""
    if planned and planned.get("device_bytes"):
        session.row("GPT-2 124M: device memory planned", planned["device_bytes"] / 2**20, "MiB")
        if taken:
            session.row("GPT-2 124M: device memory taken", taken / 2**20, "MiB", planned["device_bytes"] / 2**20, taken / planned["device_bytes"])


class MemoryWatch(threading.Thread):
    """The most memory in use on the first GPU while a block runs, less what was in use before."""

    def __enter__(self):
        self.before, self.most, self.over = self.used(), 0, threading.Event()
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()
        self.taken = self.most - self.before if self.most else 0

    @staticmethod
    def used():
        told = output_of("nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits").split()
        return int(told[0]) * 2**20 if told and told[0].isdigit() else 0

    def run(self):
        while not self.over.wait(0.3):
            self.most = max(self.most, self.used())


# ---- bandwidth


def bench(session, *words):
    """The lines of gpu_bench; the first describes the device."""
    code, out, errors = session.run(session.program("gpu_bench"), session.backend, "small" if session.small else "full", *words)
    lines = [json.loads(line) for line in out.splitlines()]
    session.check(f"gpu_bench {' '.join(words)} runs", code == 0, "" if code == 0 else f"exit {code}: {errors.strip()[-400:]}")
    if lines and "device" in lines[0]:
        session.parts[session.part]["device"] = lines[0]["device"]
        session.parts[session.part]["libraries"] = lines[0]["libraries"]
    return [line for line in lines if "ms" in line]


def per_second(line):
    return line["bytes"] / line["ms"] * 1e3, line["flops"] / line["ms"] * 1e3


def run_bandwidth(session):
    """Each kernel beside the copy bandwidth and the matrix rate of the device."""
    lines = bench(session, "bf16")
    session.parts[session.part]["lines"] = lines
    copy = next((per_second(line)[0] for line in lines if line["name"] == "copy"), None)
    matrix = next((per_second(line)[1] for line in lines if line["name"] == "matrix" and line["pass"] == "forward"), None)
    for line in lines:
        moved, computed = per_second(line)
        what = f"{line['name']} {line['pass']}, {line['shape']}"
        if moved:
            target = None if line["name"] == "copy" else 0.9 if line["name"].startswith("adamw") else 0.85
            session.row(what, moved / 1e9, "GB/s", copy and copy / 1e9, copy and moved / copy, None if session.small else target)
        else:
            session.row(what, computed / 1e12, "TFLOP/s", matrix and matrix / 1e12, matrix and computed / matrix)


PARTS = {"primitives": (25, run_primitives), "kernels": (90, run_kernels), "cudnn": (40, run_cudnn), "train": (60, run_train), "gpt2": (60, run_gpt2), "bandwidth": (60, run_bandwidth),
         "peers": (175, peers), "sanitizer": (60, run_sanitizer)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="cuda", choices=["cuda", "emu"])
    parser.add_argument("--programs", type=pathlib.Path, action="append", default=[], help="folder of a bundle or a build; may come again")
    parser.add_argument("--out", type=pathlib.Path, help="folder of the result (default: tests/gpu/results, emu: build/gpu-results)")
    parser.add_argument("--seconds", type=float, default=TOTAL_SECONDS)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    args = parser.parse_args()
    unknown = [name for name in args.parts if name not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]}; there are {', '.join(PARTS)}")
    out = args.out or (ROOT / "build" / "gpu-results" if args.backend == "emu" else ROOT / "tests" / "gpu" / "results")
    with tempfile.TemporaryDirectory(prefix="espalier-gpu-") as scratch:
        session = Session(args.backend, [p.resolve() for p in args.programs], scratch, args.backend == "emu", args.seconds)
        print(f"libraries of GPUs in: {', '.join(gpu_library_folders()) or 'no folder but those of the loader'}")
        for name, (seconds, function) in PARTS.items():
            if not args.parts or name in args.parts:
                session.run_part(name, seconds, function)
        result = session.result()
    out.mkdir(parents=True, exist_ok=True)
    file = out / file_name(result)
    file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print_table(result)
    print(f"written: {file}")
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
