#!/usr/bin/env python3
"""Holds the CUDA kernels to a table: what the compiler gave each of them, without a GPU.

    kernel_budget.py [--update] [--table budget.json] OBJECT.o ...

The objects are those of kernels/cuda/*.cu, as nvcc made them for sm_80, sm_90a and PTX. Read from them with cuobjdump and nvdisasm (found on
PATH): registers, stack, shared memory and launch bounds of each kernel, and its instructions. From these follow the blocks that one
multiprocessor holds (NVIDIA's cuda_occupancy.h; check_kernel_budget.py compares). --update writes the measured rows; `launches`, `rules`
and `reasons` of the table are written by people and stay.

A row fails when the kernel takes more registers than its row (in steps of 8, as the hardware hands them out), more shared memory, fewer
blocks fit, an instruction of `has` is gone, or one of `never` is there without a reason. A kernel without a row fails, and a row without a
kernel. Exit 0: all hold; 1: not; 77: the tools are not here."""

import argparse
import fnmatch
import json
import pathlib
import re
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ARCHITECTURES = {  # bytes of shared memory of a multiprocessor, and what the system keeps of each block
    "sm_80": {"shared": 164 * 1024, "reserved": 1024},
    "sm_90a": {"shared": 228 * 1024, "reserved": 1024},
}
REGISTERS, WARPS, BLOCKS, WARP = 65536, 64, 32, 32
REGISTER_STEP, WARP_STEP = 256, 4  # registers come to a warp by 256, warps to the four parts of a multiprocessor
SHARED_STEP = 128
INSTRUCTIONS = {
    "HMMA": r"HMMA\b",
    "LDSM": r"LDSM\b",
    "LDGSTS": r"LDGSTS\b",
    "LDG.128": r"LDG\.\S*\b128\b",
    "STG.128": r"STG\.\S*\b128\b",
    "SHFL": r"SHFL\b",
    "BAR": r"BAR\b",
    "local memory": r"(LDL|STL)\b",
    "float atomics": r"(RED|REDG|ATOM|ATOMG|ATOMS)\.\S*\bF(16|32|64)\S*",
}
NEVER = ("local memory", "float atomics")


