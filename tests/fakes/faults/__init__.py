"""Faults of the machine below a real process: its disk, its wall clock, its death at a planned moment.

faults = Faults(tmp_path)
server = subprocess.Popen([...], env=os.environ | faults.env)
faults.disk_full("journal.db"); faults.syncs_hang("journal.db"); faults.heal()
faults.kill("sync", "after", 3, path="journal.db-wal"); faults.kill("send", "before", 1)
faults.wall_offset = 3600; faults.reboot()

The product knows nothing of it: a library that is preloaded stands between the process and the C library.
"""

from fakes.faults.library import library
from fakes.faults.steering import AFTER, BEFORE, WITHIN, Faults

__all__ = ["AFTER", "BEFORE", "WITHIN", "Faults", "library"]
