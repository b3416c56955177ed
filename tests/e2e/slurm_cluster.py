"""A real Slurm of some nodes on this machine, for tests: munged, slurmctld and slurmds as children of the test, in one folder, on ports of
their own, without systemd, cgroups or anything in /etc. Root is not needed."""

import os
import pathlib
import pwd
import random
import shutil
import socket
import subprocess
import time

from job import Failed, Skipped, check
from surroundings import dismiss, end_all, guard, members

PROGRAMS = ["munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel", "sinfo"]

# TmpFS is one a node: PMIx of the second node would find the first one's folder. cred_expire: a requeued job may not start again before its
# old credential has expired (120 s unless said otherwise). SlurmdTimeout and the like: nothing here may take long.
CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
TmpFS={folder}/tmp.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
KillWait=3
SlurmdTimeout=10
SlurmctldTimeout=10
SchedulerParameters=sched_interval=1,bf_interval=1
JobRequeue=1
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def is_free(port):
    with socket.socket() as s:
        try:
            s.bind(("", port))
        except OSError:
            return False
    return True


def free_ports(n):
    """Below those that the system gives to whoever asks (ip_local_port_range): until a daemon has bound it, no connection of another test takes one."""
    candidates = random.SystemRandom().sample(range(15000, 32000), 100 * n)
    return [port for port in candidates if is_free(port)][:n]


def program(name):
    return shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")


class Cluster:
    """with Cluster(folder, nodes) as cluster: ..."""

    def __init__(self, folder, nodes=2, cpus=4):
        missing = [name for name in PROGRAMS if program(name) is None]
        if missing:
            raise Skipped(f"no Slurm here ({', '.join(missing)}): launch/install_deps.sh --tests installs it on Debian")
        self.folder, self.nodes = folder, nodes
        self.daemons = []
        # Both nodes are this machine: Open MPI would put their ranks into shared memory by the host's name, each node's under the same names.
        outside = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH", "SRUN", "PMIX_", "OMPI_COMM_"))}
        self.environment = {**outside, "SLURM_CONF": str(folder / "slurm.conf"), "OMPI_MCA_btl": "tcp,self", "OMPI_MCA_btl_tcp_if_include": "lo"}
        folder.mkdir(mode=0o755)
        host = socket.gethostname().split(".")[0]
        control, *ports = free_ports(nodes + 1)
        rows = [f"NodeName=n{i + 1} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory=1000 State=UNKNOWN" for i, port in enumerate(ports)]
        for name in ["state"] + [f"{kind}.n{i + 1}" for kind in ("spool", "tmp") for i in range(nodes)]:
            (folder / name).mkdir()
        user = pwd.getpwuid(os.getuid()).pw_name
        (folder / "slurm.conf").write_text(CONF.format(host=host, control=control, user=user, folder=folder, nodes="\n".join(rows)), encoding="utf-8")
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n", encoding="utf-8")  # else slurmd wants a mounted cgroup file system
        key = folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)

    def daemon(self, name, *words):
        output = open(self.folder / f"{name}.out", "ab")
        self.daemons.append(subprocess.Popen([program(name), *words], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                             env=self.environment, start_new_session=True))
        output.close()

    def __enter__(self):
        self.guard = guard(self.folder)
        try:
            # --force: the folder of a test is closed to other users, which munged takes for a mistake
            self.daemon("munged", "-F", "--force", f"--socket={self.folder}/munge.sock", f"--key-file={self.folder}/munge.key", f"--pid-file={self.folder}/munged.pid",
                        f"--seed-file={self.folder}/munge.seed")
            self.wait_for("munge's socket", lambda: (self.folder / "munge.sock").exists(), 10)
            self.daemon("slurmctld", "-D", "-c")
            for i in range(self.nodes):
                self.daemon("slurmd", "-D", "-N", f"n{i + 1}")
            self.wait_for("idle nodes", lambda: self.ask("sinfo", "-h", "-t", "idle", "-o", "%D") == str(self.nodes), 30)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *failure):
        """Ends everything, whatever state it is in; nothing may be left."""
        for daemon in reversed(self.daemons):  # munged, which the others speak through, last
            try:
                daemon.terminate()
                daemon.wait(5)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        end_all(self.folder)
        dismiss(self.guard)
        check(not members(self.folder), f"processes of the cluster are left: {members(self.folder)}")

    def call(self, name, *words):
        return subprocess.run([program(name), *words], capture_output=True, text=True, env=self.environment, timeout=30)

    def ask(self, name, *words):
        return self.call(name, *words).stdout.strip()

    def logs(self):
        return "\n".join(f"    {p.name} | {line}" for p in sorted([*self.folder.glob("*.out"), *self.folder.glob("*.log")]) for line in p.read_text(errors="replace").splitlines()[-15:])

    def wait_for(self, what, condition, seconds):
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until:
                raise Failed(f"nothing of '{what}' within {seconds} s\n{self.logs()}")
            time.sleep(0.05)

    def submit(self, folder, script, *options, **environment):
        """sbatch from `folder`; the job's number. Its output goes to folder/JOB.out."""
        done = subprocess.run([program("sbatch"), "--parsable", f"--output={folder}/%j.out", *options, str(script)], capture_output=True, text=True,
                              env={**self.environment, **environment}, cwd=folder, timeout=30)
        check(done.returncode == 0, f"sbatch failed: {done.stderr}")
        return done.stdout.strip()

    def state(self, job):
        """(state, exit code, restarts) of a job."""
        words = dict(word.split("=", 1) for word in self.ask("scontrol", "show", "job", "-o", job).split() if "=" in word)
        return words.get("JobState"), words.get("ExitCode"), int(words.get("Restarts", 0))

    def finish(self, job, seconds):
        """Waits until the job is over, through all its lives; (state, exit code, restarts)."""
        over = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL", "OUT_OF_MEMORY")
        self.wait_for(f"an end of job {job}", lambda: self.state(job)[0] in over, seconds)
        return self.state(job)
