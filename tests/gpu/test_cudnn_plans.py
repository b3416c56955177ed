#!/usr/bin/env python3
"""cuDNN itself, without a GPU: whether it makes plans for the shapes that models have, for an H200 that is described to it, and whether
kernels/cuda/cudnn_api.h says what its header says.

    test_cudnn_plans.py FOLDER     FOLDER: nvidia/cudnn of the wheel nvidia-cudnn-cu13 (launch/install_deps.sh --cudnn)

Needs gcc and cuda.h. cuDNN loads the driver's library, which is not here: one with the functions of cuda.h that finds no device stands in for it, in
a folder of its own that only this test sees."""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLKIT = pathlib.Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "include"
H200 = {"deviceVer": 900, "driverVer": 13000, "cudaDeviceId": 0, "maxGridSize": [2147483647, 65535, 65535], "maxBlockSize": [1024, 1024, 64],
        "regsPerBlock": 65536, "multiProcessorCount": 132, "smCountOrigin": 0, "warpSize": 32, "maxSharedMemoryPerBlock": 49152,
        "maxSharedMemoryPerBlockOptin": 232448, "oversizedSharedMemoryPerBlock": 0, "reservedSharedMemoryPerBlock": 1024, "maxRegistersPerSM": 65536,
        "maxCtasPerSM": 32, "maxThreadsPerBlock": 1024, "maxThreadsPerSM": 2048, "pciDeviceId": 0, "isTccDriver": 0, "supportCoopLaunch": 1,
        "smClockRateKHz": 1980000, "memClockRateKHz": 3201000, "memoryBusWidth": 6144, "l2CacheSize": 62914560, "totalGlobalMem": 150754820096,
        "deviceName": "NVIDIA H200"}
A100 = {**H200, "deviceVer": 800, "multiProcessorCount": 108, "maxSharedMemoryPerBlockOptin": 166912, "deviceName": "NVIDIA A100"}
# name: rows, segments, longest, heads, heads of keys, size of a head, causal
SHAPES = {"GPT-2 124M, 32 windows of 1,024": (32768, 64, 1024, 12, 12, 64, 1),
          "GPT-2 124M, up to 128 documents": (32768, 128, 1024, 12, 12, 64, 1),
          "Llama-3-8B, one of 8,192": (8192, 2, 8192, 32, 8, 128, 1),
          "TinyLlama, 8 of 2,048": (16384, 16, 2048, 32, 4, 64, 1),
          "an encoder, 256 of 128": (32768, 512, 128, 12, 12, 64, 0),
          "heads of 96": (8192, 8, 2048, 16, 16, 96, 1)}


def stand_in_driver(folder):
    """libcuda.so.1: every function finds no device, but loading code succeeds, so that a plan can be made and never run."""
    text = (TOOLKIT / "cuda.h").read_text(encoding="utf-8")
    names = set(re.findall(r"\b(cu[A-Z]\w*)\(", text)) | set(re.findall(r"^ *#define cu\w+ +(cu\w+)", text, re.M))
    lines = ["typedef int R;"]
    for name in sorted(names):
        if name in ("cuGetErrorString", "cuGetErrorName"):
            lines.append(f'R {name}(int e, const char **s) {{ *s = "no device"; return 0; }}')
        elif name == "cuDriverGetVersion":
            lines.append("R cuDriverGetVersion(int *v) { *v = 13000; return 0; }")
        elif re.match(r"cu(LibraryLoad|LibraryGetKernel|KernelGetFunction|ModuleLoad|ModuleGetFunction)", name):
            lines.append(f"R {name}(void **p) {{ if (p) *p = (void *)0x1000; return 0; }}")
        else:
            lines.append(f"R {name}(void) {{ return {0 if re.match(r'cu(Library|Kernel|Module|Func|TensorMap)', name) else 100}; }}")
    (folder / "driver.c").write_text("\n".join(lines), encoding="utf-8")
    subprocess.run(["gcc", "-shared", "-fPIC", "-w", "-Wl,-soname,libcuda.so.1", "-o", folder / "libcuda.so.1", folder / "driver.c"], check=True)


def differing_names(folder, cudnn, changed=None):
    """Names of cudnn_api.h whose numbers are others in cuDNN's header; `changed` plants one."""
    text = (ROOT / "kernels/cuda/cudnn_api.h").read_text(encoding="utf-8")
    found = {name: int(value) for name, value in re.findall(r"^ +(CUDNN_\w+) = (\d+)", text, re.M)}
    assert len(found) > 80
    if changed:
        found[changed] += 1
    lines = ["#include <cudnn.h>", "#include <stdio.h>", "int main(void) {"]
    lines += [f'if ((int){name} != {value}) puts("{name}");' for name, value in found.items()]
    source, program = folder / "names.c", folder / "names"
    source.write_text("\n".join(lines + ["return 0; }"]), encoding="utf-8")
    subprocess.run(["gcc", "-w", f"-I{cudnn}/include", f"-I{TOOLKIT}", "-o", program, source], check=True)
    return subprocess.run([program], capture_output=True, text=True, check=True).stdout.split()


def plans(folder, cudnn, device, shape):
    """The two lines of the probe: forward, backward."""
    described = folder / "device.json"
    described.write_text(json.dumps(device), encoding="utf-8")
    libraries = {**os.environ, "LD_LIBRARY_PATH": f"{folder}:{cudnn}/lib"}
    run = subprocess.run([folder / "probe", described, *map(str, shape)], env=libraries, capture_output=True, text=True, timeout=120, check=False)
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert run.returncode == 0 and lines[0]["version"] >= 92800, f"exit {run.returncode}: {run.stdout} {run.stderr}"
    return lines[1:]


def check(folder, cudnn):
    assert not differing_names(folder, cudnn), f"cudnn_api.h: {differing_names(folder, cudnn)}"
    assert differing_names(folder, cudnn, "CUDNN_KNOB_TYPE_STAGES") == ["CUDNN_KNOB_TYPE_STAGES"]
    stand_in_driver(folder)
    subprocess.run(["gcc", "-std=gnu17", "-O1", f"-I{ROOT}", '-DESPL_CUDNN_NAME="libcudnn.so.9"', "-o", folder / "probe", ROOT / "tests/gpu/cudnn_probe.c",
                    ROOT / "kernels/cuda/cudnn_plans.c", "-ldl", "-lm"], check=True)
    for name, shape in SHAPES.items():
        for line in plans(folder, cudnn, H200, shape):
            assert line["made"], f"{name}: {line}"
            assert line["work_bytes"] <= line["planned_bytes"], f"{name}: work is planned too small: {line}"
            print(f"{name}: {line['pass']} by engine {line['engine']}, {line['work_bytes'] / 2**20:.1f} MiB of work, {line['planned_bytes'] / 2**20:.1f} planned")
    forward, backward = plans(folder, cudnn, A100, SHAPES["GPT-2 124M, 32 windows of 1,024"])
    assert forward["made"] and not backward["made"] and "no engine for backward" in backward["why"], backward
    forward, backward = plans(folder, cudnn, H200, (8192, 2, 8192, 32, 8, 320, 1))
    assert not backward["made"], backward


def main():
    cudnn = pathlib.Path(sys.argv[1]).resolve()
    if not (cudnn / "lib" / "libcudnn.so.9").exists() or not (TOOLKIT / "cuda.h").exists():
        print(f"no {cudnn}/lib/libcudnn.so.9 (launch/install_deps.sh --cudnn build/cudnn brings it), or no {TOOLKIT}/cuda.h")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        check(pathlib.Path(folder), cudnn)
    print("ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
