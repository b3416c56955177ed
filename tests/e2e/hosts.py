"""Hosts for tests, made of namespaces on this machine: each has its own name, network, process numbers, IPC and /dev/shm, and shares the file
system, as nodes of a cluster do. mpirun starts on the head, without ranks there, and reaches the others by an agent in ssh's place.
A host can lose its power, and its link can be cut, healed and slowed. No root is needed where users may make namespaces of their own, nothing is
added to the machine's network, and all of it is gone with its processes.

    with Hosts(case.folder / "hosts", 2) as hosts:
        job = hosts.start(case, 2, run__watchdog=6)   # two ranks on each of n1 and n2
        hosts.cut("n2")
"""

import os
import shutil
import signal
import subprocess
import time

import job as jobs
from job import Failed, Job, Skipped, check, reap_orphans, stat_of
from surroundings import dismiss, end_all, guard, members

NETWORK = "10.77.0"
HARDWARE = "02:00:00:00:00"  # addresses that stay when a host is booted again: others remember them
PROGRAMS = ["unshare", "nsenter", "ip", "tc", "mpirun"]
UNSHARE = ["unshare", "--net", "--uts", "--ipc", "--mount"]

# A launcher that lost a host learns it from TCP alone, with keepalive after minutes instead of hours: tests do not wait for that.
LAUNCHER = ["mpirun", "--bind-to", "none", "--mca", "btl", "self,vader,tcp", "--mca", "btl_vader_single_copy_mechanism", "none", "--mca", "mpi_yield_when_idle", "1"]

# Like ssh, the agent hears nothing when the other side loses its power, and waits.
AGENT = """#!/bin/sh
launcher=$PPID
while [ "${{1#-}}" != "$1" ]; do shift; done
host=$1
shift
nsenter -t "$(cat {folder}/$host.pid)" --net --uts --ipc --mount --pid sh -c "cd '$PWD' && $*"
code=$?
while [ $code -ge 128 ] && kill -0 $launcher; do sleep 0.1; done
exit $code
"""

# What a rank says goes to a file of its own: through the launcher it would not arrive from behind a link that is cut.
VOICE = """#!/bin/sh
exec "$@" 2>> "$VOICES/rank-$OMPI_COMM_WORLD_RANK"
"""


def script(path, text):
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def network_of(pid):
    """The network that a process is in; None when it is gone."""
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return None


class HostJob(Job):
    """A job over hosts. Its processes are found by its folder, which holds Open MPI's files and what each rank said."""

    def __init__(self, hosts, folder, *arguments, launcher, before, environment):
        self.folder = folder
        folder.mkdir()
        super().__init__(hosts.folder, 1, *arguments, around=hosts.enter("head", f"--wd={hosts.folder}"), launcher=launcher, before=before,
                         environment={"TMPDIR": str(folder), "VOICES": str(folder), **environment})

    def members(self):
        return members(self.folder)

    @property
    def stderr(self):
        return self.text(self.errors) + "".join(self.said().values())

    def said(self):
        """Rank -> what it wrote to stderr."""
        return {int(path.name[5:]): path.read_text(encoding="utf-8", errors="replace") for path in sorted(self.folder.glob("rank-*"))}


