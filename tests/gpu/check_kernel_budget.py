#!/usr/bin/env python3
"""Tests of kernel_budget.py itself: the blocks it computes are those of NVIDIA's cuda_occupancy.h, and each kind of damage is found, a seeded
__launch_bounds__ that makes the compiler spill among them. Needs nvcc, cuobjdump and nvdisasm; exit 77 without."""

import copy
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import kernel_budget as budget

ROOT = pathlib.Path(__file__).resolve().parents[2]
GRID = [(registers, threads, shared) for registers in (16, 24, 32, 33, 40, 64, 65, 96, 128, 168, 232, 255) for threads in (32, 64, 96, 128, 160, 256, 384, 512, 1024)
        for shared in (0, 100, 1024, 4097, 16384, 40960, 65536, 100000, 160000)]
OCCUPANCY = """
#include <cuda_occupancy.h>
#include <cstdio>
int main() {
    int registers, threads, shared, major, multiprocessor, optin;
    while (scanf("%d %d %d %d %d %d", &registers, &threads, &shared, &major, &multiprocessor, &optin) == 6) {
        cudaOccDeviceProp device;
        device.computeMajor = major, device.computeMinor = 0, device.maxThreadsPerBlock = 1024, device.maxThreadsPerMultiprocessor = 2048;
        device.regsPerBlock = device.regsPerMultiprocessor = 65536, device.warpSize = 32, device.sharedMemPerBlock = 49152;
        device.sharedMemPerMultiprocessor = multiprocessor, device.numSms = 108, device.sharedMemPerBlockOptin = optin, device.reservedSharedMemPerBlock = 1024;
        cudaOccFuncAttributes kernel;
        kernel.maxThreadsPerBlock = 1024, kernel.numRegs = registers, kernel.sharedSizeBytes = 0, kernel.partitionedGCConfig = PARTITIONED_GC_OFF;
        kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN, kernel.maxDynamicSharedSizeBytes = optin, kernel.numBlockBarriers = 1;
        cudaOccDeviceState state;
        cudaOccResult result;
        cudaOccError error = cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &kernel, &state, threads, shared);
        printf("%d\\n", error == CUDA_OCC_SUCCESS ? result.activeBlocksPerMultiprocessor : -1);
    }
}
"""
# A kernel that holds 96 floats a thread: at home in 255 registers, not in the 32 that 2048 threads leave.
KERNEL = """
#include "kernels/cuda/dialect.cuh"
extern "C" __global__ void __launch_bounds__(BOUNDS) seeded(float *x, int n) {
    float held[96];
#pragma unroll
    for (int i = 0; i < 96; i++)
        held[i] = x[threadIdx.x + i * n];
#pragma unroll 1
    for (int k = 0; k < n; k++)
#pragma unroll
        for (int i = 0; i < 96; i++)
            held[i] = held[i] * held[(i + 1) % 96] + x[k];
#pragma unroll
    for (int i = 0; i < 96; i++)
        ADD(x + threadIdx.x + i * n, held[i]);
}
"""
EMPTY = {"launches": [], "rules": [], "reasons": [], "kernels": {}}


def compiled(folder, name, bounds="128", add="*(a) = (b)"):
    source = folder / f"{name}.cu"
    source.write_text(f"#define BOUNDS {bounds}\n#define ADD(a, b) {add}\n" + KERNEL, encoding="utf-8")
    targets = ["-gencode=arch=compute_80,code=sm_80", "-gencode=arch=compute_90a,code=sm_90a", "-gencode=arch=compute_90,code=compute_90"]
    subprocess.run(["nvcc", "-std=c++17", "-O3", f"-I{ROOT}", *targets, "-c", source, "-o", folder / f"{name}.o"], check=True)
    found = budget.read_objects([folder / f"{name}.o"])
    return {"seeded.cu": found[name]}


def occupancy_is_nvidias(folder):
    (folder / "occupancy.cpp").write_text(OCCUPANCY, encoding="utf-8")
    subprocess.run(["nvcc", "-O1", "-o", folder / "occupancy", folder / "occupancy.cpp"], check=True)
    asked = [(arch, *row) for arch in budget.ARCHITECTURES for row in GRID]
    limits = {arch: (arch[3], a["shared"], a["shared"] - a["reserved"]) for arch, a in budget.ARCHITECTURES.items()}
    lines = "".join(" ".join(map(str, (*row, *limits[arch]))) + "\n" for arch, *row in asked)
    out = subprocess.run([folder / "occupancy"], input=lines, capture_output=True, text=True, check=True).stdout.split()
    wrong = [(case, int(theirs)) for case, theirs in zip(asked, out, strict=True) if budget.blocks_per_multiprocessor(*case)[0] != max(int(theirs), 0)]
    return f"{len(wrong)} of {len(asked)} occupancies differ, the first (here, theirs): {wrong[0]}" if wrong else None


