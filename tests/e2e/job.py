"""What the end-to-end tests share: the program run as a user runs it, by itself or under mpirun, every job under a deadline.

A test is a list of functions (cases). A case gets a folder of its own and fails by raising; main() runs the cases, prints one line
for each, and ends whatever a case left running. Everything that a job started is found by its session, so that nothing outlives a test.
"""

import ctypes
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

from sanitized import kept

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = ROOT / "configs" / "data"
TOKENIZER = DATA / "bpe2048"
OK, USAGE, IN_DATA, NUMERIC, IO, STOPPED = 0, 2, 3, 4, 5, 75
LIGHT = bool(os.environ.get("ESPL_TEST_LIGHT"))  # fewer repetitions: for builds with sanitizers, where the release build has run them all
DEADLINE = 90  # seconds for one job; a sanitized program on a busy machine needs most of it
MPIRUN = ["mpirun", "--oversubscribe", "--bind-to", "none", "--mca", "btl", "self,vader", "--mca", "btl_vader_single_copy_mechanism", "none",
          "--mca", "mpi_yield_when_idle", "1"]
GPUS = {"EMU_DEVICES": "2", "EMU_NCCL_REGISTERED": "1"}  # emulated ones, for run.device: emu
PR_SET_CHILD_SUBREAPER = 36

espalier = None  # the program, from the command line
jobs = []  # that were started and may still run


class Failed(Exception):
    """What was expected did not happen."""


class Skipped(Exception):
    """This machine cannot show it; the text says why."""


def check(condition, text, job=None):
    if not condition:
        raise Failed(text + ("" if job is None else "\n" + job.tail()))


def within(seconds, what, condition, job=None):
    """Waits until condition() is true; returns the seconds it took."""
    start = time.monotonic()
    while not condition():
        check(time.monotonic() - start < seconds, f"nothing of '{what}' within {seconds} s", job)
        time.sleep(0.01)
    return time.monotonic() - start


# ---- Processes.


