"""A real SLURM of one node in its own folder, with two fake GPUs.

Requires root, and Debian's slurmctld, slurmd, slurm-client and munge. The node's only address is 127.0.0.1, and the
socket of munged is in the folder.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from support.seaweed import free_ports
from support.servers import wait_until

REQUIRED = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "squeue", "mknod")


class Slurm:
    """A SLURM cluster; its commands need `environment`."""

    def __init__(self) -> None:
        if missing := [name for name in REQUIRED if not shutil.which(name)]:
            raise SystemExit(f"missing: {', '.join(missing)}; apt-get install slurmctld slurmd slurm-client munge")
        self.folder = Path(tempfile.mkdtemp(prefix="netsim-slurm-"))
        self.folder.chmod(0o755)  # all users must reach munged's socket
        self.environment = os.environ | {"SLURM_CONF": str(self.folder / "slurm.conf")}
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start munged, the controller and the node, and wait until the node is idle."""
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        for gpu in range(2):
            subprocess.run(["mknod", str(self.folder / f"gpu{gpu}"), "c", "1", "3"], check=True)  # as /dev/null
        self._configure()
        files = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munge.pid"}
        files |= {"log-file": "munge.log", "seed-file": "munge.seed"}
        self._run("munged", "--foreground", *(f"--{option}={self.folder / name}" for option, name in files.items()))
        wait_until((self.folder / "munge.socket").exists, seconds=30, what=self._logs)
        self._run("slurmctld", "-D", "-c")
        self._run("slurmd", "-D", "-N", socket.gethostname().split(".")[0])
        wait_until(lambda: "idle" in self.ask("sinfo", "--noheader", "--format=%T"), seconds=30, what=self._logs)

    def _configure(self) -> None:
        controller, node = free_ports(2)
        host, folder = socket.gethostname().split(".")[0], self.folder
        for name in ("state", "spool"):
            (folder / name).mkdir()
        (folder / "gres.conf").write_text(f"NodeName={host} Name=gpu File={folder}/gpu[0-1]\n")
        (folder / "cgroup.conf").write_text("CgroupPlugin=autodetect\n")
        (folder / "slurm.conf").write_text(
            f"""
ClusterName=netsim
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort={controller}
SlurmdPort={node}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
ReturnToService=2
MailProg=/bin/true
NodeName={host} NodeAddr=127.0.0.1 CPUs={os.cpu_count()} RealMemory=4000 Gres=gpu:2 State=UNKNOWN
PartitionName=gpu Nodes={host} Default=YES MaxTime=1-00:00:00 State=UP
"""
        )

    def ask(self, *command: str) -> str:
        """Return the output of a SLURM command."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        return done.stdout

    def jobs(self) -> list[str]:
        """List the numbers of the running jobs."""
        return self.ask("squeue", "--noheader", "--states=R", "--format=%i").split()

    def _run(self, *command: str) -> None:
        with (self.folder / f"{command[0]}.out").open("wb") as output:
            options = {"env": self.environment, "stdout": output, "stderr": output, "start_new_session": True}
            self._processes.append(subprocess.Popen(command, **options))  # type: ignore[call-overload]

    def _logs(self) -> str:
        return "\n".join(path.read_text()[-1500:] for path in self.folder.glob("*.out"))

    def kill(self) -> None:
        """Cancel the jobs, end all processes and remove the folder."""
        self.ask("scancel", "--user=root")
        time.sleep(1)
        for process in reversed(self._processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        shutil.rmtree(self.folder)