def launches_are_the_sources(table):
    """The shared memory that rows of `launches` name as constants of the sources is what these say; a wrong number must be found."""
    files = sorted({row["file"] for row in table["launches"] if "is" in row})
    include = [f"-I{ROOT}/tests/emu/include", f"-I{ROOT}", "-I/usr/lib/x86_64-linux-gnu/openmpi/include"]
    for file in files:
        for wrong in (0, 16):
            rows = [row for row in table["launches"] if row["file"] == file and "is" in row]
            text = f'#include "kernels/cuda/{file}"\n' + "".join(f'static_assert({row["is"]} == {row["shared"] + wrong});\n' for row in rows)
            out = subprocess.run(["g++", "-std=c++17", "-fsyntax-only", "-w", *include, "-x", "c++", "-"], input=text, capture_output=True, text=True, check=False)
            if wrong and out.stderr.count("static assertion failed") != len(rows):
                yield f"{file}: wrong numbers in `launches` are not found: {out.stderr[:300]}"
            if not wrong and out.returncode != 0:
                yield f"{file}: `launches` of the table and the source differ: " + "; ".join(line for line in out.stderr.splitlines() if "error" in line)[:600]


def damages(found, table):
    """What each damage to a table or a kernel that fit must be told as: (words, table, found)."""
    def changed(what, change):
        other = copy.deepcopy(what)
        change(other)
        return other

    row = ("kernels", "seeded.cu", "seeded")
    yield "has no row", changed(table, lambda t: t[row[0]][row[1]].clear()), found
    yield "is no kernel", changed(table, lambda t: t[row[0]][row[1]].update(other={})), found
    yield "is no kernel", changed(table, lambda t: t[row[0]].update({"gone.cu": {"gone": {}}})), found
    yield "registers", changed(table, lambda t: t[row[0]][row[1]][row[2]]["sm_90a"].update(registers=8)), found
    yield "shared", table, changed(found, lambda f: f["seeded.cu"]["seeded"]["sm_80"].update(static=4096))
    yield "blocks fit", changed(table, lambda t: t[row[0]][row[1]][row[2]]["sm_80"].update(blocks=31)), found
    yield "no HMMA", changed(table, lambda t: t["rules"].append({"file": "*", "kernel": "seed*", "has": ["HMMA"]})), found
    yield "no LDSM", changed(table, lambda t: t[row[0]][row[1]][row[2]]["has"].append("LDSM")), found
    yield "fits no kernel", changed(table, lambda t: t["rules"].append({"file": "*", "kernel": "absent", "has": []})), found
    yield "no row of `launches` says how much", table, changed(found, lambda f: f["seeded.cu"]["seeded"].update(dynamic=True))
    yield "no __launch_bounds__", table, changed(found, lambda f: f["seeded.cu"]["seeded"]["sm_80"].update(threads=None))


def main():
    if not shutil.which("nvcc") or budget.missing_tools():
        print("SKIP: nvcc, cuobjdump or nvdisasm not found")
        return 77
    failures = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        failures.append(occupancy_is_nvidias(folder))
        failures += launches_are_the_sources(json.loads((budget.HERE / "budget.json").read_text(encoding="utf-8")))
        good = compiled(folder, "good")
        table = budget.updated(EMPTY, good)
        failures += [f"a kernel that fits: {line}" for line in budget.judge(table, good)]
        cases = list(damages(good, table))
        cases.append(("of stack", table, compiled(folder, "spilling", bounds="1024, 2")))
        cases.append(("float atomics", table, compiled(folder, "atomic", add="atomicAdd(a, b)")))
        for words, other_table, other in cases:
            if not any(words in line for line in budget.judge(other_table, other)):
                failures.append(f"damage that should be told as '{words}' was not found")
    failures = [line for line in failures if line]
    print("\n".join(failures) if failures else f"{len(cases)} damages found; {2 * len(GRID)} occupancies as NVIDIA's header has them")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