def stat_of(pid):
    """(parent, session, state) of a process; None when it is gone."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[1]), int(fields[3]), fields[0]


def session_members(session):
    """Ids of all living processes of a session: Open MPI gives every rank a process group of its own, but not a session."""
    found = []
    for name in os.listdir("/proc"):
        stat = stat_of(name) if name.isdigit() else None
        if stat is not None and stat[1] == session and stat[2] not in "ZX":
            found.append(int(name))
    return found


def reap_orphans():
    """Takes leave of processes that became ours when their parent died; those of a Popen are left to it."""
    mine = {job.process.pid for job in jobs}
    for name in os.listdir("/proc"):
        stat = stat_of(name) if name.isdigit() else None
        if stat is not None and stat[0] == os.getpid() and stat[2] == "Z" and int(name) not in mine:
            try:
                os.waitpid(int(name), os.WNOHANG)
            except ChildProcessError:
                pass


def send(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


class Job:
    """One run of the program: Job(folder, ranks, "train", ...). ranks 0: without a launcher. `around` comes in front of the launcher,
    `before` in front of the program of every rank; `launcher` takes the place of this machine's mpirun."""

    def __init__(self, folder, ranks, *arguments, around=(), before=(), environment=None, launcher=None):
        launcher = launcher or (MPIRUN + ["-n", str(ranks)] if ranks > 0 else [])
        self.words = [*around, *launcher, *before, str(espalier), *map(str, arguments)]
        self.ranks = max(ranks, 1)
        self.output = tempfile.TemporaryFile(dir=folder)
        self.errors = tempfile.TemporaryFile(dir=folder)
        self.process = subprocess.Popen(self.words, stdin=subprocess.DEVNULL, stdout=self.output, stderr=self.errors, start_new_session=True,
                                        cwd=folder, env={**os.environ, **(environment or {})})
        self.until = time.monotonic() + DEADLINE
        jobs.append(self)

    def text(self, file):
        """What is in it. The place where the job writes next is the descriptor's, which is shared: it must not move."""
        return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode("utf-8", "replace")

    @property
    def stdout(self):
        return self.text(self.output)

    @property
    def stderr(self):
        return self.text(self.errors)

    def tail(self):
        return "    " + " ".join(self.words) + "".join("\n    | " + line for line in self.stderr.splitlines()[-25:])

    def members(self):
        """Ids of all its living processes."""
        return session_members(self.process.pid)

    def pids(self):
        """Rank -> process id of the ranks that live."""
        found = {}
        for pid in self.members():
            try:
                words = pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                program = os.readlink(f"/proc/{pid}/exe")
            except OSError:
                continue
            if pathlib.Path(program) == espalier:
                rank = next((int(w.split(b"=")[1]) for w in words if w.startswith(b"OMPI_COMM_WORLD_RANK=")), 0)
                found[rank] = pid
        return found

    def wait_for(self, what, condition):
        """Waits until condition() is true while the job runs, or with its end."""
        over = False
        while not condition():
            check(not over, f"the job ended (exit {self.process.returncode}) before {what}", self)
            over = self.process.poll() is not None  # what it did last is looked at once more
            check(time.monotonic() < self.until, f"nothing of '{what}' within {DEADLINE} s", self)
            time.sleep(0.005)

    def seconds_left(self):
        return max(0.1, self.until - time.monotonic())

    def finish(self):
        """The exit code; past the deadline everything is ended and the case fails."""
        try:
            code = self.process.wait(self.seconds_left())
        except subprocess.TimeoutExpired:
            stacks = {rank: stat_of(pid) for rank, pid in self.pids().items()}
            self.end()
            raise Failed(f"the job hung: it did not end within {DEADLINE} s; its ranks were {stacks}\n{self.tail()}") from None
        self.end()
        return code

    def down(self, seconds, late):
        """For a job that lost a rank. Waits until no rank is left, at most `seconds`, and then `late` for the launcher, which Open MPI leaves hanging
        now and then, and ends that. Returns how long the ranks took, and the exit code, None of a launcher that had to be ended."""
        took = within(seconds, "an end of all ranks", lambda: not self.pids(), self)
        try:
            within(late, "an end of the launcher", lambda: self.process.poll() is not None and not self.members())
            code = self.process.returncode
        except Failed:
            code = None
        self.end()
        return took, code

    def end(self):
        """Ends every process of the job and waits until they are gone."""
        until = time.monotonic() + 10
        while time.monotonic() < until:
            members = self.members()
            send(members, signal.SIGKILL)
            if not members:
                break
            time.sleep(0.01)
        self.process.wait()
        if self in jobs:
            jobs.remove(self)
        reap_orphans()

    def complaints(self):
        """The lines with which the program says why it failed."""
        return [line for line in self.stderr.splitlines() if line.startswith("espalier: ")]

    def expect(self, code, *words):
        """Waits; the exit code must be `code` and stderr must hold every one of `words`. Returns stderr."""
        found = self.finish()
        check(found == code, f"expected exit {code}, got {found}", self)
        text = self.stderr
        for word in words:
            check(word in text, f"expected '{word}' on stderr", self)
        return text

    def expect_failure(self, code, *words):
        """A failure is told in exactly one line, which holds every one of `words`. Returns it."""
        self.expect(code)
        lines = self.complaints()
        check(len(lines) == 1, f"expected one line that begins with 'espalier: ', got {len(lines)}", self)
        for word in words:
            check(word in lines[0], f"expected '{word}' in the line", self)
        return lines[0]


# ---- Runs of a small model.

MODEL = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "activation_function": "gelu_new", "n_layer": 2, "n_embd": 64,
         "n_head": 4, "n_positions": 128, "vocab_size": 2048, "attn_pdrop": 0.1, "embd_pdrop": 0.1, "resid_pdrop": 0.1,
         "layer_norm_epsilon": 1e-05, "initializer_range": 0.02, "tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": 0}

BASE = {"run.device": "cpu", "run.threads": 1, "run.reduction": "tree", "run.watchdog": 50, "data.placement": "windows", "data.sequence_length": 64, "data.tokenizer": str(TOKENIZER),
        "train.steps": 8, "train.micro_batch_tokens": 128, "train.micro_batches": 8, "optim.lr": 1e-3, "checkpoint.export": False,
        "log.progress": "lines", "log.tensorboard": False}


def write_config(path, keys):
    """YAML of keys "section.name"; a JSON value is a YAML value."""
    sections = {}
    for key, value in keys.items():
        section, name = key.split(".", 1)
        sections.setdefault(section, []).append(f"  {name}: {json.dumps(value)}\n")
    path.write_text("".join(f"{section}:\n" + "".join(rows) for section, rows in sections.items()), encoding="utf-8")
    return path


