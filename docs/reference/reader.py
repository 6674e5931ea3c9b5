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
HELLO_WAITS = (0.5, 1.0, 2.0)
HELLO_WAIT_MAX = 10.0
SILENCE = 3.0
OUTAGE, OUTAGE_NO_DATA = 150.0, 10.0
FIRST_WAIT, FIRST_PAUSE, FIRST_SEGMENTS = 1.0, 0.5, 16
PAUSE_LEAST, PAUSE_MOST = 0.025, 0.4
COLD_MEMORY = 5.0
REFUSED_COOKIES = 4
RETRY_LEAST, RETRY_MOST = 0.02, 2.0
CHUNKS_AHEAD = 4
FIRST_WINDOW, LEAST_WINDOW, MOST_WINDOW = 10, 1, 128
BUFFER_OF_A_SEGMENT = 4096


class Failure(Exception):
    """The object cannot be had; the text says why."""


class Broken(Failure):
    """A WELCOME that is impossible; it is believed when the next one is too."""


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
    """W: WELCOME. None if it sets reserved bytes; a Broken one has values it must not have."""
    segment_bytes, burst, zero, seconds, _, epoch, zeros, cookie = struct.unpack_from(
        ">HBBH8sI4s8s", datagram, 2)
    if zero or any(zeros):
        return None
    if (not 1024 <= segment_bytes <= 1440 or not 1 <= burst <= 128 or seconds < 2
            or not any(cookie)):
        raise Broken(f"the edge is broken: its WELCOME says segments of {segment_bytes}, "
                     f"bursts of {burst}, {seconds} seconds, cookie {cookie.hex()}")
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
        self.refused = None     # the code of a final NACK, and the socket that it came to
        self.data = None
        self.begin()

    def begin(self):
        """Forget every segment, as after a change of segment_bytes (W: DATA)."""
        self.parts, self.asked = {}, set()
        self.due = {}           # segment asked for -> (when, whether its coming measures a
                                # round trip); it may be on the path, or be fetched
        self.fetched_until = 0.0    # PENDING: nothing of it is overdue before
        self.heard = None       # when its latest segment came
        self.not_before = 0.0   # no GET sooner: a NACK said so
        self.since = None       # the oldest GET nothing has answered
        self.trouble = {}       # NACK code -> when it came first, since there was DATA
        self.first_asked = None


