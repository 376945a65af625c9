import os
import subprocess
import sys

import pytest

from flowers_jax.ops import backend

SCRIPT = """
import jax
from flowers_jax.ops import backend
backend.use_compilation_cache()
print(jax.config.jax_compilation_cache_dir, jax.config.jax_compilation_cache_max_size)
"""


@pytest.mark.parametrize(
    ("home", "expected"),
    [("{tmp_path}/cache", "{tmp_path}/cache/flowers_jax 2000000000"), ("/dev/null", "None -1")],
)
def test_programs_are_kept_in_the_users_cache_folder_if_there_can_be_one(tmp_path, home, expected):
    environment = {**os.environ, "XDG_CACHE_HOME": home.format(tmp_path=tmp_path)}
    del environment["JAX_COMPILATION_CACHE_DIR"]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected.format(tmp_path=tmp_path)


DISPATCH = """
import jax
import jax.numpy as jnp
from flowers_jax.ops import backend
backend.reuse_memory()
x = jnp.ones((2000, 2000))
print(all(jax.jit(lambda x: x @ x)(x).is_ready() for _ in range(5)))
"""


def test_no_step_waits_on_a_cpu_and_holds_memory():
    done = subprocess.run(
        [sys.executable, "-c", DISPATCH], capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"


@pytest.mark.versions
@pytest.mark.parametrize(
    ("option", "value"),
    [*backend.GPU_OPTIONS.items(), *backend.DETERMINISTIC_GPU_OPTIONS.items()],
)
def test_this_jaxlib_has_the_options_that_a_gpu_gets(option, value):
    assert backend.is_known(option, value)
    assert not backend.is_known(f"{option}_misspelt", value)


def test_what_the_users_flags_name_is_left_to_them(monkeypatch):
    monkeypatch.setattr(backend.jax, "default_backend", lambda: "gpu")
    assert backend.compiler_options() == backend.GPU_OPTIONS
    assert backend.compiler_options(deterministic=True).keys() > backend.GPU_OPTIONS.keys()
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_enable_triton_gemm=true")
    assert "xla_gpu_enable_triton_gemm" not in backend.compiler_options()


@pytest.mark.parametrize("platform", ["cuda", "nonsense"])
def test_a_missing_device_is_one_sentence(platform):
    done = subprocess.run(
        [sys.executable, "-c", "from flowers_jax.ops import backend; backend.require_devices()"],
        env={**os.environ, "JAX_PLATFORMS": platform},
        capture_output=True,
        text=True,
    )
    assert f"UserError: JAX finds no device of {platform}" in done.stderr