def up(value, step):
    return -(-value // step) * step


def blocks_per_multiprocessor(arch, registers, threads, shared):
    """Resident blocks, and what limits them; the rules of cuda_occupancy.h for 8.0 and 9.0."""
    limits = ARCHITECTURES[arch]
    warps = up(threads, WARP) // WARP
    by = {"warps": WARPS // warps, "blocks": BLOCKS}
    if registers:
        per_part = REGISTERS // WARP_STEP // up(registers * WARP, REGISTER_STEP)  # warps that a quarter of the registers holds
        by["registers"] = per_part * WARP_STEP // warps
    by["shared"] = limits["shared"] // up(shared + limits["reserved"], SHARED_STEP)
    limit = min(by, key=by.get)
    return by[limit], limit


# ---- What is in the objects.


def tool(name, *arguments):
    out = subprocess.run([name, *map(str, arguments)], capture_output=True, text=True, check=False)
    if out.returncode != 0:
        sys.exit(f"{name} {' '.join(map(str, arguments))} ended with {out.returncode}: {out.stderr.strip()}")
    return out.stdout


def readable(symbols):
    """Symbol -> name with template arguments, without the rest of the signature."""
    lines = subprocess.run(["c++filt"], input="\n".join(symbols), capture_output=True, text=True, check=True).stdout.splitlines()
    names = {}
    for symbol, line in zip(symbols, lines):
        line = line.replace("(anonymous namespace)::", "").removeprefix("void ")
        depth, end = 0, len(line)
        for at, char in enumerate(line):
            depth += {"<": 1, ">": -1}.get(char, 0)
            if char == "(" and depth == 0:
                end = at
                break
        names[symbol] = re.sub(r"\([a-z ]+\)(?=\d)", "", line[:end]).replace("__nv_bfloat16", "bf16")
    return names


def sections(text, start):
    """(match, following text) of every place where `start` matches."""
    found = list(re.finditer(start, text, re.M))
    return [(m, text[m.end():after.start() if after else None]) for m, after in zip(found, found[1:] + [None])]


def read_resources(file, arch):
    """Symbol -> registers, stack, static shared memory. On sm_90 the KiB of the system is counted in, where a kernel has any."""
    found = {}
    for m, body in sections(tool("cuobjdump", "-res-usage", "-arch", arch, file), r"^ Function (\S+):"):
        used = {key: int(value) for key, value in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", body)}
        system = ARCHITECTURES[arch]["reserved"] if arch.startswith("sm_9") else 0
        found[m[1]] = {"registers": used["REG"], "stack": used["STACK"] + used["LOCAL"], "static": max(used["SHARED"] - system, 0)}
    return found


def read_bounds(file, arch):
    """Symbol -> threads of its __launch_bounds__."""
    elf = tool("cuobjdump", "-elf", "-arch", arch, file)
    found = {}
    for m, body in sections(elf, r"^\.nv\.info\.(\S+)$"):
        bounds = re.search(r"EIATTR_(?:MAX_THREADS|REQNTID)\n.*\n\s*Value:\s*(0x\w+) (0x\w+) (0x\w+)", body)
        if bounds:
            x, y, z = (int(v, 16) for v in bounds.groups())
            found[m[1]] = x * y * z
    return found


def read_instructions(file, arch):
    """Symbol -> class of instruction -> how many."""
    found = {}
    for m, body in sections(tool("cuobjdump", "-sass", "-arch", arch, file), r"^\s*Function : (\S+)$"):
        words = re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]+)", body)
        found[m[1]] = {name: sum(bool(re.match(pattern, w)) for w in words) for name, pattern in INSTRUCTIONS.items()}
    return found


def read_dynamic(file):
    """Symbols that use dynamic shared memory, by the PTX."""
    entries = sections(tool("cuobjdump", "-ptx", file), r"\.entry (\w+)\(")
    return {m[1] for m, body in entries if "espl_dynamic_shared" in body}


def read_objects(files):
    """File -> kernel -> what was found, an entry for each architecture."""
    found = {}
    for file in files:
        source = pathlib.Path(file).name.removesuffix(".o").removesuffix(".obj")
        dynamic = read_dynamic(file)
        for arch in ARCHITECTURES:
            resources, bounds, instructions = read_resources(file, arch), read_bounds(file, arch), read_instructions(file, arch)
            names = readable(list(resources))
            for symbol, used in resources.items():
                kernel = found.setdefault(source, {}).setdefault(names[symbol], {"dynamic": symbol in dynamic})
                kernel[arch] = {**used, "threads": bounds.get(symbol), "instructions": instructions[symbol]}
    return found


# ---- The table.


def launch_of(table, source, name, kernel, arch):
    """(threads, dynamic shared memory) a block; None where nobody wrote it down."""
    shared = None if kernel["dynamic"] else 0
    threads = kernel[arch]["threads"]
    for row in table["launches"]:
        if fnmatch.fnmatchcase(source, row["file"]) and fnmatch.fnmatchcase(name, row["kernel"]):
            shared = row.get("shared", shared) if kernel["dynamic"] else shared
            threads = row.get("threads", threads)
            break
    return threads, shared


def measured(kernel, arch, threads, shared):
    """What a row of the table says of an architecture."""
    used = kernel[arch]
    blocks, limit = blocks_per_multiprocessor(arch, used["registers"], threads, used["static"] + shared)
    return {"registers": up(used["registers"], 8), "shared": used["static"] + shared, "blocks": blocks, "limit": limit}


def has_of(kernel):
    return [name for name in INSTRUCTIONS if name not in NEVER and all(kernel[arch]["instructions"][name] for arch in ARCHITECTURES)]


def reasons_of(table, source, name):
    return [what for row in table["reasons"] if fnmatch.fnmatchcase(source, row["file"]) and fnmatch.fnmatchcase(name, row["kernel"])
            for what in row["allows"]]


def judge_occupancy(table, source, name, kernel, want, arch):
    threads, shared = launch_of(table, source, name, kernel, arch)
    if threads is None:
        return [f"{arch}: has no __launch_bounds__, and no row of `launches` names its threads"]
    if shared is None:
        return [f"{arch}: uses dynamic shared memory, and no row of `launches` says how much"]
    found = measured(kernel, arch, threads, shared)
    wrong = [f"{arch}: {key} {found[key]}, the row allows {want.get(key)}" for key in ("registers", "shared") if found[key] > want.get(key, -1)]
    if found["blocks"] < want.get("blocks", BLOCKS + 1):
        wrong.append(f"{arch}: {found['blocks']} blocks fit (limit: {found['limit']}), the row wants {want.get('blocks')}")
    return wrong


def judge_instructions(table, source, name, kernel, row, arch):
    counts, allowed, wrong = kernel[arch]["instructions"], reasons_of(table, source, name), []
    if kernel[arch]["stack"] and "local memory" not in allowed:
        wrong.append(f"{arch}: {kernel[arch]['stack']} bytes of stack: spilled registers, or an array indexed at run time")
    wrong += [f"{arch}: {counts[what]} of {what}" for what in NEVER if counts[what] and what not in allowed]
    needed = set(row.get("has", []))
    for rule in table["rules"]:
        if fnmatch.fnmatchcase(source, rule["file"]) and fnmatch.fnmatchcase(name, rule["kernel"]):
            needed |= set(rule["has"])
    return wrong + [f"{arch}: no {what}" for what in sorted(needed) if not counts[what]]


def judge(table, found):
    """What is wrong, one line each."""
    wrong = []
    for source, kernels in found.items():
        rows = table["kernels"].get(source, {})
        for name, kernel in kernels.items():
            if name not in rows:
                wrong.append(f"{source}: {name} has no row")
                continue
            for arch in ARCHITECTURES:
                whys = judge_occupancy(table, source, name, kernel, rows[name].get(arch, {}), arch)
                whys += judge_instructions(table, source, name, kernel, rows[name], arch)
                wrong += [f"{source}: {name}: {why}" for why in whys]
    for source, rows in table["kernels"].items():
        wrong += [f"{source}: {name} has a row and is no kernel" for name in rows if name not in found.get(source, {})]
    for rule in table["rules"]:
        if not any(fnmatch.fnmatchcase(s, rule["file"]) and fnmatch.fnmatchcase(n, rule["kernel"]) for s, ks in found.items() for n in ks):
            wrong.append(f"the rule {rule} fits no kernel")
    return wrong


def updated(table, found):
    rows = {}
    for source, kernels in sorted(found.items()):
        for name, kernel in sorted(kernels.items()):
            row = rows.setdefault(source, {}).setdefault(name, {})
            for arch in ARCHITECTURES:
                threads, shared = launch_of(table, source, name, kernel, arch)
                if threads is not None and shared is not None:
                    row[arch] = measured(kernel, arch, threads, shared)
            row["has"] = has_of(kernel)
    return {**table, "kernels": rows}


def text_of(table):
    """JSON with a line a row, so that a change reads as one."""
    def lines(rows):
        return ",\n".join("    " + json.dumps(row) for row in rows)

    files = []
    for source, rows in table["kernels"].items():
        files.append(f"    {json.dumps(source)}: {{\n" + ",\n".join(f"      {json.dumps(n)}: {json.dumps(r)}" for n, r in rows.items()) + "\n    }")
    parts = [f'  "{key}": [\n{lines(table[key])}\n  ]' if table[key] else f'  "{key}": []' for key in ("launches", "rules", "reasons")]
    return "{\n" + ",\n".join(parts + ['  "kernels": {\n' + ",\n".join(files) + "\n  }"]) + "\n}\n"


def print_table(table, found):
    print(f"{'kernel':58} {'arch':7} {'regs':>4} {'stack':>5} {'shared':>6} {'threads':>7} {'blocks':>6}  limit")
    for source, kernels in sorted(found.items()):
        for name, kernel in sorted(kernels.items()):
            for arch in ARCHITECTURES:
                threads, shared = launch_of(table, source, name, kernel, arch)
                if threads and shared is not None:
                    row = measured(kernel, arch, threads, shared)
                    print(f"{source[:-3] + ' ' + name:58} {arch:7} {kernel[arch]['registers']:4} {kernel[arch]['stack']:5} {row['shared']:6} {threads:7} {row['blocks']:6}  {row['limit']}")


def missing_tools():
    return [name for name in ("cuobjdump", "nvdisasm", "c++filt") if not shutil.which(name)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--table", type=pathlib.Path, default=HERE / "budget.json")
    parser.add_argument("objects", nargs="+", type=pathlib.Path)
    args = parser.parse_args()
    if missing_tools():
        print(f"SKIP: {', '.join(missing_tools())} not found")
        return 77
    table, found = json.loads(args.table.read_text(encoding="utf-8")), read_objects(args.objects)
    print_table(table, found)
    if args.update:
        table = updated(table, found)
        args.table.write_text(text_of(table), encoding="utf-8")
    wrong = judge(table, found)
    print("\n".join(wrong) if wrong else f"{sum(map(len, found.values()))} kernels hold their rows")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
