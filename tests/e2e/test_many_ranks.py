# test: tier=default timeout=200 sanitized=no
"""64 ranks on whatever cores there are start, train three steps and save within the time that stands here; how long 1, 4, 16 and 64 take to
start is printed."""

import sys
import time

from job import check, main

LIMIT = 120  # seconds from the launch to the end, for 64 ranks; on two cores a start alone takes some 10


def sixty_four_ranks_start_train_and_save(case):
    started = {}
    for ranks in (1, 4, 16, 64):
        run = f"run-{ranks}"
        launched, begun = time.time(), time.monotonic()
        job = case.start(ranks, run, train__steps=3, train__micro_batches=64, train__micro_batch_tokens=64, run__watchdog=LIMIT)
        job.until = begun + LIMIT
        job.expect(0)
        started[ranks] = case.metrics(run, "start")[0]["time"] - launched
        check(case.steps(run) == [1, 2, 3] and 3 in case.checkpoints(run), f"{ranks} ranks: not three steps and a checkpoint", job)
        print(f"    {ranks:2} ranks: started after {started[ranks]:.1f} s, all done after {time.monotonic() - begun:.1f} s")
    check(case.digest("run-1") == case.digest("run-64"), "64 ranks have other weights than one")


if __name__ == "__main__":
    sys.exit(main([sixty_four_ranks_start_train_and_save]))
