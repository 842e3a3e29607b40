"""A Slurm of one node on this machine, started for tests: munge, controller and daemon.

Everything lies in one folder: keys, sockets, state, logs. It has two CPUs (as far as Slurm is
concerned) and two GPUs that do not exist, so that the shape of a job can be asked for.
"""

import contextlib
import ctypes
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "scancel")
CONF = """
ClusterName=little
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller}
SlurmdPort={daemon}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldParameters=enable_configless
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0,sched_min_interval=0
EnforcePartLimits=ALL
ReturnToService=2
MinJobAge=86400
KillWait=20
SlurmdTimeout=60
SlurmctldTimeout=60
LaunchParameters=disable_send_gids
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=2000 Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=600 State=UP PriorityTier=1
PartitionName=urgent Nodes={host} MaxTime=600 State=UP PriorityTier=9
PartitionName=closed Nodes={host} MaxTime=600 State=UP AllowAccounts=others
"""


class Unavailable(Exception):
    """No Slurm can be started here; the message says why."""


class Cluster:
    """Slurm with one node."""

    def __init__(self, folder: Path):
        self.folder, self.node = folder, socket.gethostname().split(".")[0]
        self._processes: list[subprocess.Popen] = []

    @property
    def environment(self) -> dict[str, str]:
        """What commands of this Slurm need beside what is set."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": programs()}

    def start(self) -> None:
        """Start the three daemons and wait until the node takes jobs.

        Raises:
            Unavailable: A program is missing, a daemon ended, or the node did not come up.
        """
        if missing := [name for name in PROGRAMS if not shutil.which(name, path=programs())]:
            raise Unavailable(f"not installed: {', '.join(missing)} (Debian: slurm-wlm, munge)")
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        values = dict(host=self.node, user=getpass.getuser())
        values |= dict(zip(("controller", "daemon"), free_ports(2), strict=True))
        conf = CONF.format(folder=self.folder, **values)
        (self.folder / "slurm.conf").write_text(conf)
        for number in range(2):
            (self.folder / f"gpu{number}").touch()
        (self.folder / "gres.conf").write_text(f"Name=gpu File={self.folder}/gpu[0-1]\n")
        own = [f"--{name}={self.folder}/munge.{end}" for name, end in MUNGE.items()]
        self._daemon("munged", "--foreground", "--force", "--num-threads=2", *own)
        self._until(lambda: (self.folder / "munge.sock").exists(), "munged", 10)
        self._daemon("slurmctld", "-D", "-i")
        self._daemon("slurmd", "-D", "-N", self.node, "-f", self.environment["SLURM_CONF"])
        self._until(self._idle, "slurmctld and slurmd", 40)

    def _daemon(self, program: str, *arguments: str) -> None:
        log = (self.folder / f"{program}.out").open("wb")
        environment = os.environ | self.environment
        command = [shutil.which(program, path=programs()), *arguments]
        options = dict(stdout=log, stderr=log, env=environment, start_new_session=True)
        started = subprocess.Popen(command, **options, preexec_fn=_end_with_parent)
        self._processes.append(started)
        log.close()

    def _idle(self) -> bool:
        asked = self.ask("sinfo", "--noheader", "--partition=main", "--format=%T", check=False)
        return asked.strip() == "idle"

    def _until(self, true, what: str, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not true():
            dead = [p for p in self._processes if p.poll() is not None]
            if dead or time.monotonic() > end:
                raise Unavailable(f"{what} did not start:\n{self.told()}")
            time.sleep(0.1)

    def told(self) -> str:
        """Return the last lines of each log of the daemons."""
        logs = [*sorted(self.folder.glob("*.out")), *sorted(self.folder.glob("*.log"))]
        return "\n".join(
            f"{path.name}: {line}"
            for path in logs
            for line in path.read_text(errors="replace").splitlines()[-6:]
        )

    def ask(self, *command: str, check: bool = True) -> str:
        """Run a command of Slurm and return what it prints."""
        environment = os.environ | self.environment
        options = dict(capture_output=True, text=True, env=environment, timeout=900)
        return subprocess.run(command, check=check, **options).stdout

    def job(self, number: str) -> dict[str, str]:
        """Return what the controller knows of a job, by name; empty if it has forgotten it."""
        told = self.ask("scontrol", "--oneliner", "show", "job", number, check=False)
        return dict(word.split("=", 1) for word in told.split() if "=" in word)

    def wait(self, number: str, *states: str, seconds: float = 400) -> str:
        """Wait until a job has one of these states, by default an end, and return it."""
        states = states or ENDS
        end = time.monotonic() + seconds
        while (state := self.job(number).get("JobState", "")) not in states:
            if time.monotonic() > end:
                raise TimeoutError(f"job {number} is {state}, not {states}\n{self.told()}")
            time.sleep(0.2)
        return state

    def stop(self) -> None:
        """Cancel all jobs and end the daemons, the last first; nothing stays behind."""
        if len(self._processes) == 3:
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                self.ask("scancel", "--full", f"--user={getpass.getuser()}", check=False)
                end = time.monotonic() + 30
                while self.ask("squeue", "--noheader", check=False).strip():
                    if time.monotonic() > end:
                        break
                    time.sleep(0.2)
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def programs() -> str:
    """Return where programs are looked for: daemons lie in folders of the system."""
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/local/sbin"


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: a killed test leaves no daemon


ENDS = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL")
MUNGE = {"socket": "sock", "key-file": "key", "pid-file": "pid", "log-file": "log"}
MUNGE |= {"seed-file": "seed"}


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens at now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def cluster():
    """Give a running cluster in a short folder of its own (sockets), and take it down.

    Raises:
        Unavailable: With the reason.
    """
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    folder.chmod(0o755)  # munge's socket is for everyone
    made = Cluster(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)
