#!/usr/bin/env python3
"""Checks the house rules of the tree: who includes whom, lengths of functions, names, leftovers.

    lint.py [ROOT]      prints FILE:LINE: what is wrong; exit 1 if anything is

The rules are the tables below; why they are so is in src/DESIGN.md. Needs nothing but Python.
"""

import pathlib
import re
import subprocess
import sys

BELOW_TRAIN = ["src/core", "src/config", "src/model", "src/plan", "src/data", "src/optim", "src/eval", "comm", "kernels", "io"]

# What a folder may include: the link edges of CMakeLists.txt, and of src/train the order of its rooms. A name ending in .h stands for that header alone.
INCLUDES = {
    "src/core": ["src/core"],
    "src/config": ["src/core", "src/config"],
    "kernels": ["src/core", "kernels"],
    "comm": ["src/core", "comm"],
    "io": ["src/core", "io", "comm/comm.h"],
    "src/model": ["src/core", "src/config", "kernels", "src/model"],
    "src/plan": ["src/core", "src/config", "kernels", "src/model", "src/plan"],
    "src/data": ["src/core", "src/config", "src/data"],
    "src/optim": ["src/core", "src/config", "kernels", "src/optim"],
    "src/eval": ["src/core", "src/config", "kernels", "src/model", "src/plan", "src/eval"],
    "src/report": ["src/core", "io", "src/report"],
    "src/train/machine": [*BELOW_TRAIN, "src/train/machine"],
    "src/train/doctor": [*BELOW_TRAIN, "src/train/machine", "src/train/doctor"],
    "src/train/weights": [*BELOW_TRAIN, "src/train/weights"],
    "src/train/log": [*BELOW_TRAIN, "src/train/log"],
    "src/train/memory": [*BELOW_TRAIN, "src/train/feed", "src/train/score", "src/train/memory"],
    "src/train/health": [*BELOW_TRAIN, "src/train/memory", "src/train/log", "src/train/health"],
    "src/train/feed": [*BELOW_TRAIN, "src/train/feed"],
    "src/train/score": [*BELOW_TRAIN, "src/train/feed", "src/train/score"],
    "src/train": ["src", "comm", "kernels", "io"],
    "launch": ["src", "comm", "kernels", "io", "launch"],
    "tests": [""],
}

# Single files that reach further: parts of the backend libraries (kernels/cuda/CMakeLists.txt), not of the folder's own library.
FILE_INCLUDES = {"comm/nccl.c": ["kernels/cuda"]}

# Headers of other people's libraries that stay in few files: header pattern -> file pattern.
CONFINED = [
    (r"mpi\.h", r"comm/mpi[^/]*\.[ch]|tests/emu/.*"),
    (r"nccl[^/]*\.h", r"comm/nccl[^/]*\.[ch]|tests/emu/.*"),
    (r"(hdf5(_hl)?|H5\w+)\.h", r"io/h5\.c|io/tokens/tokens_h5\.c"),
    (r"(cuda|cublas|cudnn|nvml|curand)\w*\.h", r"kernels/cuda/.*|tests/emu/.*"),
]

ROOT_FILES = {"CMakeLists.txt", "CMakePresets.json", "README.md", "CHANGELOG.md", "LICENSE"}
ROOT_FOLDERS = {"src", "comm", "kernels", "io", "launch", "configs", "slurm", "tests"}
SHARED_NAMES = {"run.sh", "CMakeLists.txt", "README.md"}

MAX_FUNCTION, MAX_FUNCTION_P99 = 120, 80
CODE = {".c", ".h", ".cu", ".cuh", ".cpp", ".def"}
SCRIPTS = {".py", ".sh", ".cmake", ".sbatch"}
# Spelled in pieces, so that this file does not find itself.
LEFTOVERS = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|HA" + r"CK|stu" + r"b(?:bed|s)?)\b")
MACHINE_PATHS = re.compile(r"(?<![\w.$}~-])/(?:ho" + r"me|ro" + r"ot|wo" + r"rk|Us" + r"ers)/")


def files_of(root):
    """Files of the tree by path from its root: what git knows or would add, or all where there is no git."""
    try:
        listed = subprocess.run(["git", "-C", root, "ls-files", "-co", "--exclude-standard"], capture_output=True, text=True, check=True)
        names = listed.stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        names = [str(p.relative_to(root)) for p in root.rglob("*") if not re.match(r"(build|runs|\.git)", str(p.relative_to(root)))]
    return sorted(name for name in names if (root / name).is_file())


def text_of(root, name):
    return (root / name).read_text(encoding="utf-8", errors="replace")


def folder_of(name):
    return next((f for f in sorted(INCLUDES, key=len, reverse=True) if name.startswith(f + "/")), None)


