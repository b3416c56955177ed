# test: tier=default timeout=120 sanitized=no
"""Without a GPU, or without the library for GPUs, run.device: cuda ends in one line with exit 2 on any number of ranks, and auto trains on the CPU
and says why. With ESPL_BACKEND_DIR at a folder that has libespalier_cuda.so, the library itself finds that there is no driver."""

import glob
import os
import pathlib
import shutil
import sys

import job
from job import USAGE, Skipped, check, main

SHORT = {"train__steps": 2, "train__micro_batches": 4}


def have_library():
    places = [os.environ.get("ESPL_BACKEND_DIR", ""), job.espalier.parent]
    return any((pathlib.Path(place) / "libespalier_cuda.so").exists() for place in places if place)


def refused(case, *words, environment=None):
    for ranks in (0, 1, 2):
        case.start(ranks, environment=environment, run__device="cuda", **SHORT).expect_failure(USAGE, *words)


def no_library(case):
    if have_library():
        raise Skipped("the library is here")
    refused(case, "libespalier_cuda.so", "is in none of", "run.device: cpu")


def a_broken_library(case):
    folder = case.folder / "broken"
    folder.mkdir()
    (folder / "libespalier_cuda.so").write_bytes(b"\x7fELF and nothing else")
    refused(case, str(folder / "libespalier_cuda.so"), "does not load", environment={"ESPL_BACKEND_DIR": str(folder)})


def no_driver(case):
    if not have_library():
        raise Skipped("libespalier_cuda.so is not here")
    if glob.glob("/dev/nvidia[0-9]*") or shutil.which("nvidia-smi"):
        raise Skipped("this machine has a GPU")
    refused(case, "driver")


def auto_takes_the_cpu(case):
    if glob.glob("/dev/nvidia[0-9]*"):
        raise Skipped("this machine has a GPU")
    for ranks in (0, 2):
        said = case.train(ranks, f"auto-{ranks}", run__device="auto", **SHORT).stderr
        check("cpu" in said.lower() and ("driver" in said or "libespalier_cuda.so" in said), f"it does not say why it takes the CPU: {said}")


if __name__ == "__main__":
    sys.exit(main([no_library, a_broken_library, no_driver, auto_takes_the_cpu]))
