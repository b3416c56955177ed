"""A small disk of its own for a test: a file system in a file, mounted over a loop device, whose power can be cut and which can be full."""

import fcntl
import os
import shutil
import struct
import subprocess

from job import Skipped, check

IOC_SHUTDOWN, WITHOUT_FLUSHING_THE_LOG = 0x8004587D, 2  # ext4's EXT4_IOC_SHUTDOWN, as xfstests cut power
SIZE = 64 << 20


def attempt(*words):
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


def call(*words):
    done = attempt(*words)
    check(done.returncode == 0, f"{' '.join(map(str, words))}: {done.stderr}")
    return done.stdout


class Disk:
    """with Disk(folder) as disk: ... in folder/disk. Where it cannot be mounted (no root, no loop device) it is a plain folder, and why not says why."""

    def __init__(self, folder):
        self.image, self.path = folder / "disk.ext4", folder / "disk"
        self.path.mkdir()
        self.why_not = None

    def __enter__(self):
        if os.geteuid() != 0 or shutil.which("mkfs.ext4", path=os.environ["PATH"] + ":/usr/sbin:/sbin") is None:
            self.why_not = "root and mkfs.ext4 are needed"
            return self
        with open(self.image, "wb") as file:
            file.truncate(SIZE)
        call("mkfs.ext4", "-q", "-F", self.image)
        done = attempt("mount", "-o", "loop", self.image, self.path)
        if done.returncode != 0:
            self.why_not = f"no file system can be mounted: {done.stderr.strip()}"
        return self

    def __exit__(self, *failure):
        if self.why_not is None:
            call("umount", "--lazy", self.path)

    def must_be_real(self):
        if self.why_not is not None:
            raise Skipped(self.why_not)

    # ---- Faults.

    def cut_power(self):
        """From now on nothing reaches the disk, and what had not is lost."""
        self.must_be_real()
        folder = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, IOC_SHUTDOWN, struct.pack("I", WITHOUT_FLUSHING_THE_LOG))
        finally:
            os.close(folder)

    def mount_again(self):
        """What is on the disk, in a file system that knows nothing of before: in a copy, because whatever made a mount namespace meanwhile (another
        test) holds the old one."""
        call("umount", "--lazy", self.path)
        copy = self.image.with_name("copy")
        call("cp", "--sparse=always", self.image, copy)
        copy.rename(self.image)
        call("mount", "-o", "loop", self.image, self.path)

    def fill(self):
        """Nothing is left, to the last block."""
        self.must_be_real()
        with open(self.path / "ballast", "ab", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    continue

    def make_room(self):
        (self.path / "ballast").unlink()
