"""Memory that a step frees stays with the process: counted by the kernel, in page faults."""

import json
import os
import platform
import subprocess
import sys

import pytest

STEPS, MEBIBYTES = 10, 64
PROGRAM = f"""
import json, resource, torch
from igo.config.schema import EngineConfig
from igo.train import engine

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range({STEPS}):
        torch.ones({MEBIBYTES} * 2**18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
engine.build(EngineConfig(device="cpu"))
faults()  # the first step of all takes the memory
print(json.dumps([before, faults()]))
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_a_step_takes_no_new_memory():
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    before, after = json.loads(done.stdout)
    assert before > 10 * STEPS  # 32 huge or 16,384 small pages each
    assert after < STEPS