class Edge:
    """One client of one edge (W: Client behaviour)."""

    def __init__(self, family, address):
        self.family, self.address = family, address
        self.socket = None
        self.welcome = None
        self.chunks = {}        # tag -> Chunk that is not complete
        self.segment_bytes = None
        self.window = FIRST_WINDOW
        self.rtt = self.deviation = None
        self.arrived = 0        # segments
        self.backoff = 0        # doublings of the wait, till a round trip is measured
        self.pause_least = PAUSE_LEAST
        self.gap = self.last_data = 0.0
        self.cold_until = 0.0
        self.fetch_time = 0.0
        self.refusals = 0
        self.renew = False
        self.broken = False     # the last WELCOME was impossible
        self.refreshed = 0.0    # when DATA of another segment_bytes last had us say HELLO
        self.flowed = False     # DATA came
        self.out_since = None   # since when nothing has come, over all silences

    def open_socket(self):
        """Client behaviour, 1: a new random port, connected to this edge."""
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
            chunk.due, chunk.since = {}, None

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
        try:
            if version != VERSION:
                raise Broken(f"the edge speaks version {version} of the protocol, not {VERSION}")
            welcome = read_welcome(datagram)
        except Broken:
            if self.broken:
                raise
            self.broken, self.welcome, self.renew = True, None, True
            return
        if welcome is None:
            return
        self.broken = False
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
        broken = self.broken
        while (nonce in self.unanswered and time.monotonic() < until
               and self.broken == broken):
            self.receive(until)
        return nonce not in self.unanswered

    def handshake(self, new_port):
        """Client behaviour, 2: get a cookie, from another port for each attempt without one."""
        if new_port:
            self.welcome = None
        renewal = self.welcome is not None
        waits = list(HELLO_WAITS)
        if renewal and self.rtt is not None:
            waits = [max(wait, self.wait()) for wait in waits]
        began = self.out_since = self.out_since or time.monotonic()
        for wait in waits:
            if self.welcome is None:
                self.open_socket()
            length = max(1232, 16 + (self.segment_bytes or 0))
            if self.hello(length, wait):
                length = 16 + self.welcome.segment_bytes
                if length <= self.proved or self.hello(length, wait):
                    self.renew = False
                    return
                self.welcome = None
            known = self.segment_bytes is not None and not renewal
            if known and time.monotonic() - began < self.outage():
                waits.append(min(2 * wait, HELLO_WAIT_MAX))
        if not renewal:
            raise Failure(f"the edge does not answer a HELLO of {length} bytes")
        self.handshake(new_port=True)

    def outage(self):
        """Client behaviour, 6: how long the edge may be unreachable."""
        return OUTAGE if self.flowed else OUTAGE_NO_DATA

    def take_data(self, datagram):
        """W: DATA."""
        chunk = self.chunks.get(datagram[8:16])
        found = chunk and read_data(datagram, chunk.length, self.segment_bytes)
        now = time.monotonic()
        if chunk and not found:
            self.other_size(chunk, datagram, now)
        if not found or found[0] not in chunk.asked or found[0] in chunk.parts:
            self.last_data = now    # of no use; what is behind it in a queue is not lost
            return
        index, payload = found
        asked_at, measures = chunk.due.pop(index, (None, False))
        if asked_at is None:    # it counted as lost, and was not
            self.pause_least = min(2 * self.pause_least, PAUSE_MOST)
        elif measures:
            self.measure(now - asked_at)
        if chunk.heard and chunk.heard == self.last_data:
            self.gap = max(now - chunk.heard, self.gap * 15 / 16)
        if not chunk.parts:
            self.fetch_time = now - chunk.first_asked
        chunk.parts[index] = payload
        chunk.heard = self.last_data = now
        self.arrived += 1
        chunk.fetched_until, chunk.trouble = 0.0, {}
        chunk.since = now if chunk.due else None
        self.flowed, self.out_since = True, None
        self.refusals = 0
        self.window = min(self.window + 0.25, self.most_window)
        if len(chunk.parts) == segment_count(chunk.length, self.segment_bytes):
            self.finish(chunk)

    def other_size(self, chunk, datagram, now):
        """Client behaviour, 6: would this DATA be right with another segment_bytes?"""
        index, last = datagram[2], datagram[3]
        size = len(datagram) - 16
        if index == last:       # what the others left
            size = (chunk.length - size) // last if last else 0
        if (1024 <= size <= 1440 and size != self.segment_bytes and index in chunk.asked
                and read_data(datagram, chunk.length, size) and now - self.refreshed >= 1):
            self.refreshed, self.renew = now, True

    def finish(self, chunk):
        """Client behaviour, 7: nothing of a chunk is used before its hash is its id."""
        data = b"".join(chunk.parts[i] for i in range(len(chunk.parts)))
        if hashlib.sha256(data).digest() == chunk.id:
            chunk.data = data
            del self.chunks[chunk.tag]
            return
        chunk.spoiled += 1
        if chunk.spoiled == 2:
            raise Failure(f"the edge sent wrong bytes for chunk {chunk.id.hex()} twice")
        chunk.begin()
        self.renew, self.welcome = True, None

    def take_nack(self, datagram):
        """W: NACK."""
        code, retry, tag, cookie = struct.unpack(">xxBxI8s8s", datagram)
        chunk = self.chunks.get(tag)
        present = self.welcome and self.welcome.cookie
        if not chunk or not chunk.asked or cookie not in (present, self.previous_cookie):
            return
        if code == COOKIE:
            if cookie == present and not self.renew:
                self.refusals += 1
                self.renew = True
                if self.refusals == REFUSED_COOKIES:
                    raise Failure("the edge refuses its own cookies")
            return
        if code not in PATIENCE and code not in (ABSENT, RANGE):
            return
        now = time.monotonic()
        self.refusals, self.out_since = 0, None
        chunk.since = None
        final = code in (ABSENT, RANGE) or (retry == 0 and code != PENDING)
        if final:
            self.refuse(chunk, code)
            return
        refused_for = now - chunk.trouble.setdefault(code, now)
        if refused_for >= PATIENCE[code]:
            raise Failure(self.refusal(chunk, code))
        wait = min(max(retry / 1000, RETRY_LEAST), RETRY_MOST) if retry else RETRY_MOST
        if code == PENDING:     # what was asked for may come by itself
            chunk.fetched_until = now + max(wait, min(self.fetch_time, RETRY_MOST))
            self.cold_until = now + COLD_MEMORY
            return
        if code == BUSY:
            self.window = max(LEAST_WINDOW, self.window / 2)
        chunk.due, chunk.not_before = {}, now + wait

    def refuse(self, chunk, code):
        """Client behaviour, 6: a final NACK is believed when it comes to two sockets."""
        if chunk.refused and chunk.refused[0] == code and chunk.refused[1] is not self.socket:
            raise Failure(self.refusal(chunk, code))
        chunk.refused = code, self.socket
        self.renew, self.welcome = True, None

    @staticmethod
    def refusal(chunk, code):
        """What a NACK means to a user."""
        why = {PENDING: "the edge is fetching it", BUSY: "the edge is busy",
               ORIGIN: "its origin failed", ABSENT: "no origin has it",
               RANGE: "the edge has no such segments of it"}[code]
        return f"chunk {chunk.id.hex()} did not come: {why}"

    def measure(self, sample):
        """Round trip and deviation, as RFC 6298 has them."""
        self.backoff = 0
        if self.rtt is None:
            self.rtt, self.deviation = sample, sample / 2
        self.deviation += (abs(self.rtt - sample) - self.deviation) / 4
        self.rtt += (sample - self.rtt) / 8

    def wait(self):
        """Client behaviour, 5: how long an answer may take, without the doublings."""
        if self.rtt is None:
            return FIRST_WAIT
        wait = max(self.rtt + max(self.pause_least, 4 * self.deviation), 3 * self.gap)
        return wait if self.arrived >= FIRST_SEGMENTS else max(wait, FIRST_WAIT)

    def overdue(self, chunk, asked_at):
        """Client behaviour, 5: when a segment that was asked for then counts as lost."""
        if chunk.heard and chunk.heard >= asked_at:     # the answer has begun
            pause = max((self.rtt or 0) / 4, 4 * (self.deviation or 0), 3 * self.gap,
                        self.pause_least if self.arrived >= FIRST_SEGMENTS else FIRST_PAUSE)
            return self.last_data + pause
        wait = min(self.wait() * 2 ** self.backoff, max(2.0, 4 * self.wait()))
        return max(chunk.fetched_until, max(asked_at, self.last_data) + wait)

    def ask(self, now):
        """Client behaviour, 3 to 5: GETs for what is missing, as far as the window allows."""
        chunks = self.chunks.values()
        owed = sum(len(chunk.due) for chunk in chunks)
        on_path = sum(len(chunk.due) for chunk in chunks if now >= chunk.fetched_until)
        room = min(int(self.window) - on_path, self.most_window - owed)
        for chunk in chunks:
            if now < chunk.not_before or (chunk.due and not chunk.parts):
                continue
            missing = [i for i in range(segment_count(chunk.length, self.segment_bytes))
                       if i not in chunk.parts and i not in chunk.due]
            if not missing or room < 1:
                continue
            missing = missing[:min(room, self.welcome.max_burst)]
            if not chunk.parts and now < self.cold_until:
                missing = missing[:1]
            self.send(make_get(self.welcome.epoch, self.welcome.cookie, chunk.id, missing))
            measures = chunk.asked.isdisjoint(missing)
            chunk.due.update((i, (now, measures)) for i in missing)
            chunk.asked.update(missing)
            chunk.since, chunk.first_asked = chunk.since or now, chunk.first_asked or now
            room -= len(missing)

    def expire(self, now):
        """Client behaviour, 5: what is overdue is lost, and loss makes the window shrink."""
        for chunk in self.chunks.values():
            lost = [i for i, (asked_at, _) in chunk.due.items()
                    if now >= self.overdue(chunk, asked_at)]
            if lost and self.last_data < min(chunk.due[i][0] for i in lost):
                self.backoff = min(self.backoff + 1, 8)     # a silence
            if lost and chunk.parts:    # before the first one, the edge may be fetching
                self.window = max(LEAST_WINDOW, self.window / 2)
            for i in lost:
                del chunk.due[i]

    def turn(self):
        """One round: handshake if needed, expire requests, send GETs, receive."""
        now = time.monotonic()
        waiting = [chunk.since for chunk in self.chunks.values() if chunk.since]
        if waiting and now - max(waiting) >= max(SILENCE, self.wait()):
            self.out_since = self.out_since or max(waiting)
            if now - self.out_since >= self.outage():
                raise Failure("the edge has fallen silent")
            self.handshake(new_port=True)
        elif self.welcome is None or self.renew or now >= self.renew_at:
            self.handshake(new_port=self.welcome is None)
        now = time.monotonic()
        self.expire(now)
        self.ask(now)
        until = [self.overdue(chunk, asked_at) for chunk in self.chunks.values()
                 for asked_at, _ in chunk.due.values()]
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
