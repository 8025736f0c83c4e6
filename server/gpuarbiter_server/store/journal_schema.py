"""The form of the journal on disk: its tables, and the checksum of each row.

Law: SQLite has no checksums of its own in its main file, so every row carries one over its table, its number
and its body, and the row of `meta` tells how many rows there are and the XOR of their checksums. It changes
in the same transaction as they do: a row that is missing, too many or of another moment is found out.
"""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Generic, TypeVar

from pydantic import TypeAdapter

from gpuarbiter_server.core.records import EndedRecord, SavedGpu, SavedLease

# Of the tables and of the bodies. Whoever changes the durable forms in the core raises it.
VERSION = 1

T = TypeVar("T")


@dataclass(slots=True)
class Meta:
    """What is true of the journal as a whole; the one row of its table."""

    version: int
    # Of the last start.
    epoch: int
    # The start of the machine by whose clock the times in the rows count, and whose processes their pids name.
    boot_id: str
    # Inode; 0: not known.
    pid_namespace: int
    # Hexadecimal.
    id_key: str
    tokens_until: int
    # Ended records up to this row are from before the machine was started; their times are from another clock.
    earlier_until: int = 0
    # Of all rows of the other tables: how many they are, and their checksums together.
    rows: int = 0
    mix: int = 0


class Table(Generic[T]):
    """A table of numbered rows, each with a body in JSON and a checksum."""

    def __init__(self, name: str, kind: type[T]) -> None:
        self.name = name
        self._start = blake2b(name.encode() + b" ", digest_size=8)
        self._body: TypeAdapter[T] = TypeAdapter(kind)
        # What dump_json() calls, which takes a fifth more time.
        self._to_json = self._body.serializer.to_json
        self.schema = f"CREATE TABLE {name} (id INTEGER PRIMARY KEY, body TEXT NOT NULL, mark INTEGER NOT NULL)"
        # No name but those below is ever put in.
        self.put = f"REPLACE INTO {name} VALUES (?, ?, ?)"  # noqa: S608
        self.delete = f"DELETE FROM {name} WHERE id = ?"  # noqa: S608
        self.delete_all = f"DELETE FROM {name}"  # noqa: S608
        self.rows = f"SELECT id, body, mark FROM {name} ORDER BY id"  # noqa: S608

    def encode(self, number: int, value: T) -> tuple[int, str, int]:
        """The row of a value, its checksum last."""
        # A value of another type than it says would not be read back, which is better known now than then.
        body = self._to_json(value, warnings="error")
        return number, body.decode(), self._mark(number, body)

    def decode(self, number: object, body: object, mark: object) -> T:
        """The value of a row.

        Raises:
            ValueError: it is not what was written, with the reason.
        """
        # A flipped bit can make a number of a text, and nothing of a number.
        if type(number) is not int or type(body) is not str:
            raise ValueError("it is of another form")
        raw = body.encode(errors="surrogateescape")
        if self._mark(number, raw) != mark:
            raise ValueError("its checksum is wrong")
        try:
            return self._body.validate_json(raw)
        except ValueError as error:
            # Pydantic's message has many lines, and the body in them.
            raise ValueError(f"it is not understood: {str(error).splitlines()[0]}") from error

    def _mark(self, number: int, body: bytes) -> int:
        digest = self._start.copy()
        digest.update(b"%d " % number)
        digest.update(body)
        return int.from_bytes(digest.digest(), "big", signed=True)


META = Table("meta", Meta)
# A live lease, by its fencing token.
LEASES = Table("lease", SavedLease)
# What ended, in the order in which it did.
ENDED = Table("ended", EndedRecord)
GPUS = Table("gpu", SavedGpu)
TABLES: tuple[Table[SavedLease], Table[EndedRecord], Table[SavedGpu]] = (LEASES, ENDED, GPUS)
META_ROW = 1
# What sqlite_schema holds: these and nothing else.
SCHEMA = {table.name: table.schema for table in (META, *TABLES)}
