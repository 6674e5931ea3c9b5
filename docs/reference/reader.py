#!/usr/bin/env python3
"""A second implementation of the reader, written from WIRE.md and SEALING.md alone.

    reader.py TICKETFILE EDGE:PORT OUTFILE     fetch, check and decrypt one object
    reader.py --self-test                      check every vector of the two documents

It is kept short rather than fast. "W:" cites a section of ../WIRE.md, "S:" one of ../SEALING.md.
"""

import base64
import binascii
import collections
import hashlib
import os
import resource
import secrets
import select
import socket
import struct
import sys
import time

try:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
except ImportError:
    sys.exit("reader: the Python package `cryptography` is missing; Debian has it as "
             "python3-cryptography")

CHUNK_BYTES = 131072
MAX_OBJECT = 32 << 30
FIRST_BYTE, VERSION = 0xED, 1
HELLO, WELCOME, GET, DATA, NACK = 1, 2, 3, 4, 5
ABSENT, PENDING, BUSY, COOKIE, ORIGIN, RANGE = 1, 2, 3, 4, 5, 6
PATIENCE = {PENDING: 30.0, BUSY: 6.0, ORIGIN: 6.0}
GREETING_WAITS = (0.5, 1.0, 2.0)
SILENCE, SILENCES = 3.0, 3
REFUSED_COOKIES = 4
RETRY_LEAST, RETRY_MOST = 0.02, 2.0
CHUNKS_AHEAD = 4
FIRST_WINDOW, LEAST_WINDOW, MOST_WINDOW = 32, 8, 128
BUFFER_OF_A_SEGMENT = 4096


class Failure(Exception):
    """The object cannot be had; the text says why."""


# --- Sealed objects ------------------------------------------------------------------------------

Ticket = collections.namedtuple("Ticket", "size root key nonce")


def read_ticket(text):
    """S: Ticket. A public ticket has neither key nor nonce: both are None."""
    for prefix, length in (("edgepub1:", 46), ("edge1:", 90)):
        if text.startswith(prefix):
            break
    else:
        raise Failure("this is no ticket: it begins with neither edge1: nor edgepub1:")
    digits = text[len(prefix):]
    if not all(c.isascii() and (c.isalnum() or c in "-_") for c in digits):
        raise Failure("the ticket has a character outside base64url")
    if len(digits) != (length * 8 + 5) // 6:
        raise Failure("the ticket is cut or too long")
    raw = base64.urlsafe_b64decode(digits + "=" * (-len(digits) % 4))
    if base64.urlsafe_b64encode(raw).rstrip(b"=") != digits.encode():
        raise Failure("the ticket's last character has bits that are not zero")
    body, check = raw[:-4], raw[-4:]
    if hashlib.sha256(body).digest()[:4] != check:
        raise Failure("the ticket is mistyped: its check does not match")
    version, flags, size = struct.unpack_from(">BBQ", body)
    root = body[10:42]
    if version != 1 or flags != 0:
        raise Failure(f"the ticket has version {version} and flags {flags}, not 1 and 0")
    if size > MAX_OBJECT:
        raise Failure("the ticket's size is above 32 GiB")
    if size == 0 and any(root):
        raise Failure("the ticket's size is 0 and its root is not")
    return Ticket(size, root, body[42:74] or None, body[74:86] or None)