def without_comments(text):
    """Comments and the insides of literals become blanks; lines stay where they are."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
    return pattern.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)


def without_preprocessor(text):
    return re.sub(r"^[ \t]*#(?:[^\n\\]|\\\n|\\.)*", lambda m: re.sub(r"[^\n]", " ", m.group()), text, flags=re.M)


def functions(text):
    """(name, first line, lines) of every function: a brace behind a parameter list, outside all others but those of a namespace."""
    code = without_preprocessor(without_comments(text))
    found, stack, start = [], [], 0  # stack: of every open brace None, or (name, begin) of a function
    for m in re.finditer(r"[{};]", code):
        outside = all(opened == "namespace" for opened in stack)
        if m.group() == "{":
            head = code[start:m.start()]
            match = re.search(r"([A-Za-z_]\w*)\s*\(.*\)\s*(?:__attribute__\s*\(.*\)\s*)?$", head, re.S) if "=" not in head else None
            if outside and re.fullmatch(r"\s*(extern|(inline\s+)?namespace(\s+[\w:]+)?)\s*", head):
                stack.append("namespace")
            else:
                stack.append((match.group(1), start + len(head) - len(head.lstrip())) if outside and match else None)
        elif m.group() == "}" and stack:
            opened = stack.pop()
            if isinstance(opened, tuple):
                found.append((opened[0], code.count("\n", 0, opened[1]) + 1, code.count("\n", opened[1], m.end()) + 1))
        if all(opened == "namespace" for opened in stack):
            start = m.end()
    return found


def allowed(name, target):
    rules = INCLUDES[folder_of(name)] + FILE_INCLUDES.get(name, [])
    return any(target == r or r == "" or (not r.endswith(".h") and target.startswith(r + "/")) for r in rules)


def exists(root, target):
    """Whether a header is there; those of protobuf-c are made from their .proto while building."""
    return (root / target).is_file() or (target.endswith(".pb-c.h") and (root / target.replace(".pb-c.h", ".proto")).is_file())


def check_include(root, name, target, quoted):
    if quoted and not exists(root, target):
        return f'"{target}" is not a path from the root of the tree'
    if quoted and not allowed(name, target):
        return f'{folder_of(name)} may not include "{target}"'
    if not quoted:
        for header, where in CONFINED:
            if re.fullmatch(header, target) and not re.fullmatch(where, name):
                return f"<{target}> belongs to {where} alone"
    return None


def check_includes(root, names):
    for name in names:
        if pathlib.Path(name).suffix not in CODE or folder_of(name) is None:
            continue
        for number, line in enumerate(text_of(root, name).splitlines(), 1):
            m = re.match(r'\s*#\s*include\s*(["<])([^">]+)[">]', line)
            problem = m and check_include(root, name, m.group(2), m.group(1) == '"')
            if problem:
                yield f"{name}:{number}: {problem}"


def check_functions(root, names):
    lengths = []
    for name in names:
        if pathlib.Path(name).suffix not in CODE - {".def"}:
            continue
        for function, line, length in functions(text_of(root, name)):
            lengths.append((length, f"{name}:{line}: {function}"))
            if length > MAX_FUNCTION:
                yield f"{name}:{line}: function {function} has {length} lines, at most {MAX_FUNCTION} are allowed"
    lengths.sort()
    if lengths and lengths[len(lengths) * 99 // 100][0] > MAX_FUNCTION_P99:
        longest = ", ".join(f"{where} ({length})" for length, where in lengths[-(len(lengths) // 100 + 1):])
        yield f"more than 1 % of {len(lengths)} functions are over {MAX_FUNCTION_P99} lines: {longest}"


def check_names(root, names):
    seen = {}
    for name in names:
        path = pathlib.Path(name)
        if path.name in SHARED_NAMES or path.suffix not in CODE | SCRIPTS:
            continue
        if path.name in seen:
            yield f"{name}:1: there is a file of this name already: {seen[path.name]}"
        seen.setdefault(path.name, name)


def check_root(root, names):
    for name in names:
        top = name.split("/")[0]
        is_file = top == name
        if not top.startswith(".") and top not in (ROOT_FILES if is_file else ROOT_FOLDERS):
            yield f"{name}:1: {top} does not belong into the root of the tree"


def check_leftovers(root, names):
    for name in names:
        if pathlib.Path(name).suffix not in CODE | SCRIPTS | {".md", ".txt", ".yaml", ".json"} or name.startswith("configs/data/"):
            continue
        for number, line in enumerate(text_of(root, name).splitlines(), 1):
            if LEFTOVERS.search(line):
                yield f"{name}:{number}: '{LEFTOVERS.search(line).group()}' is left over"
            if MACHINE_PATHS.search(line):
                yield f"{name}:{number}: the path of one machine: {line.strip()[:80]}"


def check_tree(root):
    root = pathlib.Path(root)
    names = files_of(root)
    return [p for check in (check_includes, check_functions, check_names, check_root, check_leftovers) for p in check(root, names)]


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parents[2]
    problems = check_tree(root)
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
