"""Both web UIs on this machine, with the right folders: `make ui`. Ctrl-C stops both.

    python -m orchestration.ui --dagster-port 3000 --mlflow-port 5000      # as DAGSTER_PORT and
                                                                           # MLFLOW_PORT of make

They listen on 127.0.0.1 only: neither asks for a password.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from orchestration.home import environment
from orchestration.leftovers import at_work, end_if_nobody_is_at_work
from orchestration.partitions import project
from orchestration.resources import MlflowTracking

HOST = "127.0.0.1"
READY_SECONDS = 120
STOP_SECONDS = 15


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until Ctrl-C (exit code 0), or until one of the two ends by itself (exit code 1)."""
    parser = argparse.ArgumentParser(prog="python -m orchestration.ui", description=__doc__)
    parser.add_argument("--dagster-port", type=int, default=3000)
    parser.add_argument("--mlflow-port", type=int, default=5000)
    ports = parser.parse_args(arguments)

    os.environ.update(environment(project.folder))
    os.environ.setdefault("MLFLOW_UI_URL", f"http://{HOST}:{ports.mlflow_port}")
    servers = {"Dagster": (ports.dagster_port, dagster_command(ports.dagster_port))}
    tracking = MlflowTracking(root=project.root)
    if tracking.uri.startswith("http"):
        print(f"MLflow   {tracking.ui} (MLFLOW_TRACKING_URI; not started here)")
    else:
        tracking.client()  # makes the tables, which the server's workers would all try at once
        servers["MLflow"] = (ports.mlflow_port, mlflow_command(tracking.uri, ports.mlflow_port))

    for name, (port, _) in servers.items():
        if is_open(port):
            other = f"make ui {name.upper()}_PORT={port + 1}"
            print(f"{name} cannot use port {port}, something else does; choose another: {other}")
            return 2
    if ended := end_if_nobody_is_at_work(project.folder):
        print(f"{len(ended)} run(s) of processes that are gone are marked as failed")
    with at_work(project.folder):  # so that a second one, on other ports, ends none of its runs
        return run(servers)


def dagster_command(port: int) -> list[str]:
    module = ["-m", "orchestration.definitions"]
    return [sys.executable, "-m", "dagster", "dev", *module, "-h", HOST, "-p", str(port)]


def mlflow_command(store: str, port: int) -> list[str]:
    address = ["--host", HOST, "--port", str(port)]
    return [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, *address,
            "--workers", "1"]  # 260 MB each  # fmt: skip


def run(servers: dict[str, tuple[int, list[str]]]) -> int:
    """Start all, say where they are, wait, stop all."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    log = project.folder / ".xmc" / "ui.log"
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        with log.open("ab") as output:
            for name, (_, command) in servers.items():
                running[name] = subprocess.Popen(
                    command,
                    cwd=project.folder,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        print(
            f"starting {' and '.join(servers)}; log: {log.relative_to(project.folder)}", flush=True
        )
        waiting = {name: port for name, (port, _) in servers.items()}
        began = time.monotonic()
        while True:
            for name in [name for name, port in waiting.items() if is_open(port)]:
                print(f"{name:<8} http://{HOST}:{waiting.pop(name)}", flush=True)
                if not waiting:
                    print("Ctrl-C stops both.", flush=True)
            ended = [name for name, process in running.items() if process.poll() is not None]
            if ended or (waiting and time.monotonic() - began > READY_SECONDS):
                print(f"{', '.join(ended or waiting)} did not stay up; see the log.", flush=True)
                return 1
            time.sleep(0.5)
    except KeyboardInterrupt:
        return 0
    finally:
        for sign in (signal.SIGINT, signal.SIGTERM):  # a second Ctrl-C would leave servers behind
            signal.signal(sign, signal.SIG_IGN)
        stop(running)


def stop(running: dict[str, subprocess.Popen[bytes]]) -> None:
    """Ask each group of processes to end; after a while, make them."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for process in running.values():
            if process.poll() is None:
                os.killpg(process.pid, sign)
        for process in running.values():
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                continue


def is_open(port: int) -> bool:
    """Does anything listen there?"""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((HOST, port)) == 0


if __name__ == "__main__":
    sys.exit(main())