def keystream(key, nonce, offset=0):
    """S: Encryption, 2. The AES-256-CTR transform from byte `offset` on, a multiple of 16."""
    counter_block = nonce + struct.pack(">I", offset // 16)
    return Cipher(algorithms.AES(key), modes.CTR(counter_block)).encryptor()


def chunk_count(size):
    """S: Chunks, 1."""
    return -(-size // CHUNK_BYTES)


def level_sizes(size):
    """S: Chunks. The bytes on each level, the data first, the level of the root last."""
    sizes = [size]
    while chunk_count(sizes[-1]) > 1:
        sizes.append(32 * chunk_count(sizes[-1]))
    return sizes


def chunk_lengths(size):
    """S: Chunks. The length of each chunk of a level of `size` bytes, in order."""
    return (min(CHUNK_BYTES, size - at) for at in range(0, size, CHUNK_BYTES))


# --- Datagrams -----------------------------------------------------------------------------------

Welcome = collections.namedtuple("Welcome", "segment_bytes max_burst seconds epoch cookie")


def make_hello(nonce, length):
    """W: HELLO."""
    return struct.pack(">BB6x8s", FIRST_BYTE, VERSION << 4 | HELLO, nonce).ljust(length, b"\0")


def make_get(epoch, cookie, chunk_id, segments):
    """W: GET."""
    want = sum(1 << i for i in segments)
    head = struct.pack(">BB2xI8s32s", FIRST_BYTE, VERSION << 4 | GET, epoch, cookie, chunk_id)
    return head + want.to_bytes(16, "big")


def segment_count(length, segment_bytes):
    """W: Chunks and segments."""
    return -(-length // segment_bytes)


def segment_length(length, segment_bytes, index):
    """W: Chunks and segments. How much of a chunk of `length` bytes segment `index` has."""
    return min(segment_bytes, length - index * segment_bytes)


def read_welcome(datagram):
    """W: WELCOME. None if it is no WELCOME of this version; values it must not have are an end."""
    segment_bytes, burst, zero, seconds, _, epoch, zeros, cookie = struct.unpack_from(
        ">HBBH8sI4s8s", datagram, 2)
    if zero or any(zeros):
        return None
    if not 1024 <= segment_bytes <= 1440 or not 1 <= burst <= 128 or seconds < 2:
        raise Failure(f"the edge is broken: its WELCOME says segments of {segment_bytes}, "
                      f"bursts of {burst}, {seconds} seconds")
    return Welcome(segment_bytes, burst, seconds, epoch, cookie)


def read_data(datagram, length, segment_bytes):
    """W: DATA. Index and payload, or None if they do not fit a chunk of `length` bytes."""
    index, last, said = struct.unpack_from(">BBI", datagram, 2)
    if said != length or last != segment_count(length, segment_bytes) - 1 or index > last:
        return None
    payload = datagram[16:]
    if len(payload) != segment_length(length, segment_bytes, index):
        return None
    return index, payload


# --- Fetching ------------------------------------------------------------------------------------

class Chunk:
    """A chunk that is being fetched."""

    def __init__(self, chunk_id, length):
        self.id, self.tag, self.length = chunk_id, chunk_id[:8], length
        self.spoiled = 0
        self.data = None
        self.begin()

    def begin(self):
        """Forget every segment, as after a change of segment_bytes (W: DATA)."""
        self.parts, self.asked = {}, set()
        self.due = {}           # segment under way -> (when it is overdue, when it was asked
                                # for, unless its coming measures no round trip)
        self.not_before = 0.0   # no GET sooner: a NACK said so
        self.vain = 0           # waits in a row that brought nothing
        self.since = None       # the oldest GET nothing has answered
        self.trouble = {}       # NACK code -> when it came first, since there was DATA
        self.first_asked = None


class Edge:
    """One client of one edge (W: Conduct of a client)."""

    def __init__(self, family, address):
        self.family, self.address = family, address
        self.socket = None
        self.welcome = None
        self.chunks = {}        # tag -> Chunk that is not complete
        self.segment_bytes = None
        self.window = FIRST_WINDOW
        self.rtt = self.deviation = None
        self.fetch_time = 0.0
        self.silences = self.refusals = 0
        self.greet_again = False

    def open_socket(self):
        """Conduct of a client, 1: a new random port, and nobody heard but this edge."""
        if self.socket:
            self.socket.close()
        self.socket = socket.socket(self.family, socket.SOCK_DGRAM)
        # "Don't fragment" (W: Conventions): IP_MTU_DISCOVER, or IPV6_MTU_DISCOVER, is DO.
        if self.family == socket.AF_INET:
            self.socket.setsockopt(socket.IPPROTO_IP, 10, 2)
        else:
            self.socket.setsockopt(socket.IPPROTO_IPV6, 23, 2)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.socket.connect(self.address)
        self.socket.setblocking(False)
        held = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // BUFFER_OF_A_SEGMENT
        self.most_window = max(LEAST_WINDOW, min(MOST_WINDOW, held))
        self.window = min(self.window, self.most_window)
        self.unanswered = {}    # nonce -> length of a HELLO
        self.welcome = self.previous_cookie = None
        for chunk in self.chunks.values():
            chunk.due, chunk.since, chunk.vain = {}, None, 0

    def send(self, datagram):
        """What the kernel refuses, or an ICMP error it reports, counts as a datagram lost."""
        try:
            self.socket.send(datagram)
        except OSError:
            pass

    def receive(self, until):
        """Wait for datagrams till `until` at most, and treat all there are."""
        select.select([self.socket], [], [], max(0.0, until - time.monotonic()))
        while True:
            try:
                datagram = self.socket.recv(2048)
            except BlockingIOError:
                return
            except OSError:
                continue
            if len(datagram) >= 16 and datagram[0] == FIRST_BYTE:
                self.take(datagram)

    def take(self, datagram):
        """Treat one datagram of the edge."""
        version, kind = datagram[1] >> 4, datagram[1] & 15
        if kind == WELCOME:
            self.take_welcome(datagram, version)
        elif version == VERSION and kind == DATA:
            self.take_data(datagram)
        elif version == VERSION and kind == NACK and len(datagram) == 24 and datagram[3] == 0:
            self.take_nack(datagram)

    def take_welcome(self, datagram, version):
        """W: WELCOME, and Other versions."""
        nonce = datagram[8:16]
        if self.unanswered.get(nonce) != len(datagram):
            return
        if version != VERSION:
            raise Failure(f"the edge speaks version {version} of the protocol, not {VERSION}")
        welcome = read_welcome(datagram)
        if welcome is None:
            return
        del self.unanswered[nonce]
        self.previous_cookie = self.welcome and self.welcome.cookie
        self.welcome, self.proved = welcome, len(datagram)
        self.renew_at = time.monotonic() + welcome.seconds / 2
        if welcome.segment_bytes != self.segment_bytes:
            self.segment_bytes = welcome.segment_bytes
            for chunk in self.chunks.values():
                chunk.begin()

    def hello(self, length, wait):
        """Say HELLO once. True if a WELCOME to it came in time."""
        nonce = secrets.token_bytes(8)
        self.unanswered[nonce] = length
        self.send(make_hello(nonce, length))
        until = time.monotonic() + wait
        while nonce in self.unanswered and time.monotonic() < until:
            self.receive(until)
        return nonce not in self.unanswered

    def greet(self, new_port):
        """Conduct of a client, 2: get a cookie, from another port each time there is none."""
        if new_port:
            self.welcome = None
        renewal = self.welcome is not None
        for wait in GREETING_WAITS:
            if self.welcome is None:
                self.open_socket()
            length = max(1232, 16 + (self.segment_bytes or 0))
            if not self.hello(length, wait):
                continue
            length = 16 + self.welcome.segment_bytes
            if length > self.proved and not self.hello(length, wait):
                self.welcome = None
                continue
            self.greet_again = False
            return
        if not renewal:
            raise Failure(f"the edge does not answer a HELLO of {length} bytes")
        self.greet(new_port=True)

    def take_data(self, datagram):
        """W: DATA."""
        chunk = self.chunks.get(datagram[8:16])
        found = chunk and read_data(datagram, chunk.length, self.segment_bytes)
        if not found or found[0] not in chunk.asked or found[0] in chunk.parts:
            return
        now = time.monotonic()
        index, payload = found
        _, asked_at = chunk.due.pop(index, (None, None))
        if asked_at is not None:
            self.measure(now - asked_at)
        if not chunk.parts:
            self.fetch_time = now - chunk.first_asked
        chunk.parts[index] = payload
        chunk.vain, chunk.trouble = 0, {}
        chunk.since = now if chunk.due else None
        self.silences = self.refusals = 0
        self.window = min(self.window + 0.25, self.most_window)
        if len(chunk.parts) == segment_count(chunk.length, self.segment_bytes):
            self.finish(chunk)

    def finish(self, chunk):
        """Conduct of a client, 7: nothing of a chunk is used before its hash is its id."""
        data = b"".join(chunk.parts[i] for i in range(len(chunk.parts)))
        if hashlib.sha256(data).digest() == chunk.id:
            chunk.data = data
            del self.chunks[chunk.tag]
            return
        chunk.spoiled += 1
        if chunk.spoiled == 2:
            raise Failure(f"the edge sent wrong bytes for chunk {chunk.id.hex()} twice")
        chunk.begin()
        self.greet_again, self.welcome = True, None

    def take_nack(self, datagram):
        """W: NACK."""
        code, retry, tag, cookie = struct.unpack(">xxBxI8s8s", datagram)
        chunk = self.chunks.get(tag)
        present = self.welcome and self.welcome.cookie
        if not chunk or not chunk.asked or cookie not in (present, self.previous_cookie):
            return
        if code == COOKIE:
            if cookie == present and not self.greet_again:
                self.refusals += 1
                self.greet_again = True
                if self.refusals == REFUSED_COOKIES:
                    raise Failure("the edge refuses the cookies it gives")
            return
        if code == ABSENT:
            raise Failure(f"no origin has chunk {chunk.id.hex()}")
        if code == RANGE:
            raise Failure(f"the edge has no such segments of chunk {chunk.id.hex()}")
        if code not in PATIENCE:
            return
        now = time.monotonic()
        self.refusals = self.silences = 0
        chunk.since, chunk.vain = None, 0
        refused_for = now - chunk.trouble.setdefault(code, now)
        if refused_for >= PATIENCE[code] or (retry == 0 and code != PENDING):
            name = {PENDING: "fetching it", BUSY: "busy", ORIGIN: "failed by its origin"}[code]
            raise Failure(f"chunk {chunk.id.hex()} did not come: the edge is {name}")
        wait = min(max(retry / 1000, RETRY_LEAST), RETRY_MOST) if retry else RETRY_MOST
        if code == PENDING:     # what was asked for may come by itself, so it stays under way
            until = now + max(wait, min(self.fetch_time, RETRY_MOST))
            chunk.due = {i: (until, None) for i in chunk.due}
            return
        if code == BUSY:
            self.window = max(LEAST_WINDOW, self.window / 2)
        chunk.due, chunk.not_before = {}, now + wait

    def measure(self, sample):
        """Round trip and deviation, as RFC 6298 has them."""
        if self.rtt is None:
            self.rtt, self.deviation = sample, sample / 2
        self.deviation += (abs(self.rtt - sample) - self.deviation) / 4
        self.rtt += (sample - self.rtt) / 8

    def ask(self, now):
        """Conduct of a client, 3 to 5: GETs for what is missing, as far as the window allows."""
        wait = 0.3 if self.rtt is None else self.rtt + max(0.025, 4 * self.deviation)
        room = int(self.window) - sum(len(chunk.due) for chunk in self.chunks.values())
        for chunk in self.chunks.values():
            if now < chunk.not_before or (chunk.due and not chunk.parts):
                continue
            missing = [i for i in range(segment_count(chunk.length, self.segment_bytes))
                       if i not in chunk.parts and i not in chunk.due]
            if not missing or room < min(LEAST_WINDOW, len(missing)):
                continue
            missing = missing[:min(room, self.welcome.max_burst)]
            self.send(make_get(self.welcome.epoch, self.welcome.cookie, chunk.id, missing))
            overdue = now + min(2.0, wait * 2 ** chunk.vain)
            chunk.due.update((i, (overdue, None if i in chunk.asked else now)) for i in missing)
            chunk.asked.update(missing)
            chunk.since, chunk.first_asked = chunk.since or now, chunk.first_asked or now
            room -= len(missing)

    def expire(self, now):
        """Conduct of a client, 5: what is overdue is lost, and loss makes the window shrink."""
        for chunk in self.chunks.values():
            lost = [i for i, (overdue, _) in chunk.due.items() if now >= overdue]
            if lost:
                chunk.vain = min(chunk.vain + 1, 8)
            if lost and chunk.parts:    # before the first one, the edge may be fetching
                self.window = max(LEAST_WINDOW, self.window / 2)
            for i in lost:
                del chunk.due[i]

    def turn(self):
        """One round: greet if that is needed, give up what is overdue, ask, listen."""
        now = time.monotonic()
        waiting = [chunk.since for chunk in self.chunks.values() if chunk.since]
        if waiting and now - max(waiting) >= SILENCE:
            self.silences += 1
            if self.silences == SILENCES:
                raise Failure("the edge has fallen silent")
            self.greet(new_port=True)
        elif self.welcome is None or self.greet_again or now >= self.renew_at:
            self.greet(new_port=self.welcome is None)
        now = time.monotonic()
        self.expire(now)
        self.ask(now)
        until = [overdue for chunk in self.chunks.values() for overdue, _ in chunk.due.values()]
        until += [chunk.not_before for chunk in self.chunks.values() if chunk.not_before > now]
        self.receive(min(until + [now + 0.5]))

    def fetch(self, wanted):
        """Yield the bytes of each (id, length) in order, every one checked; a few are under way."""
        wanted, queue = collections.deque(wanted), collections.deque()
        while wanted or queue:
            # Two chunks of one tag are never under way together: DATA could not be told apart.
            while wanted and len(queue) < CHUNKS_AHEAD and wanted[0][0][:8] not in self.chunks:
                chunk = Chunk(*wanted.popleft())
                queue.append(chunk)
                self.chunks[chunk.tag] = chunk
            while queue[0].data is None:
                self.turn()
            yield queue.popleft().data


def read_object(ticket, edge):
    """S: What a reader does. Yield the object's plaintext in order."""
    if ticket.size == 0:
        return
    ids = ticket.root
    for size in reversed(level_sizes(ticket.size)):
        names = (ids[at:at + 32] for at in range(0, len(ids), 32))
        chunks = edge.fetch(zip(names, chunk_lengths(size)))
        if size != ticket.size:     # an index level, which is always shorter than the data
            ids = b"".join(chunks)
    decrypt = keystream(ticket.key, ticket.nonce)
    for data in chunks:
        yield decrypt.update(data)


def find_edge(text):
    """`192.0.2.10:7347`, `[2001:db8::10]:7347` or `name:7347`, as a family and an address."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal():
        raise Failure(f"{text} is not EDGE:PORT")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_DGRAM)
    except (OSError, OverflowError) as error:
        raise Failure(f"{text}: {error}") from error
    return found[0][0], found[0][4]


def main(arguments):
    """Fetch one object into a file that has its name only when it is whole."""
    if arguments == ["--self-test"]:
        sys.dont_write_bytecode = True
        import vectors
        vectors.check_all()
        return
    if len(arguments) != 3:
        raise Failure("usage: reader.py TICKETFILE EDGE:PORT OUTFILE, or reader.py --self-test")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ticket_file, where, out = arguments
    with open(ticket_file, encoding="utf-8") as file:
        ticket = read_ticket(file.read().strip())
    if ticket.key is None:
        raise Failure("a public ticket has no key")
    edge = Edge(*find_edge(where))
    temporary = f"{out}.{secrets.token_hex(4)}.part"
    try:
        with open(temporary, "xb") as file:
            for plaintext in read_object(ticket, edge):
                file.write(plaintext)
        os.rename(temporary, out)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (Failure, OSError, UnicodeDecodeError, binascii.Error) as failure:
        sys.exit(f"reader: {failure}")
