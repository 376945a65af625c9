"""The quick tests in three environments: `nox`, or one of them: `nox -s hosted-3.12 -- -n 2`.

Arguments after `--` are those of pytest; `-m versions` is a small set for any of them. A session
whose Python is not installed is skipped with a message.
"""

import nox

nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False
nox.options.reuse_venv = "yes"

# What Kaggle and Colab install, except Python 3.13 on Colab (August 2026).
HOSTED = (
    "jax==0.7.2",
    "flax==0.11.2",
    "optax==0.2.5",
    "orbax-checkpoint==0.11.28",
    "tensorflow-cpu==2.20.*",
    "numpy==2.1.*",
    "protobuf==5.29.*",
)


@nox.session(python=["3.11", "3.13"])
def newest(session: nox.Session) -> None:
    """The newest versions of all packages."""
    session.install(".[test]")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(python=["3.12"])
def hosted(session: nox.Session) -> None:
    """The versions of hosted notebooks, which are about the oldest that `setup.cfg` accepts."""
    session.install(".[test]", *HOSTED)
    session.run("python", "-m", "pytest", *session.posargs)