class Case:
    """The folder of a case: its model, data and runs."""

    def __init__(self, folder):
        self.folder = folder
        self.n_configs = 0
        self.model = folder / "config.json"
        self.model.write_text(json.dumps(MODEL), encoding="utf-8")
        self.text = folder / "text.txt"
        self.text.write_bytes((DATA / "shakespeare.txt").read_bytes()[:60000])

    def config(self, run, **keys):
        """A config for the run folder `run`; keyword section__name is the key section.name, None removes one."""
        rows = {**BASE, "run.dir": str(self.folder / run), "model.config": str(self.model), "data.train": [str(self.text)],
                "data.cache": str(self.folder / "cache")}
        rows.update({key.replace("__", ".", 1): str(v) if isinstance(v, pathlib.Path) else v for key, v in keys.items()})
        self.n_configs += 1
        return write_config(self.folder / f"config-{self.n_configs}.yaml", {k: v for k, v in rows.items() if v is not None})

    def start(self, ranks, run="run", arguments=(), around=(), before=(), environment=None, **keys):
        return Job(self.folder, ranks, "train", self.config(run, **keys), *arguments, around=around, before=before, environment=environment)

    def train(self, ranks, run="run", code=OK, arguments=(), **keys):
        """Trains to the end and returns the job."""
        job = self.start(ranks, run, arguments, **keys)
        job.expect(code)
        return job

    def digest(self, run="run"):
        """The digest of the weights of a run's newest checkpoint, or of a checkpoint that is given by its path."""
        job = Job(self.folder, 0, "verify", "--digest", self.folder / run)
        job.expect(OK)
        found = re.fullmatch(r"([0-9a-f]{16})\n", job.stdout)
        check(found, f"verify --digest printed {job.stdout!r}")
        return found.group(1)

    def checkpoints(self, run="run"):
        """Step -> folder of the committed checkpoints."""
        folder = self.folder / run / "checkpoints"
        names = os.listdir(folder) if folder.is_dir() else []
        found = {int(m.group(1)): folder / m.group(0) for m in map(re.compile(r"step-(\d+)").fullmatch, names) if m}
        return {step: path for step, path in found.items() if (path / "manifest.json").exists()}  # without, it is being deleted

    def metrics(self, run="run", event=None):
        """Objects of metrics.jsonl; a last line that is being written does not count."""
        path = self.folder / run / "metrics.jsonl"
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        rows = [json.loads(line) for line in lines if line.endswith(b"\n")]
        return [row for row in rows if event in (None, row["event"])]

    def steps(self, run="run"):
        return [row["step"] for row in self.metrics(run, "step")]

    def last_step(self, run="run"):
        return max(self.steps(run), default=0)


def seeded():
    """A generator of random numbers whose seed is printed; ESPL_TEST_SEED repeats a run."""
    seed = int(os.environ.get("ESPL_TEST_SEED", random.SystemRandom().getrandbits(31)))
    print(f"seed {seed} (ESPL_TEST_SEED)")
    return random.Random(seed)


def needs_emulated_gpus():
    if not (espalier.parent / "libespalier_emu.so").exists():
        raise Skipped("this build has no libespalier_emu.so")


# ---- Running cases.


def end_jobs():
    for job in list(jobs):
        job.end()


def run_case(function, base):
    folder = base / function.__name__
    folder.mkdir()
    start = time.monotonic()
    try:
        function(Case(folder))
        result = "ok"
    except Skipped as why:
        result = f"left out: {why}"
    except Failed as why:
        result = f"FAILED: {why}"
    except Exception:  # a broken case is a failed case, and the others still run
        result = "FAILED: " + traceback.format_exc()
    end_jobs()
    shutil.rmtree(folder, ignore_errors=True)
    print(f"{function.__name__} ({time.monotonic() - start:.1f} s): {result}", flush=True)
    return result


def main(cases, needs=None):
    """test.py ESPALIER [CASE ...]: runs all cases (light: those that sanitized.py keeps), or those named; exit 1 when one fails. `needs` raises Skipped where none can be shown."""
    global espalier
    espalier = pathlib.Path(sys.argv[1]).resolve()
    chosen = [c for c in cases if c.__name__ in sys.argv[2:]] if sys.argv[2:] else kept(pathlib.Path(sys.argv[0]).stem, cases) if LIGHT else cases
    os.environ.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMP_NUM_THREADS="1",
                      ASAN_OPTIONS=os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0")
    try:
        if needs is not None:
            needs()
    except Skipped as why:
        print(f"SKIP: {why}")
        return 0
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with tempfile.TemporaryDirectory(prefix="espalier-e2e-") as base:
        try:
            results = [run_case(case, pathlib.Path(base)) for case in chosen]
        finally:
            end_jobs()
    if results and all(r.startswith("left out") for r in results):
        print("SKIP: " + results[0])
    return 1 if not results or any(r.startswith("FAILED") for r in results) else 0
