"""Takes an XDP program off its interface, as `bpftool link detach` does. Usage: detach.py PROGRAM"""

import ctypes
import os
import platform
import struct
import sys

BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]
OBJ_GET_INFO_BY_FD, LINK_GET_FD_BY_ID, LINK_GET_NEXT_ID, LINK_DETACH = 15, 30, 31, 34
libc = ctypes.CDLL(None, use_errno=True)


def bpf(command, *words):
    attributes = bytearray(struct.pack(f"{len(words)}I", *words).ljust(128, b"\0"))
    place = (ctypes.c_char * len(attributes)).from_buffer(attributes)
    result = libc.syscall(BPF, command, place, len(attributes))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result, attributes


def program_of(link):
    info = ctypes.create_string_buffer(128)
    address = ctypes.addressof(info)
    bpf(OBJ_GET_INFO_BY_FD, link, len(info), address & 0xFFFFFFFF, address >> 32)
    return struct.unpack_from("I", info, 8)[0]


program, number = int(sys.argv[1]), 0
while True:
    # Ends with an error when there are no more.
    number = struct.unpack_from("I", bpf(LINK_GET_NEXT_ID, number)[1], 4)[0]
    link = bpf(LINK_GET_FD_BY_ID, number)[0]
    if program_of(link) == program:
        bpf(LINK_DETACH, link)
        break
    os.close(link)