class Hosts:
    """A head and hosts n1 ... nN, with what they need in a new folder."""

    def __init__(self, folder, n):
        missing = [name for name in PROGRAMS if shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin") is None]
        if missing:
            raise Skipped(f"no hosts can be made here: {', '.join(missing)} missing")
        self.folder = folder
        self.folder.mkdir()
        self.names = [f"n{i + 1}" for i in range(n)]
        self.n_jobs = self.n_boots = 0
        self.running = {}  # name -> (unshare's Popen, id of the process whose namespaces are the host's)
        self.cables = {}  # name -> the head's end of its link
        self.environment = {**os.environ, "ESPL_TEST_HOSTS": str(self.folder)}
        self.agent = script(self.folder / "agent", AGENT.format(folder=self.folder))
        self.voice = script(self.folder / "voice", VOICE)
        rows = ["127.0.0.1 localhost", f"{NETWORK}.1 head", *(f"{self.address(name)} {name}" for name in self.names)]
        (self.folder / "hosts").write_text("\n".join(rows) + "\n", encoding="utf-8")

    @staticmethod
    def address(name):
        return f"{NETWORK}.{10 + int(name[1:])}"

    def enter(self, name, *options):
        """Words in front of a command that run it on a host (of the machine's process numbers, so not for what is to die with the host)."""
        return ["nsenter", "-t", str(self.running[name][1]), "--user", "--preserve-credentials", "--net", "--uts", "--ipc", "--mount", *options]

    def call(self, name, command):
        """A shell command in a host's network."""
        done = subprocess.run(["nsenter", "-t", str(self.running[name][1]), "--user", "--preserve-credentials", "--net", "sh", "-ec", command],
                              capture_output=True, text=True, timeout=30, check=False)
        check(done.returncode == 0, f"{name}: {command}: {done.stderr}")

    def __enter__(self):
        self.guard = guard(self.folder)
        try:
            self.boot_head()
            for name in self.names:
                self.boot(name)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *failure):
        end_all(self.folder)
        for process, _ in self.running.values():
            process.wait()
        dismiss(self.guard)
        reap_orphans()

    # ---- Power.

    def spawn(self, name, words, end):
        """A host's first process: it sets the host up and says so. `end`: how it then waits."""
        setup = f"hostname {name} && mount -t tmpfs tmpfs /dev/shm && mount --bind {self.folder}/hosts /etc/hosts && ip link set lo up && echo up && {end}"
        process = subprocess.Popen([*words, "sh", "-c", setup], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   env=self.environment, start_new_session=True)
        if process.stdout.readline() != "up\n":
            process.kill()
            raise Skipped(f"no hosts can be made here: {process.communicate()[1].strip()}")
        return process

    def boot_head(self):
        process = self.spawn("head", [*UNSHARE, "--user", "--map-root-user"], "exec sleep infinity")
        self.running["head"] = process, process.pid
        self.call("head", f"ip link add bridge address {HARDWARE}:01 type bridge; ip addr add {NETWORK}.1/24 dev bridge; ip link set bridge up")

    def boot(self, name):
        """Its first process takes in orphans, as init does, and everything on the host dies with it."""
        inside = ["nsenter", "-t", str(self.running["head"][1]), "--user", "--preserve-credentials"]
        process = self.spawn(name, [*inside, *UNSHARE, "--pid", "--mount-proc", "--fork", "--kill-child"], "while :; do sleep 1000 & wait $!; done")
        children = f"/proc/{process.pid}/task/{process.pid}/children"
        with open(children, encoding="ascii") as file:
            first = int(file.read().split()[0])
        (self.folder / f"{name}.pid").write_text(str(first), encoding="ascii")
        self.running[name] = process, first
        self.n_boots += 1
        cable = self.cables[name] = f"cable{self.n_boots}"
        self.call("head", f"ip link add {cable} type veth peer name eth0 address {HARDWARE}:{10 + int(name[1:])} netns {first}; ip link set {cable} master bridge up")
        self.call(name, f"ip addr add {self.address(name)}/24 dev eth0; ip link set eth0 up")
        self.carries(name)

    def power_off(self, name):
        """Nothing that ran there says a last word: the link goes first."""
        self.call("head", f"ip link del {self.cables.pop(name)}")
        process, first = self.running.pop(name)
        os.kill(first, signal.SIGKILL)
        process.wait()

    # ---- Links.

    def cut(self, name):
        """Packets vanish from now on, and nobody is told."""
        self.call("head", f"ip link set {self.cables[name]} down")

    def heal(self, name):
        self.call("head", f"ip link set {self.cables[name]} up")
        self.carries(name)

    def carries(self, name):
        """Waits until both ends of the link are up: the kernel tells a carrier up to a second later."""
        for place, device in (("head", self.cables[name]), (name, "eth0")):
            self.call(place, f"for i in $(seq 100); do ip link show {device} | grep -q 'state UP' && exit 0; sleep 0.05; done; ip link show {device} >&2; exit 1")

    def slow(self, name, rate):
        """At most `rate` ("20mbit") out of the host; None: as fast as it goes."""
        self.call(name, f"tc qdisc replace dev eth0 root {f'tbf rate {rate} burst 32kb latency 400ms' if rate else 'noqueue'}")

    def mend(self):
        """All hosts are on, their links carry what they can."""
        for name in self.names:
            if name not in self.running:
                self.boot(name)
            self.heal(name)
            self.slow(name, None)

    # ---- Jobs.

    def launch(self, a_host, *words, names=None, environment=None, before=()):
        """The program with these words, by `a_host` ranks on each of `names` (all hosts)."""
        self.n_jobs += 1
        names = names or self.names
        launcher = [*LAUNCHER, "--mca", "plm_rsh_agent", self.agent, "-n", str(a_host * len(names)), "-H", ",".join(f"{name}:{a_host}" for name in names)]
        return HostJob(self, self.folder / f"job-{self.n_jobs}", *words, launcher=launcher, before=[self.voice, *before], environment=environment or {})

    def start(self, case, a_host, run="run", names=None, environment=None, before=(), arguments=(), **keys):
        """Training."""
        return self.launch(a_host, "train", case.config(run, **keys), *arguments, names=names, environment=environment, before=before)

    def on(self, job, name):
        """Rank -> process id of the job's ranks on a host."""
        network = network_of(self.running[name][1])
        return {rank: pid for rank, pid in job.pids().items() if network_of(pid) == network}
