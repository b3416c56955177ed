#!/usr/bin/env python3
"""Negative controls of lint.py: every rule must find a planted violation, and leave a clean tree alone."""

import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import lint  # noqa: E402

BODY = "    x++;\n"
CLEAN = {
    "README.md": "A tree.\n",
    ".hidden": "",
    "src/core/a.h": "/* int f(int x) { TEXT } */\n#define F(x) { x }\n",
    "src/core/a.c": '#include "src/core/a.h"\n#include <stdio.h>\nint f(int x) {\n' + BODY * 100 + "}\n",
    "comm/comm.h": "struct s {\n    int a;\n};\n",
    "comm/mpi.c": '#include <mpi.h>\n#include "comm/comm.h"\nstatic const int t[] = {1, 2};\n',
    "kernels/cuda/state.h": "#include <cuda_runtime.h>\n",
    "comm/nccl.c": '#include <nccl.h>\n#include "kernels/cuda/state.h"\n',
    "tests/emu/runtime/e.cpp": "#include <nccl.h>\n#include <mpi.h>\n#include <cuda_runtime.h>\n",
    "io/h5.c": '#include <hdf5.h>\n#include "comm/comm.h"\n',
    "src/train/t.c": '#include "io/i.h"\n#include "src/core/a.h"\n',
    "io/i.h": "",
    "src/train/made.proto": "",
    "src/train/u.c": '#include "src/train/made.pb-c.h"\n',
}
SHORT = "int g{}(int x) {{\n    return x;\n}}\n"

# (what is planted, a part of the complaint)
PLANTED = [
    ({"src/core/b.c": '#include "comm/comm.h"\n'}, "src/core may not include"),
    ({"comm/transport.h": "", "io/b.c": '#include "comm/transport.h"\n'}, "io may not include"),
    ({"src/model/b.c": '#include "src/train/t.h"\n', "src/train/t.h": ""}, "src/model may not include"),
    ({"src/train/log/b.c": '#include "src/train/t.h"\n', "src/train/t.h": ""}, "src/train/log may not include"),
    ({"src/core/b.c": '#include "a.h"\n'}, "is not a path from the root"),
    ({"src/train/b.c": '#include "src/train/unmade.pb-c.h"\n'}, "is not a path from the root"),
    ({"src/train/b.c": "#include <mpi.h>\n"}, "<mpi.h> belongs to"),
    ({"io/shards.c": "#  include <hdf5.h>\n"}, "<hdf5.h> belongs to"),
    ({"comm/self.c": "#include <cuda_runtime.h>\n"}, "<cuda_runtime.h> belongs to"),
    ({"kernels/device_host.c": "#include <cublasLt.h>\n"}, "<cublasLt.h> belongs to"),
    ({"kernels/cuda/b.c": "#include <nccl.h>\n"}, "<nccl.h> belongs to"),
    ({"comm/self.c": '#include "kernels/cuda/state.h"\n'}, 'comm may not include "kernels/cuda/state.h"'),
    ({"comm/nccl.c": '#include "io/i.h"\n'}, 'comm may not include "io/i.h"'),
    ({"tests/emu/runtime/b.cpp": "static int f(int x) {\n" + BODY * 120 + "}\n"}, "b.cpp:1: function f has 122"),
    ({"src/core/b.c": "static int\nlong_one(int x,\n         int y) {\n" + BODY * 120 + "}\n"}, "b.c:1: function long_one has 124 lines"),
    ({"src/core/b.c": "int f(void) {\n" + BODY * 90 + "}\nint g(void) {\n" + BODY * 90 + "}\n"}, "more than 1 % of"),
    ({"kernels/cuda/b.cu": 'extern "C" {\nnamespace n {\n__global__ void k(int x) {\n' + BODY * 120 + "}\n}\n}\n"}, "b.cu:3: function k has 122"),
    ({"io/a.c": ""}, "there is a file of this name already"),
    ({"notes.txt": ""}, "does not belong into the root"),
    ({"lib/x.c": ""}, "does not belong into the root"),
    ({"src/core/b.c": "/* TO" + "DO: more */\n"}, "is left over"),
    ({"launch/b.sh": "cd /ho" + "me/someone/x\n"}, "the path of one machine"),
    ({"tests/b.c": 'open("/wo' + 'rk/x");\n'}, "the path of one machine"),
]


def problems_of(files):
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            path = pathlib.Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return lint.check_tree(folder)


def main():
    failures = []
    clean = dict(CLEAN, **{"src/core/many.c": "".join(SHORT.format(i) for i in range(150))})
    if problems_of(clean):
        failures.append(f"a clean tree is blamed: {problems_of(clean)}")
    for planted, complaint in PLANTED:
        base = CLEAN if "1 %" in complaint else clean
        found = problems_of(dict(base, **planted))
        if not any(complaint in p for p in found):
            failures.append(f"planted {sorted(planted)}, expected '{complaint}', got {found}")
    print("\n".join(failures) or f"{len(PLANTED)} planted violations found")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
