"""Takes device memory through the CUDA driver itself: `alloc BYTES`, `free`, `exit`, one a line."""

import ctypes
import os
import sys

cuda = ctypes.CDLL("libcuda.so.1")


def call(name: str, *arguments: object) -> None:
    code = getattr(cuda, name)(*arguments)
    if code:
        sys.exit(f"{name} answered {code}")


def main() -> None:
    device, context = ctypes.c_int(), ctypes.c_void_p()
    call("cuInit", 0)
    call("cuDeviceGet", ctypes.byref(device), 0)
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    call("cuCtxSetCurrent", context)
    print(os.getpid(), flush=True)
    taken: list[ctypes.c_uint64] = []
    for line in sys.stdin:
        command, *rest = line.split()
        if command == "alloc":
            pointer = ctypes.c_uint64()
            call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(int(rest[0])))
            taken.append(pointer)
        elif command == "free":
            call("cuMemFree_v2", taken.pop())
        else:
            break
        print("done", flush=True)


if __name__ == "__main__":
    main()
