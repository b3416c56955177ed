# test: tier=default timeout=120
"""espalier preflight names a host with a slow disk and one with a wrong clock: test_bad_host.py ESPALIER"""

import os
import re
import subprocess

from job import IO, OK, USAGE, Job, Skipped, check, main

# Four hosts, one rank each; what goes wrong on one is put in front of libc's functions there. The share is far from all noise of this machine.
OPTIONS = ["--seconds", "0.05", "--disk", "1", "--message", "1", "--share", "0.1", "--clock", "5"]
WRONG = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t which, struct timespec *t) {
    int (*real)(clockid_t, struct timespec *) = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(which, t);
    if (which == CLOCK_REALTIME && getenv("WRONG_CLOCK") != NULL)
        t->tv_sec += 20;
    return code;
}
int fsync(int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    if (getenv("SLOW_DISK") != NULL)
        sleep(3);
    return real(fd);
}
"""


def hosts(case, *wrong):
    """A script in front of each rank that gives it a host of its own, n0 ..., and what is wrong there: VARIABLE per host, or None."""
    library = case.folder / "wrong.so"
    (case.folder / "wrong.c").write_text(WRONG, encoding="utf-8")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, case.folder / "wrong.c", "-ldl"], check=True, timeout=60)
    script = case.folder / "host.sh"
    lines = [f"[ $OMPI_COMM_WORLD_RANK = {rank} ] && export {name}=1 LD_PRELOAD={library}\n" for rank, name in enumerate(wrong) if name]
    script.write_text("#!/bin/sh\nexport SLURMD_NODENAME=n$OMPI_COMM_WORLD_RANK\n" + "".join(lines) + 'exec "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    return [str(script)]


def preflight(case, ranks, before):
    job = Job(case.folder, ranks, "preflight", *OPTIONS, "--dir", case.folder, "--exclude", case.folder / "bad", "--set", "run.device=cpu", before=before)
    job.expect(OK)
    return job, (case.folder / "bad").read_text(encoding="utf-8")


def bad_hosts_are_named(case):
    if "asan" in os.environ.get("LD_PRELOAD", "") or os.environ.get("ESPL_TEST_LIGHT"):
        raise Skipped("libraries cannot be put in front of a sanitized program")
    job, bad = preflight(case, 4, hosts(case, None, "WRONG_CLOCK", "SLOW_DISK", None))
    check("2 of 4 hosts marked" in job.stdout and bad == "n1,n2\n", f"expected n1 and n2, got {bad!r}:\n{job.stdout}", job)
    lines = {line.split()[0]: line for line in job.stdout.splitlines()}
    check(re.search(r" \d+\.\d\*$", lines["n1"].rstrip()) and 19900 < float(lines["n1"].split()[-1][:-1]) < 20100, f"n1's clock:\n{job.stdout}")
    check(lines["n2"].count("*") == 1 and lines["n0"].count("*") == 0, f"n2's disk:\n{job.stdout}")


def like_hosts_are_not(case):
    job, bad = preflight(case, 3, hosts(case))
    check("0 of 3 hosts marked" in job.stdout and bad == "" and not re.search(r"\s-\s", job.stdout), f"expected no mark:\n{job.stdout}", job)
    check(not list(case.folder.glob("preflight-*")), "the disk's files are left")


def what_cannot_be_is_told(case):
    Job(case.folder, 2, "preflight", *OPTIONS, "--dir", case.folder / "missing").expect_failure(IO, "missing/preflight-")
    Job(case.folder, 0, "preflight", "--share", "2").expect_failure(USAGE, "--share 2")


if __name__ == "__main__":
    raise SystemExit(main([bad_hosts_are_named, like_hosts_are_not, what_cannot_be_is_told]))
