"""Stands for `docker compose` where no engine is: namespaces with a container's user, mounts, environment and network.

Reads docker/compose.yaml and the Dockerfiles. Knows run, exec, up, stop, logs, cp and build, which does nothing. Needs
root.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = Path(os.environ.get("COMPOSE_FILE", "docker/compose.yaml"))
ENGINE = Path(os.environ.get("STAND_IN_ENGINE", "engine")).resolve()
PROGRAMS = {"fedvault-node": "client", "fedvault-server": "server"}
SYSTEM = ("bin", "sbin", "usr", "lib", "lib32", "lib64", "etc", "dev", "proc", "sys")
FLAGS = {"--rm", "-T", "-d", "--no-deps", "-i"}


class Service:
    """One service of the compose file with what its image brings."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.facts: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"][name]
        self.dockerfile = (ROOT / self.facts["build"]["dockerfile"]).read_text().split("\nFROM ")[-1]
        self.user, self.group = self.facts["user"].split(":")

    @property
    def program(self) -> str:
        (found,) = re.findall(r'ENTRYPOINT \["(.*?)"\]', self.dockerfile)
        return str(found)

    @property
    def command(self) -> list[str]:
        (found,) = re.findall(r"^CMD (\[.*\])", self.dockerfile, re.M)
        return list(self.facts.get("command") or yaml.safe_load(found))

    @property
    def environment(self) -> dict[str, str]:
        block = re.sub(r"\\\n", " ", self.dockerfile)
        pairs = [pair for line in re.findall(r"^ENV (.*)$", block, re.M) for pair in re.findall(r"(\w+)=(\S+)", line)]
        found = {**dict(pairs), **self.facts.get("environment", {})}
        ours = {"PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": "/src", "COLUMNS": "200"}
        return found | ours | {"OMP_WAIT_POLICY": "passive"}  # other tests run beside it: no thread waits by spinning

    @property
    def folders(self) -> list[str]:
        """Commands that make the image's own folders below $R, with owner and mode."""
        block = re.sub(r"\\\n", " ", self.dockerfile)
        pattern = r"install --directory --owner (\d+) --group (\d+) --mode (\d+)((?: +/[\w/-]+)+)"
        return [
            f"install -d -o {owner} -g {group} -m {mode} $R{path}"
            for owner, group, mode, paths in re.findall(pattern, block)
            for path in paths.split()
        ]

    @property
    def mounts(self) -> list[tuple[Path, str, bool]]:
        """Source, target and whether it is read-only, outer ones first."""
        found = []
        for volume in self.facts["volumes"]:
            source, target, *mode = volume.split(":")
            place = COMPOSE.parent / source if source.startswith(".") else ENGINE / "volumes" / source
            found.append((place.resolve(), target, mode == ["ro"]))
        return sorted(found, key=lambda mount: len(mount[1]))

    def script(self, command: list[str]) -> str:
        """What to run in a mount namespace of its own."""
        lines = ["set -e; umask 022", f"R={ENGINE}/root", "mount -t tmpfs -o mode=0755 tmpfs $R"]
        for part in (Path("/") / name for name in SYSTEM):
            if part.is_symlink():
                lines.append(f"cp -P {part} $R{part}")
            elif part.is_dir():
                lines.append(f"mkdir $R{part} && mount --rbind {part} $R{part}")
        lines += ["mkdir -m 1777 $R/tmp && mount -t tmpfs -o mode=1777 tmpfs $R/tmp"]
        for path in {Path(sys.prefix), Path(sys.base_prefix)}:
            if path.parts[1] not in SYSTEM:
                lines.append(f"mkdir -p $R{path} && mount --bind {path} $R{path}")
        lines += [f"mkdir $R/src && mount --bind {ROOT} $R/src"]
        lines += [f"mount --bind {ENGINE}/hosts $R/etc/hosts", *self.folders]
        lines.append(f"exec 9>{ENGINE}/lock && flock 9")
        for source, target, _ in self.mounts:
            if ENGINE in source.parents:  # a new volume begins with what the image holds there
                lines += [f"[ -d {source} ] || cp -a $R{target} {source}"]
        lines.append("exec 9>&-")
        for source, target, read_only in self.mounts:
            make = f"mkdir -p $R{target}" if source.is_dir() or ENGINE in source.parents else f"touch $R{target}"
            lines += [f"[ -e $R{target} ] || {make}", f"mount --bind {source} $R{target}"]
            if read_only:
                lines.append(f"mount -o remount,bind,ro $R{target}")
        lines.append("mount -o remount,ro $R")
        environment = " ".join(f"{name}={value}" for name, value in self.environment.items())
        (built,) = re.findall(r"^WORKDIR (\S+)$", self.dockerfile, re.M) or ["/"]
        folder = self.facts.get("working_dir", built)
        who = f"setpriv --reuid {self.user} --regid {self.group} --clear-groups --no-new-privs --bounding-set=-all"
        module = [sys.executable, "-m", PROGRAMS[command[0]], *command[1:]]
        words = " ".join(f"'{word}'" for word in module)
        lines.append(f"exec chroot $R {who} env -i {environment} sh -c 'cd {folder} && exec \"$@\"' - {words}")
        return "\n".join(lines)

    def call(self, command: list[str]) -> list[str]:
        """The command line that runs a program in this container."""
        network = ["--net"] if self.facts.get("network_mode") == "none" else []
        return ["unshare", "--mount", "--propagation", "private", *network, "bash", "-c", self.script(command)]

    def up(self) -> None:
        """Start it, and what it depends on, in the background."""
        for other in self.facts.get("depends_on", []):
            Service(other).up()
        running = ENGINE / f"{self.name}.pid"
        if running.exists():
            return
        with (ENGINE / f"{self.name}.log").open("ab") as log:
            process = subprocess.Popen(
                self.call([self.program, *self.command]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        running.write_text(str(process.pid))
        process.returncode = 0  # it outlives us

    def stop(self) -> None:
        """End it."""
        running = ENGINE / f"{self.name}.pid"
        if running.exists():
            os.killpg(int(running.read_text()), signal.SIGTERM)
            running.unlink()

    def logs(self) -> None:
        """Print what it printed."""
        sys.stdout.write((ENGINE / f"{self.name}.log").read_text())

    def copy(self, path: str, target: Path) -> None:
        """Out of a volume; tmpfs cannot be copied from, as with an engine."""
        source, mount, _ = next(mount for mount in reversed(self.mounts) if path.startswith(f"{mount[1]}/"))
        shutil.copytree(source / path.removeprefix(f"{mount}/"), target)


def main(arguments: list[str]) -> int:
    """`compose VERB …`."""
    for folder in (ENGINE / "root", ENGINE / "volumes"):
        folder.mkdir(parents=True, exist_ok=True)
    (ENGINE / "hosts").write_text("127.0.0.1 localhost server\n")
    verb, *rest = arguments[1:]
    while rest and rest[0] in FLAGS:
        if rest.pop(0) == "--no-deps":
            verb = "alone"
    if verb == "cp":
        service, _, path = rest[0].partition(":")
        Service(service).copy(path, Path(rest[1]))
    elif verb in ("up", "stop", "logs"):
        for name in rest:
            getattr(Service(name), verb)()
    elif verb in ("run", "alone", "exec"):
        service, command = Service(rest[0]), rest[1:]
        for other in service.facts.get("depends_on", []) if verb == "run" else []:
            Service(other).up()
        return subprocess.run(
            service.call(command if verb == "exec" else [service.program, *command]), check=False
        ).returncode
    elif verb != "build":
        raise SystemExit(f"stand-in: {verb!r} is not known")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
