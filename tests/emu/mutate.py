#!/usr/bin/env python3
"""A test of the tests: kernels, and what puts them in order, with a mistake put in must fail them.

    mutate.py BUILD [--all] [--only TEXT]    BUILD: a release build folder (Ninja) with espalier, both emulated backends and the tests

Each mutation is a row of the table below. The file it changes is compiled into a copy of the emulated backend, in the build that must see
the mistake: `fast` by wrong numbers or a fault, `race` by the checker of accesses; or into a copy of the program, `whole`, which the
end-to-end tests run, or of a unit test on two ranks, `ranks`. Without --all only the rows marked quick. First the same is done with nothing
changed, which must pass. Exit 1 when a mutation is not caught or its text is not in the file exactly once.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDERS = [ROOT / "kernels" / "cuda", ROOT / "src" / "train", ROOT / "src" / "train" / "memory", ROOT / "src" / "model", ROOT / "comm"]
TARGETS = {"fast": "espalier_emu", "race": "espalier_emu_race", "whole": "espalier", "ranks": "test_gathers"}
ARCHIVES = ("espl_train", "espl_model", "espl_comm")  # what is changed of a program: its object comes before the archive that holds the true one
UNCHANGED = {"fast": ("qkv.cu", ["test_ops_emu", "short"]), "race": ("qkv.cu", ["test_ops_emu", "short"]), "whole": ("step.c", ["snapshots_under_way"]),
             "ranks": ("memory.c", ["test_gathers"])}
LIMIT_S = 480  # a mistake that ends in no result is not caught: the tests may just be slow
LATE = (124, 137)  # of tests/mpirun.sh, when it has ended a job
QUICK = True

# The test program that exercises a file, or, of `whole`, the case of test_emu.py; the file to compile for a header.
TESTS = {
    "resnorm.cu": ["test_ops_emu", "resnorm"],
    "embed.cu": ["test_ops_emu", "embed"],
    "key_sort.cu": ["test_ops_emu", "embed"],
    "pool.cu": ["test_ops_emu", "embed"],
    "prefix.cu": ["test_ops_emu", "embed"],
    "expand.cu": ["test_ops_emu", "qkv"],
    "glu.cu": ["test_ops_emu", "act"],
    "linear_xent.cu": ["test_ops_emu", "xent"],
    "qkv.cu": ["test_ops_emu", "qkv"],
    "mlp_lt.c": ["test_ops_emu", "mlp"],
    "attention_forward.cu": ["test_ops_emu", "attention"],
    "attention_backward.cu": ["test_ops_emu", "attention"],
    "attention_bias.cu": ["test_ops_emu", "attention"],
    "attention_cached.cu": ["test_ops_emu", "cross"],
    "update.cu": ["test_update_emu"],
    "adafactor.cu": ["test_whole_rules_emu"],
    "muon.cu": ["test_whole_rules_emu"],
    "device_batch.c": ["test_device_emu"],
    "device_fetch.c": ["test_device_emu"],
    "nccl.c": ["test_bulk_emu"],
    "parts.cu": ["test_update_emu"],
    "step.c": ["snapshots_under_way"],
    "memory.c": ["test_gathers"],
    "flow.c": ["test_gathers"],
    "gather.c": ["test_gathers"],
}
RANKS = {"test_bulk_emu": "2", "test_gathers": "2"}
COMPILED_BY = {"attention_tile.cuh": "attention_forward.cu"}

BARRIER, WARP_BARRIER = "__syncthreads();", "__syncwarp();"


def dropped(text, what):
    """The text without what it holds once."""
    assert text.count(what) == 1, text
    return text, text.replace(what, "")


# file, what is wrong, who must see it, (text, replacement), quick
MUTATIONS = [
    ("resnorm.cu", "no barrier before partial sums are read", "race",
     dropped("partial[i][threadIdx.x / 32] = value[i];\n        __syncthreads();", BARRIER), QUICK),
    ("resnorm.cu", "partial sums of the next row in the same place", "race", ("partial[row % 2]);", "partial[0]);"), False),
    ("resnorm.cu", "no barrier between pieces", "race", dropped("lanes[lane][x] = sum;\n    __syncthreads();", BARRIER), False),
    ("resnorm.cu", "rows beyond the last are worked on", "race", ("if (row >= a.rows)\n        return;", ""), False),
    ("resnorm.cu", "variance takes one stretch too many", "fast",
     ("squares[0] += (k * g.lanes + g.lane) * N < a.width ?", "squares[0] += (k * g.lanes + g.lane) * N <= a.width ?"), False),
    ("resnorm.cu", "no gain", "fast", ("x[i] *= r * gain[i];", "x[i] *= r;"), QUICK),
    ("resnorm.cu", "gradients of gain and bias in one place", "fast", ("(2 * g.number + 1) * a.width", "(2 * g.number) * a.width"), False),
    ("resnorm.cu", "parameter gradients are not added", "fast",
     ("(which ? s.add[1] : s.add[0]) ? to[column] + sum : sum", "sum"), QUICK),
    ("resnorm.cu", "the other input's flag of adding", "fast",
     ("put_stretch(a.din[1] + element, more, a.add[1])", "put_stretch(a.din[1] + element, more, a.add[0])"), False),
    ("embed.cu", "places by id", "fast", ("(int64_t)t.positions[row]", "(int64_t)t.ids[row]"), False),
    ("embed.cu", "all tokens of one type", "fast", ("(int64_t)t.token_types[row]", "(int64_t)t.token_types[0]"), False),
    ("embed.cu", "random numbers by place, not by token", "fast",
     ("(uint64_t)((int64_t)shared_row[i + b] * s.width", "(uint64_t)((int64_t)(first + i + b) * s.width"), False),
    ("embed.cu", "no barrier before keys are read", "race",
     dropped("__syncthreads();\n    if (column >= s.width)\n        return;\n    dropout drop", BARRIER), False),
    ("embed.cu", "a run does not end with its chunk", "fast", ("i + b == SUM_ROWS - 1", "i + b == SUM_ROWS"), False),
    ("embed.cu", "every chunk of a run adds it", "fast", ("if (!goes_on || began_before)", "if (!goes_on)"), False),
    ("embed.cu", "one row of the prompt for all of it", "fast", ("t.prompt + (int64_t)(id - t.vocab) * t.width", "t.prompt"), False),
    ("key_sort.cu", "ids of another table counted as this one's", "fast", ("s.keys[item.token] - s.first", "s.keys[item.token]"), False),
    ("key_sort.cu", "no barrier before digits are counted", "race", dropped("counts[warp][d] = 0;\n    __syncwarp();", WARP_BARRIER), False),
    ("key_sort.cu", "prefix sums without the next lane", "race", ("lane >= offset ?", "lane > offset ?"), False),
    ("linear_xent.cu", "no barrier before logits are overwritten", "race",
     dropped("if (sizeof(R) < sizeof(float))\n            __syncthreads();", "if (sizeof(R) < sizeof(float))\n            __syncthreads();"), False),
    ("linear_xent.cu", "the target's logit is read too late", "race", ("(top - at_target[0])", "(top - row[target])"), False),
    ("linear_xent.cu", "one word too many", "fast", ("if (rest < vocab) {", "if (rest <= vocab) {"), False),
    ("linear_xent.cu", "gradient of the word behind the target", "fast", ("v + j == target ?", "v + j == target + 1 ?"), False),
    ("linear_xent.cu", "weight gradient is not added", "fast",
     ("g.add = p->args->dparam_add[0] || p->first > 0", "g.add = p->first > 0"), QUICK),
    ("linear_xent.cu", "no loss scale", "fast", ("c.batch->loss_scale * weight", "weight"), False),
    ("linear_xent.cu", "losses are not weighted", "fast", ("= weight * (logf(sum)", "= (logf(sum)"), False),
    ("linear_xent.cu", "the bias is not in the gradient", "fast", ("        add_bias<R>(c.bias, v, n, x);\n", ""), False),
    ("pool.cu", "the first token of the next segment", "fast", ("p.segments[row + 1] - 1", "p.segments[row + 1]"), QUICK),
    ("pool.cu", "the first token of all, whatever stands in front", "fast", ("p.segments[row] + p.skipped", "p.segments[row]"), False),
    ("prefix.cu", "one row of the prefix for all of it", "fast", ("p.prefix + p.positions[token] * p.ld", "p.prefix"), False),
    ("prefix.cu", "one position too many", "fast", ("p.positions[token] >= p.length", "p.positions[token] > p.length"), False),
    ("prefix.cu", "tokens of the next segment", "fast", ("token >= p.segments[s + 1]", "token >= p.tokens"), False),
    ("prefix.cu", "what went into the prefix goes on", "fast", ("        reals<T>::store(from, 0.0f);\n", ""), QUICK),
    ("prefix.cu", "gradients are not added", "fast", ("p.add ? (double)*to + sum : sum", "sum"), False),
    ("expand.cu", "no barrier behind the levels", "race",
     dropped("map[threadIdx.x] = tables.map[threadIdx.x];\n    __syncthreads();", BARRIER), False),
    ("expand.cu", "both elements of a byte are the second", "fast", ("levels[codes >> 8 * i & 15]", "levels[codes >> (8 * i + 4) & 15]"), False),
    ("expand.cu", "scales without their mean", "fast", (" + p.second[p.groups];", ";"), False),
    ("expand.cu", "rows for columns", "fast", ("p.across ? column + i : row", "p.across ? row : column + i"), False),
    ("expand.cu", "all parts of a matrix are its first", "fast", ("        from += espl_quant_places_of(quant, part).bytes;\n", ""), False),
    ("glu.cu", "dropout of the gate's elements", "fast", ("dropout_apply(drop, (uint64_t)at, g)", "dropout_apply(drop, (uint64_t)gate_at, g)"), False),
    ("qkv.cu", "gradients are turned forward", "fast",
     ("rotate_rows<float>(args, args->dout[0], -1.0f);\n    espl__cuda_linear", "rotate_rows<float>(args, args->dout[0], 1.0f);\n    espl__cuda_linear"), QUICK),
    ("qkv.cu", "wrong head", "fast", ("row + i / stretches * shape.d + element", "row + i / stretches * shape.half + element"), False),
    ("qkv.cu", "positions are places in the batch", "fast", ("(int64_t)positions[blockIdx.x]", "(int64_t)blockIdx.x"), False),
    ("mlp_lt.c", "what is between is not made again for backward", "fast", ("if (args->dparam[2] != NULL)\n        activate(&m);", ""), QUICK),
    ("mlp_lt.c", "no slope", "fast", ("g.epilogue = ESPL__DGELU;", "g.epilogue = ESPL__PLAIN;"), False),
    ("mlp_lt.c", "nothing between the matrices of what has no epilogue", "fast", ("if (!rides)\n        activate(&m);", ""), False),
    ("mlp_lt.c", "the residual is not in the gradient", "fast", ("add_residual(&m, args, true);", "m.parts.first.din_add[0] = true;"), False),
    ("attention_forward.cu", "no barrier behind the copy of keys", "race",
     dropped("__syncthreads(); /* the keys are here", BARRIER), False),
    ("attention_forward.cu", "no barrier behind the copy of values", "race",
     dropped("__syncthreads(); /* the values are here", BARRIER), False),
    ("attention_forward.cu", "no wait for the values", "fast",
     dropped("cp_async_wait<0>();\n        __syncthreads(); /* the values", "cp_async_wait<0>();"), QUICK),
    ("attention_forward.cu", "one statistic too many", "race", ("lane_column() == 0 && i < a.tokens", "lane_column() == 0 && i <= a.tokens"), False),
    ("attention_forward.cu", "wrong head of keys", "fast", ("kv_head = head / a.group, n", "kv_head = head % a.kv_heads, n"), False),
    ("attention_forward.cu", "the sum does not shrink", "fast", ("state.sum[m][half] *= shrink;", ""), False),
    ("attention_forward.cu", "no mask on edges", "fast", ("if (!covers(seen.every, k, shape::keys))", "if (false)"), False),
    ("attention_tile.cuh", "values are not transposed", "fast",
     ("ldmatrix_x4_trans(right, b + k * 16 * stride", "ldmatrix_x4(right, b + k * 16 * stride"), False),
    ("attention_tile.cuh", "rows beyond the last are copied", "race", ("bool valid = i * step < rows;", "bool valid = true;"), False),
    ("attention_backward.cu", "the other stage", "fast",
     ("query_stage_at<D>(stages + now * shape", "query_stage_at<D>(stages + (1 - now) * shape"), False),
    ("attention_backward.cu", "no barrier behind the copy of queries", "race",
     dropped("first + w % (shape::keys / 32) * 32);\n        cp_async_wait<0>();\n        __syncthreads();", BARRIER), False),
    ("attention_backward.cu", "key gradients are not scaled", "fast",
     ("ones[m / 2][m % 2] = 1.0f;\n        scale[m / 2][m % 2] = a.scale;",
      "ones[m / 2][m % 2] = 1.0f;\n        scale[m / 2][m % 2] = 1.0f;"), False),
    ("attention_backward.cu", "a diagonal of the slopes begins one later", "fast",
     ("int e = (x + row + 1) / 8 - 1;", "int e = (x + row + 2) / 8 - 1;"), False),
    ("attention_backward.cu", "no barrier behind the slopes of fragments", "race",
     dropped("fragment[e / 2][e % 2];\n    __syncwarp();", WARP_BARRIER), False),
    ("attention_bias.cu", "offsets are taken for distances", "fast",
     ("tables[(size_t)head * entries + x] =", "tables[(size_t)head * entries + entries - 1 - x] ="), False),
    ("attention_cached.cu", "one key too many of the source", "fast", ("seen.last - 1}", "seen.last}"), False),
    ("update.cu", "second moment of the gradient itself", "fast", ("s.a2 * g * g", "s.a2 * g"), QUICK),
    ("update.cu", "all ranges have the first one's rate", "fast", ("r.lr * ((x[0]", "s.range[0].lr * ((x[0]"), False),
    ("update.cu", "a gap between ranges is updated", "fast", ("if (r == s.n_ranges || at < s.range[r].begin)", "if (r == s.n_ranges)"), False),
    ("update.cu", "one element too many", "race", ("s.range[r].end <= at)", "s.range[r].end < at)"), False),
    ("update.cu", "lanes keep what they should trade", "fast", ("x[i] = odd ? got : x[i];", "x[i] = odd ? x[i] : got;"), False),
    ("update.cu", "both halves of a number are one", "fast", ("x[2 * i + 1], number.v[i] >> 16)", "x[2 * i + 1], number.v[i] & 0xFFFFu)"), QUICK),
    ("update.cu", "a lane's largest magnitude for its block's", "fast", ("    scale = warp_max(scale);\n", ""), False),
    ("update.cu", "no barrier behind the maps of bytes", "race",
     dropped("without[i] = maps.without[i];\n    }\n    __syncthreads();", BARRIER), False),
    ("update.cu", "no barrier behind the clearing of sums", "race",
     dropped("[i % ESPL_EXACT_WORDS] = 0;\n    __syncthreads();", BARRIER), QUICK),
    ("adafactor.cu", "the first piece of a column for all", "fast", ("for (int p = 0; p < n_pieces; p++)", "for (int p = 0; p < 1; p++)"), False),
    ("adafactor.cu", "rows beyond the last are worked on", "race", ("if (i >= a.rows)\n        return;", ""), False),
    ("muon.cu", "a tall matrix is taken for a wide one", "fast", ("g.trans_a = !wide, g.trans_b = wide;", "g.trans_b = true;"), False),
    ("muon.cu", "momentum does not look ahead", "fast", ("c.nesterov ? c.take * g + c.keep * m : m", "m"), False),
    ("device_batch.c", "a block is filled while its copy is under way", "fast",
     ("ESPL_TRY(espl__cuda_wait_event(device, slot->free));", ""), False),
    ("device_fetch.c", "a snapshot is not behind what comes before", "fast",
     ("ESPL__CUDA(cudaStreamWaitEvent(device->copy, own->here, 0));", ""), False),
    ("device_fetch.c", "compute does not wait for a snapshot", "fast",
     ("ESPL__CUDA(cudaStreamWaitEvent(device->compute, device->own->arrived, 0));", ""), QUICK),
    ("nccl.c", "memory is not registered", "fast",
     ("bulk->registered[i].data == (char *)data && bulk->registered[i].bytes == bytes", "true"), False),
    ("nccl.c", "what is received of a tree is not registered", "fast", ("return tree ? know(bulk, team, stage, n * sizeof *stage) : ESPL_OK;", "return ESPL_OK;"), QUICK),
    ("nccl.c", "what is received as bf16 is not registered", "fast", ("ESPL_TRY(know(bulk, &bulk->inside, exchange->incoming, stage));", ";"), False),
    ("nccl.c", "every piece is added to the first", "fast", ("data + bulk->inside.rank * shard + at, &parts", "data + bulk->inside.rank * shard, &parts"), False),
    ("parts.cu", "parts of another's shard", "fast",
     ("load_floats(from + rank * from_stride + i, x);", "load_floats(from + (to.size - 1 - rank) * from_stride + i, x);"), False),
    ("parts.cu", "our own part is read from the stage", "fast", ("if (rank == from.rank)", "if (false)"), QUICK),
    ("parts.cu", "our own part is rounded, too", "fast", ("if (i >= to.n || rank == to.rank)", "if (i >= to.n)"), False),
    ("nccl.c", "memory stays registered", "fast", ("ncclCommDeregister(bulk->registered[i].team->comm, bulk->registered[i].handle);", ";"), QUICK),
    ("nccl.c", "compute does not wait for a sum", "fast", ("ESPL__CUDA(cudaStreamWaitEvent(bulk->device->compute, o->done, 0));", ""), False),
    ("nccl.c", "a sum does not wait for compute", "fast", ("ESPL_TRY(espl__cuda_follow(bulk->device, bulk->device->communication));", ""), False),
    ("step.c", "the update does not wait for a snapshot", "whole",
     ("ESPL_TRY(run->engine.calls->let_fetch(run->engine.device));", ""), QUICK),
    ("memory.c", "updated weights are used before they have come", "ranks", ("return espl_gather_wait(m->gather, move->bucket);", "return ESPL_OK;"), QUICK),
    ("memory.c", "cut weights are used before they have come", "ranks", ("return espl_fetcher_wait(m->fetcher, move->bucket);", "return ESPL_OK;"), QUICK),
    ("memory.c", "all that reads weights at once does not wait", "ranks", ("m->gather != NULL ? espl_gather_finish(m->gather) : ESPL_OK", "ESPL_OK"), False),
    ("flow.c", "updated weights are waited for a call too late", "ranks",
     ("add_move(f, &(espl_move){ESPL_MOVE_UPDATED, b, -1, call, false})", "add_move(f, &(espl_move){ESPL_MOVE_UPDATED, b, -1, call + 1, false})"), False),
    ("gather.c", "gathers are waited for in the bookkeeping alone", "ranks",
     ("return espl_comm_wait(gather->comm, request);", "return ESPL_OK;"), False),
]

FAULTS = re.compile(r"^emu: .*?(race|uninitialised|out of bounds|misaligned|deadlock|divergent barrier|lanes of a warp part|"
                    r"asynchronous copies|behind the end|not in shared memory)")


def folder_of(name):
    return next(folder for folder in FOLDERS if (folder / name).exists())


class Build:
    """A backend, or the program, of the build folder, of which one object at a time is replaced."""

    def __init__(self, folder, kind):
        self.folder, self.kind, self.target = folder, kind, TARGETS[kind]
        self.program = kind in ("whole", "ranks")
        link = subprocess.run(["ninja", "-C", folder, "-t", "commands", self.target], capture_output=True, text=True, check=True)
        self.link = shlex.split(link.stdout.splitlines()[-1].removeprefix(": && ").removesuffix(" && :"))
        commands = json.loads((folder / "compile_commands.json").read_text())
        parts = ARCHIVES if self.program else (self.target,)
        self.compile = {pathlib.Path(c["file"]).name: shlex.split(c["command"]) for c in commands if any(f"/{p}.dir/" in c["command"] for p in parts)}

    def make(self, scratch, source, text_of_file):
        """Compiles `source` with changed files (name -> text) and links the backend into `scratch`."""
        overlay = scratch / folder_of(source).relative_to(ROOT)
        overlay.mkdir(parents=True)
        for name, text in text_of_file.items():
            (overlay / name).write_text(text)
        command = list(self.compile[source])
        at = command.index("-o")
        original, command[at + 1] = command[at + 1], str(scratch / "changed.o")
        if source in text_of_file:
            command[-1] = str(overlay / source)
        # Headers are looked for in the order of -I, so a changed one is found first; a mistake may leave something unused.
        command.insert(command.index("-o"), "-w")
        command.insert(next(i for i, part in enumerate(command) if part.startswith("-I")), f"-I{scratch}")
        subprocess.run(command, cwd=self.folder, check=True)
        if self.program:
            first = next(i for i, part in enumerate(self.link) if part.endswith(".a"))
            link = [*self.link[:first], str(scratch / "changed.o"), *self.link[first:]]
            (scratch / "libespalier_emu.so").symlink_to(self.folder / "libespalier_emu.so")
        else:
            link = [str(scratch / "changed.o") if part == original else part for part in self.link]
            assert link != self.link, original
        link[link.index("-o") + 1] = str(scratch / (self.target if self.program else "libespalier_emu.so"))
        subprocess.run(link, cwd=self.folder, check=True)


def run_tests(build, test, scratch):
    """Why the tests fail, None when they pass; they are stopped at the first sign."""
    command = [scratch / test[0] if build.kind == "ranks" else build.folder / "tests" / test[0], *test[1:]]
    if test[0] in RANKS:
        command = [ROOT / "tests" / "mpirun.sh", RANKS[test[0]], str(LIMIT_S // 2), *command]
    if build.kind == "whole":
        command = [sys.executable, ROOT / "tests" / "e2e" / "test_emu.py", scratch / "espalier", *test]
    environment = dict(os.environ, ESPL_BACKEND_DIR=str(scratch), OMP_NUM_THREADS="1")
    with subprocess.Popen(command, cwd=scratch, env=environment, text=True, errors="replace", stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE) as process:
        late = threading.Event()
        limit = threading.Timer(LIMIT_S, lambda: (late.set(), process.terminate()))  # not kill: a launcher ends its ranks
        limit.start()
        why = None
        for line in process.stderr:
            fault = FAULTS.match(line)
            if fault or line.startswith(("[  ERROR   ]", "[  FAILED  ]")):
                why = fault.group(1) if fault else "numbers"
                process.terminate()
                break
        status = process.wait()
        limit.cancel()
    if why is None and status and not late.is_set() and status not in LATE:
        why = f"exit {status}"
    return why


def changed_files(mutation):
    name, what, _, (text, replacement), _ = mutation
    before = (folder_of(name) / name).read_text()
    if before.count(text) != 1:
        raise SystemExit(f"mutate.py: '{what}': its text is {before.count(text)} times in {folder_of(name) / name}, expected once:\n{text}")
    return {name: before.replace(text, replacement)}


def try_mutation(builds, mutation):
    name, what, kind = mutation[:3]
    source = COMPILED_BY.get(name, name)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        builds[kind].make(pathlib.Path(scratch), source, changed_files(mutation))
        why = run_tests(builds[kind], TESTS[source], pathlib.Path(scratch))
    print(f"{name:24s} {what:48s} {kind:5s} {why or 'NOT CAUGHT':20s} {time.monotonic() - begun:5.0f} s", flush=True)
    return why is not None


def passes_unchanged(build):
    source, test = UNCHANGED[build.kind]
    with tempfile.TemporaryDirectory() as scratch:
        build.make(pathlib.Path(scratch), source, {source: (folder_of(source) / source).read_text()})
        why = run_tests(build, test, pathlib.Path(scratch))
    print(f"{'nothing changed':73s} {build.kind:5s} {why or 'passes'}", flush=True)
    return why is None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    for mutation in MUTATIONS:
        changed_files(mutation)
    chosen = [m for m in MUTATIONS if (options.all or options.only or m[4]) and options.only in f"{m[0]} {m[1]}"]
    builds = {kind: Build(options.build.resolve(), kind) for kind in TARGETS if any(m[2] == kind for m in chosen)}
    if not all([passes_unchanged(build) for build in builds.values()]):
        return 1
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        caught = list(pool.map(lambda mutation: try_mutation(builds, mutation), chosen))
    print(f"{sum(caught)} of {len(caught)} mutations caught")
    return 0 if all(caught) else 1


if __name__ == "__main__":
    sys.exit(main())
