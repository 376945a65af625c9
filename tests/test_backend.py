import os
import subprocess
import sys

import pytest

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
