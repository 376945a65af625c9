"""Commands as a user starts them, forked from a process that has imported jax and TensorFlow.

Importing them takes a command longer than its work on a few small images. Where the interpreter,
its environment or the order of imports matters, a test starts Python itself.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import threading

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["flowers_jax.run", "flowers_jax.train", "tensorflow"])


class Command:
    """A module of the package (`predict`) or a script (`scripts/report.py`), like a `Popen`."""

    def __init__(self, name, *arguments):
        self.args = [name, *map(str, arguments)]
        reader, writer = _FORKS.Pipe(duplex=False)
        self.stdout = os.fdopen(os.dup(reader.fileno()), encoding="utf-8")
        reader.close()
        self.stderr = tempfile.NamedTemporaryFile("r", encoding="utf-8")
        # The real images are not found by accident.
        environment = {k: v for k, v in os.environ.items() if k != "FLOWERS_DIR"}
        arguments = (self.args, writer, self.stderr.name, environment)
        self._process = _FORKS.Process(target=_run, args=arguments, daemon=True)
        self._process.start()
        writer.close()
        self.pid, self.kill, self.terminate = (
            getattr(self._process, name) for name in ("pid", "kill", "terminate")
        )

    @property
    def returncode(self):
        return self._process.exitcode

    def communicate(self, timeout=300):
        """What remains of its output and all errors, when it has ended; kills it if it does not."""
        alarm = threading.Timer(timeout, self.kill)
        alarm.start()
        output = self.stdout.read()
        self._process.join()
        alarm.cancel()
        return output, self.stderr.read()


def run(name, *arguments):
    """Runs a command to its end."""
    command = Command(name, *arguments)
    output, errors = command.communicate()
    return subprocess.CompletedProcess(command.args, command.returncode, output, errors)


def _run(arguments, stdout, stderr, environment):
    os.dup2(stdout.fileno(), sys.stdout.fileno())
    stdout.close()
    os.dup2(os.open(stderr, os.O_WRONLY), sys.stderr.fileno())
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = arguments
    name = arguments[0]
    if name.endswith(".py"):
        sys.path.insert(0, os.path.dirname(os.path.abspath(name)))
        runpy.run_path(name, run_name="__main__")
    else:
        runpy.run_module(f"flowers_jax.{name}", run_name="__main__", alter_sys=True)
