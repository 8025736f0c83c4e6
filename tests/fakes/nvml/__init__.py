"""A fake libnvidia-ml.so.1, for driving the real pynvml and whatever stands on it.

fake = FakeNvml(tmp_path, gpus=2)
server = subprocess.Popen([...], env=os.environ | fake.env)      # another process
with fake.loaded(): NvmlBackend().open()                         # this process
fake.allocate(0, pid, 8 * GIB)                                   # seen at its next query
fake.lose(1); fake.hang(0, seconds=30); fake.driver_gone(); ...  # and back: restore, answer, driver_back
"""

from fakes.nvml.fake import GIB, NOT_AVAILABLE, FakeGpu, FakeNvml
from fakes.nvml.library import library, require_compiler

__all__ = ["GIB", "NOT_AVAILABLE", "FakeGpu", "FakeNvml", "library", "require_compiler"]
