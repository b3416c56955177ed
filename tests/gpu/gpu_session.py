"""What the parts of tests/gpu/run.sh share: where the programs are, processes under a deadline, checks, and the table that comes out."""

import datetime
import glob
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback

ROOT = pathlib.Path(__file__).resolve().parents[2]
FORMAT = 1
SHOWN = ("part", "what", "value", "unit", "beside", "ratio", "target", "met")


class OutOfTime(Exception):
    """The part used up its time."""


class Skip(Exception):
    """This machine cannot do the part; the text says why."""


class Missing(Exception):
    """What the run should have brought along is not there."""


class Session:
    """One run of tests/gpu/run.sh. `folders`: where programs are looked for; `small`: rehearsal sizes."""

    def __init__(self, backend, folders, scratch, small, seconds):
        self.backend, self.folders, self.scratch, self.small = backend, folders, pathlib.Path(scratch), small
        self.until, self.saved = time.monotonic() + seconds, 0.0
        self.part, self.part_until = None, self.until
        self.parts, self.table, self.running = {}, [], []

    # ---- Programs.

    def program(self, name):
        for folder in self.folders:
            for place in (folder / "bin" / name, folder / name, folder / "tests" / name):
                if place.is_file():
                    return place
        raise Missing(f"{name} is in none of {', '.join(map(str, self.folders))}; tests/gpu/bundle.sh makes it")

    def environment(self):
        """For our programs: libraries of the bundle and, for the GPU, those of Python's packages and the toolkit."""
        paths = [str(folder / "lib") for folder in self.folders if (folder / "lib").is_dir()] + gpu_library_folders()
        added = {"LD_LIBRARY_PATH": ":".join(paths + [p for p in [os.environ.get("LD_LIBRARY_PATH")] if p]), "OMP_NUM_THREADS": "4",
                 "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "ESPL_TEST_BACKEND": self.backend}
        for folder in self.folders:
            if list((folder / "bin").glob("libespalier_*.so")):
                added["ESPL_BACKEND_DIR"] = str(folder / "bin")
            elif list(folder.glob("libespalier_*.so")):
                added["ESPL_BACKEND_DIR"] = str(folder)
            if (folder / "mpi").is_dir():
                added.update(mpi_of_the_bundle(folder))
        return {**{k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")}, **added}

    def seconds_left(self):
        return min(self.until, self.part_until) - time.monotonic()

    def start(self, words, ours=True, **options):
        process = subprocess.Popen(list(map(str, words)), env=self.environment() if ours else None, start_new_session=True, **options)
        self.running.append(process)
        return process

    def end_all(self):
        """Ends what a part left running."""
        for process in self.running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.running.clear()

    def finish(self, process, limit=None):
        """(exit code, stdout, stderr); ends the process and all that it started when the time is over."""
        left = min(self.seconds_left(), limit or 1e9)
        try:
            out, errors = process.communicate(timeout=max(left, 0.1))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise OutOfTime(f"{process.args[0]} was still running after the {left:.0f} s it was given") from None
        return process.returncode, out, errors

    def run(self, *words, ours=True, limit=None):
        return self.finish(self.start(words, ours, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True), limit)

    # ---- What is found.

    def check(self, name, ok, detail=""):
        self.parts[self.part]["checks"].append({"name": name, "ok": bool(ok), "detail": detail})
        print(f"  {'ok  ' if ok else 'FAIL'} {name}" + (f": {detail}" if detail and (not ok or len(detail) < 160) else ""), flush=True)
        return ok

    def row(self, what, value, unit, beside=None, ratio=None, target=None):
        """A measured number; `beside` is what it is compared with, `ratio` how it stands to that, `target` what the ratio should reach."""
        met = None if target is None or ratio is None else bool(ratio >= target if target > 0 else ratio <= -target)
        self.table.append(dict(zip(SHOWN, (self.part, what, value, unit, beside, ratio, target, met))))

    def run_part(self, name, seconds, function):
        self.part, self.part_until = name, time.monotonic() + seconds + self.saved  # what earlier parts left over is theirs who come later
        self.parts[name] = {"checks": []}
        print(f"== {name} (at most {seconds} s)", flush=True)
        start = time.monotonic()
        try:
            if self.until <= start:
                raise OutOfTime("no time was left for it")
            function(self)
            status, why = "ran", ""
        except Skip as reason:
            status, why = "skipped", str(reason)
        except Missing as reason:
            status, why = "failed", str(reason)
        except OutOfTime as reason:
            status, why = "out of time", str(reason)
        except Exception:  # a broken part is a failed part, and the others still run
            status, why = "failed", traceback.format_exc()
        self.end_all()
        part = self.parts[name]
        self.saved = max(0.0, self.part_until - time.monotonic())
        if status == "ran" and not all(c["ok"] for c in part["checks"]):
            status = "failed"
        part.update({"status": "passed" if status == "ran" else status, "why": why, "seconds": round(time.monotonic() - start, 1)})
        print(f"   {part['status']} in {part['seconds']} s" + (f": {why}" if why else ""), flush=True)

    def result(self):
        return {"format": FORMAT, "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"), "backend": self.backend,
                "sizes": "small" if self.small else "full", "commit": commit(), "machine": machine(), "parts": self.parts, "table": self.table,
                "passed": all(p["status"] in ("passed", "skipped") for p in self.parts.values())}


# ---- The machine.


def mpi_of_the_bundle(folder):
    """Where Open MPI, which was built for other folders, finds its parts; no network, no remote start."""
    mpi = folder / "mpi"
    return {"OPAL_PREFIX": str(mpi), "OPAL_LIBDIR": str(mpi / "lib"), "OPAL_PKGLIBDIR": str(mpi / "lib/openmpi"), "OPAL_PKGDATADIR": str(mpi / "share/openmpi"),
            "OMPI_MCA_mca_base_component_path": str(mpi / "lib/openmpi"), "PMIX_MCA_mca_base_component_path": str(folder / "pmix"), "OMPI_MCA_plm": "isolated"}


def gpu_library_folders():
    """Folders that may hold cuBLASLt, NCCL and cuDNN besides the loader's own: Python's NVIDIA packages, the toolkit."""
    found = []
    for base in sys.path:
        found += glob.glob(os.path.join(base, "nvidia", "*", "lib"))
    found += [f for f in ("/usr/local/cuda/lib64", "/usr/local/cuda/targets/x86_64-linux/lib") if os.path.isdir(f)]
    return [f for f in found if glob.glob(f + "/libcublasLt.so.*") or glob.glob(f + "/libnccl.so.*") or glob.glob(f + "/libcudnn.so.*") or glob.glob(f + "/libcudart.so.*")]


def output_of(*words):
    if not shutil.which(words[0]):
        return ""
    out = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
    return out.stdout.strip() if out.returncode == 0 else ""


def commit():
    found = output_of("git", "-C", str(ROOT), "rev-parse", "HEAD")
    stored = ROOT / "build" / "gpu-bundle" / "commit"
    return found or (stored.read_text(encoding="utf-8").strip() if stored.exists() else "unknown")


def machine():
    gpu = output_of("nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit", "--format=csv,noheader")
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return {"gpu": gpu or None, "cpu": cpu[1] if cpu else platform.machine(), "cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version()}


def device_name(result):
    for part in result["parts"].values():
        if part.get("device"):
            return part["device"]
    gpu = result["machine"]["gpu"]
    return gpu.split(",")[0] if gpu else result["backend"]


def file_name(result):
    return result["date"][:10] + "-" + re.sub(r"[^A-Za-z0-9]+", "-", device_name(result)).strip("-") + ".json"


# ---- Configs.


def write_config(path, keys):
    """YAML of keys "section.name"; a JSON value is a YAML value."""
    sections = {}
    for key, value in keys.items():
        section, name = key.split(".", 1)
        sections.setdefault(section, {})[name] = value
    path.write_text(json.dumps(sections), encoding="utf-8")
    return path


def train(session, name, model, keys, limit=None):
    """A run of espalier from random weights; its metrics by event, or a failed check."""
    folder = session.scratch / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(model), encoding="utf-8")
    data = ROOT / "configs" / "data"
    rows = {"run.dir": str(folder / "run"), "model.config": str(folder / "config.json"), "model.dropout": 0, "data.train": str(data / "shakespeare.txt"),
            "data.tokenizer": str(data / "bpe2048"), "data.placement": "windows", "data.append_eos": False, "data.cache": str(session.scratch / "cache"),
            "optim.schedule": "constant", "checkpoint.export": False, "log.tensorboard": False, "log.progress": "none", **keys}
    config = write_config(folder / "recipe.yaml", rows)
    code, _, errors = session.run(session.program("espalier"), "train", config, "--resume", "never", limit=limit)
    if not session.check(f"{name} trains", code == 0, "" if code == 0 else f"exit {code}: {errors.strip()[-600:]}"):
        return None
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    shutil.rmtree(folder / "run" / "checkpoints", ignore_errors=True)
    return {event: [line for line in lines if line["event"] == event] for event in {line["event"] for line in lines}}


def plan(session, name):
    """The plan of the run `name` as a dictionary."""
    code, out, errors = session.run(session.program("espalier"), "plan", session.scratch / name / "recipe.yaml", "--json")
    session.check(f"{name} is planned", code == 0, "" if code == 0 else errors.strip()[-300:])
    return json.loads(out) if code == 0 else None


# ---- Printing.


def short(value):
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def print_table(result):
    rows = [SHOWN] + [tuple(short(abs(row[k]) if k == "target" and row[k] is not None else row[k]) for k in SHOWN) for row in result["table"]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(SHOWN))]
    for row in rows:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |")
        if row is rows[0]:
            print("| " + " | ".join("-" * width for width in widths) + " |")
    for name, part in result["parts"].items():
        checks = part["checks"]
        print(f"{name}: {part['status']}, {sum(c['ok'] for c in checks)} of {len(checks)} checks, {part['seconds']} s" + (f" ({part['why']})" if part["why"] else ""))
