"""A machine of Debian 12 for its start: this machine's own files, with all changes thrown away at its end.

Its root is an overlay of ours in a mount namespace, so that a script may make users, mounts and units. Disks
are loop devices, the metadata and AWS are on loopback, and the address is one of loopback's. What is not
there is systemd as the first process: units are started by `START_UNITS`, which reads them.
"""

import functools
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from telemetry_lake.project_files import PROJECT_ROOT

START_SECONDS: Final = 300.0
DISK_BYTES: Final = 256 * 1024 * 1024
NEEDED: Final = ("unshare", "chroot", "losetup", "mkfs.ext4", "blkid", "useradd", "runuser", "curl")
PATH_OF_ROOT: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PREPARE: Final = textwrap.dedent("""\
    set -euo pipefail
    stage=$1 device=$2 name=$3
    shift 3
    # Not on the disk: it may be an overlay itself, which cannot hold the changes of another one.
    mount -t tmpfs tmpfs "$stage"
    mkdir "$stage/changes" "$stage/work" "$stage/root"
    mount -t overlay overlay -o "lowerdir=/,upperdir=$stage/changes,workdir=$stage/work" "$stage/root"
    root=$stage/root
    for folder in "$@"; do
        mkdir -p "$root$folder"
        mount --bind "$folder" "$root$folder"
        above=$folder
        # An ordinary user has to come here.
        while above=$(dirname "$above"); [ "$above" != / ]; do chmod a+rx "$root$above"; done
    done
    mount -t proc proc "$root/proc"
    mount -t tmpfs tmpfs "$root/dev"
    for node in null zero full random urandom tty "$(basename "$device")"; do
        touch "$root/dev/$node"
        mount --bind "/dev/$node" "$root/dev/$node"
    done
    ln -s /proc/self/fd "$root/dev/fd"
    mkdir -p "$root/dev/disk/by-id" "$root/dev/shm" "$root/run"
    chmod 1777 "$root/dev/shm"
    ln -s "$device" "$root/dev/disk/by-id/$name"
    exec chroot "$root" bash -s
    """)
TRY: Final = textwrap.dedent("""\
    mount -t tmpfs tmpfs /mnt
    mkdir /mnt/changes /mnt/work /mnt/root
    mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/changes,workdir=/mnt/work /mnt/root
    mount -t proc proc /mnt/root/proc
    truncate --size 16M /mnt/disk
    device=$(losetup --find --show /mnt/disk)
    mkfs.ext4 -q "$device" && mount "$device" /mnt/root/mnt && umount /mnt/root/mnt
    losetup --detach "$device"
    """)
START_UNITS: Final = textwrap.dedent("""\
    import os, pathlib, pwd, shlex, subprocess, sys

    command, *names = [word for word in sys.argv[1:] if not word.startswith("--")]
    for name in names if command == "enable" else ():
        text = pathlib.Path(f"/etc/systemd/system/{name}.service").read_text().replace("\\\\\\n", " ")
        pairs = [line.partition("=")[::2] for line in text.splitlines() if "=" in line and line[0] != "#"]
        unit = dict(pairs)
        variables = [value for key, value in pairs if key == "Environment"]
        if file := unit.get("EnvironmentFile"):
            variables += pathlib.Path(file).read_text().splitlines()
        # As `systemctl set-environment` would give them to all units.
        given = {key: os.environ[key] for key in os.environ["FOR_UNITS"].split()}
        started = subprocess.Popen(
            shlex.split(unit["ExecStart"]),
            cwd=unit["WorkingDirectory"],
            env={"PATH": os.environ["PATH"], **given, **dict(pair.split("=", 1) for pair in variables)},
            user=pwd.getpwnam(unit.get("User", "root")).pw_uid,
            group=pwd.getpwnam(unit.get("User", "root")).pw_gid,
            extra_groups=[],
            stdin=subprocess.DEVNULL,
            stdout=open(f"/var/log/{name}.log", "ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        pathlib.Path(f"/run/{name}.main").write_text(str(started.pid))
    """)


@dataclass(frozen=True, slots=True)
class DebianMachine:
    """A machine that has not started yet: its disk, and a folder of its own."""

    folder: Path
    disk: str
    """The device."""

    def start(
        self, script: str, variables: Mapping[str, str], *, disk_name: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run a start script to its end, as cloud-init does: as root, with hardly a variable.

        The disk is found as `disk_name` in /dev/disk/by-id. Units get `variables`, too.
        """
        stage = self.folder / "stage"
        stage.mkdir(exist_ok=True)
        base = Path(sys.base_prefix)
        prelude = textwrap.dedent(f"""\
            export PATH={PATH_OF_ROOT}
            ln -sf {base / "bin" / "python3.11"} /usr/local/bin/python3.11
            printf '%s' "$SYSTEMCTL" >/usr/local/bin/systemctl
            chmod 755 /usr/local/bin/systemctl
            """)
        systemctl = f"#!{base / 'bin' / 'python3.11'}\n{START_UNITS}"
        return subprocess.run(
            [
                "unshare",
                "--mount",
                "--propagation",
                "private",
                "bash",
                "-c",
                PREPARE,
                "prepare",
                str(stage),
                self.disk,
                disk_name,
                str(PROJECT_ROOT),
                str(base),
            ],
            input=prelude + script,
            env={"PATH": PATH_OF_ROOT, "SYSTEMCTL": systemctl, "FOR_UNITS": " ".join(variables), **variables},
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )

    def processes(self) -> list[int]:
        """Return the ids of the processes whose root is in this machine's folder."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (entry / "root").readlink().is_relative_to(self.folder):
                    found.append(int(entry.name))
        return found

    def kill(self) -> None:
        """Kill all of its processes."""
        for process in self.processes():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def stop(self, unit: str) -> None:
        """Send SIGTERM to the main process of a unit, as systemd does with `KillMode=mixed`."""
        os.kill(int(self.run("cat", f"/run/{unit}.main")), signal.SIGTERM)

    def logs(self) -> str:
        """Return what the units have printed; nothing when none runs."""
        found = [Path(f"/proc/{process}/root/var/log") for process in self.processes()[:1]]
        return "".join(log.read_text() for folder in found for log in folder.glob("telemetry-lake-*.log"))

    def run(self, *command: str) -> str:
        """Run a command in the started machine as root. Returns what it prints."""
        process, *_ = self.processes()
        inside = ("nsenter", f"--target={process}", "--mount", f"--root=/proc/{process}/root", *command)
        return subprocess.run(inside, check=True, capture_output=True, text=True).stdout


@functools.cache
def missing() -> str | None:
    """Return what this machine lacks for another one inside of it; None when it lacks nothing."""
    if os.geteuid() != 0:
        return "only root makes overlays and loop devices"
    if lacking := [name for name in NEEDED if shutil.which(name, path=PATH_OF_ROOT) is None]:
        return f"{', '.join(lacking)} not installed"
    if subprocess.run(["unshare", "--mount", "sh", "-ec", TRY], capture_output=True, check=False).returncode:
        return "this machine lets nobody make overlays and disks"
    return None


@contextmanager
def debian_machine(folder: Path) -> Iterator[DebianMachine]:
    """Yield a machine with an empty disk. Ends what runs in it."""
    disk = folder / "disk"
    with disk.open("wb") as file:
        file.truncate(DISK_BYTES)
    device = subprocess.run(
        ["losetup", "--find", "--show", disk], check=True, capture_output=True, text=True
    ).stdout.strip()
    machine = DebianMachine(folder, device)
    try:
        yield machine
    finally:
        machine.kill()
        subprocess.run(["losetup", "--detach", device], check=True)
