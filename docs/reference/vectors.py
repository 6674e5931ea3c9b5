"""Checks reader.py against WIRE.md and SEALING.md: `reader.py --self-test`.

Each vector is computed here from its words in the document, by the code the reader uses where it
has any. Then the set of what was computed must be the set of what stands in the documents, so that
a vector that is wrong, missing or new is found from either side.
"""

import base64
import hashlib
import hmac
import ipaddress
import pathlib
import re
import struct
import sys

import reader

DOCUMENTS = pathlib.Path(__file__).resolve().parent.parent
MASK = (1 << 64) - 1
KEY, OBJECT_NONCE = bytes(range(32)), bytes(range(0xF0, 0xFC))
SECRET, EPOCH, PORT = bytes(range(32)), 14000000, 40000
NONCE = bytes.fromhex("016e6f6e63650203")


def must(holds, what):
    """End the self-test unless `holds`."""
    if not holds:
        sys.exit(f"reader: self-test: {what}")


def siphash(key, message):
    """SipHash-2-4 with its result written little-endian (W: Cookie)."""
    k0, k1 = struct.unpack("<QQ", key)
    a, b = k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D
    c, d = k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573

    def left(x, bits):
        return (x << bits | x >> (64 - bits)) & MASK

    def sip_round(a, b, c, d):
        a = (a + b) & MASK
        c = (c + d) & MASK
        b, d, a = left(b, 13) ^ a, left(d, 16) ^ c, left(a, 32)
        a = (a + d) & MASK
        c = (c + b) & MASK
        return a, left(b, 17) ^ c, left(c, 32), left(d, 21) ^ a

    padded = message + bytes(-(len(message) + 1) % 8) + bytes([len(message) & 255])
    for (word,) in struct.iter_unpack("<Q", padded):
        a, b, c, d = sip_round(*sip_round(a, b, c, d ^ word))
        a ^= word
    c ^= 0xFF
    for _ in range(4):
        a, b, c, d = sip_round(a, b, c, d)
    return struct.pack("<Q", a ^ b ^ c ^ d)


def cookie_key():
    """W: Cookie."""
    return hmac.digest(SECRET, b"edge1 cookie" + struct.pack(">I", EPOCH), "sha256")[:16]


def cookie_of(address):
    """W: Cookie."""
    address = ipaddress.ip_address(address).packed
    mapped = address if len(address) == 16 else bytes(10) + b"\xff\xff" + address
    return siphash(cookie_key(), mapped + struct.pack(">HI", PORT, EPOCH))


def sealed():
    """S: Vectors. The plaintext and the ciphertext of the object there."""
    blocks = (hashlib.sha256(b"cdn-ref" + struct.pack(">Q", i)).digest() for i in range(12674))
    plaintext = b"".join(blocks)[:405561]
    return plaintext, reader.keystream(KEY, OBJECT_NONCE).update(plaintext)


def write_ticket(prefix, body):
    """S: Ticket."""
    raw = body + hashlib.sha256(body).digest()[:4]
    return prefix + base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def internet_checksum(data):
    """RFC 1071."""
    total = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def frame_of(payload):
    """W: Examples. The WELCOME from 192.0.2.10 port 7347 to 192.0.2.7 port 40000."""
    source, target = bytes([192, 0, 2, 10]), bytes([192, 0, 2, 7])
    length = 8 + len(payload)
    pseudo = source + target + struct.pack(">HH", 17, length)
    udp = struct.pack(">HHHH", 7347, PORT, length, 0) + payload
    udp = udp[:6] + struct.pack(">H", internet_checksum(pseudo + udp)) + payload
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + length, 0, 0x4000, 64, 17, 0) + source + target
    head = head[:10] + struct.pack(">H", internet_checksum(head)) + head[12:]
    return bytes.fromhex("020000000007 020000000010 0800") + head + udp


def sealing_vectors(plaintext, ciphertext):
    """All vectors of SEALING.md, computed."""
    lengths = list(reader.chunk_lengths(len(ciphertext)))
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    chunks = [ciphertext[at:at + length] for at, length in zip(starts, lengths)]
    ids = [hashlib.sha256(chunk).digest() for chunk in chunks]
    root = hashlib.sha256(b"".join(ids)).digest()
    must(lengths == [131072, 131072, 131072, 12345], "lengths of the chunks")
    must(reader.level_sizes(len(ciphertext)) == [405561, 128], "sizes of the levels")
    for at, chunk in zip(starts, chunks):
        opened = reader.keystream(KEY, OBJECT_NONCE, at).update(chunk)
        must(opened == plaintext[at:at + len(chunk)], "a chunk decrypted alone")

    head = struct.pack(">BBQ", 1, 0, len(ciphertext)) + root
    secret, public = (write_ticket("edge1:", head + KEY + OBJECT_NONCE),
                      write_ticket("edgepub1:", head))
    must((len(secret), len(public)) == (126, 71), "lengths of the tickets")
    must(reader.read_ticket(secret) == (405561, root, KEY, OBJECT_NONCE), "the ticket, read")
    must(reader.read_ticket(public) == (405561, root, None, None), "the public ticket, read")
    digests = [hashlib.sha256(plaintext), hashlib.sha256(ciphertext)]
    hexes = [digest.hexdigest() for digest in digests] + [name.hex() for name in ids + [root]]
    hexes += [ciphertext[:16].hex(), OBJECT_NONCE.hex() + "00000000"]
    path = "chunks/{0}/{1}/{2}".format(ids[0].hex()[:2], ids[0].hex()[2:4], ids[0].hex())
    return {secret, public, path, *hexes}, chunks[3]


def wire_vectors(chunk):
    """All vectors of WIRE.md, computed. `chunk` is the last one of the sealed object."""
    name = hashlib.sha256(chunk).digest()
    cookie = cookie_of("192.0.2.7")
    hello = reader.make_hello(NONCE, 1232)
    get = reader.make_get(EPOCH, cookie, name, [0, 10])
    head = bytes.fromhex("ED12") + struct.pack(">HBxH", 1216, 53, 120) + NONCE
    welcome = head + struct.pack(">I4x", EPOCH) + cookie + bytes(1200)
    other_version = head + bytes(1216)
    must(reader.read_welcome(welcome) == (1216, 53, 120, EPOCH, cookie), "WELCOME, read")
    must(not any(hello[16:]) and len(hello) == len(other_version) == 1232 and len(get) == 64,
         "lengths of datagrams")

    last = reader.segment_count(len(chunk), 1216) - 1
    data = []
    for index, length in ((0, 1232), (10, 201)):
        payload = chunk[index * 1216:(index + 1) * 1216]
        datagram = struct.pack(">BBBBI", 0xED, 0x14, index, last, len(chunk)) + name[:8] + payload
        must(len(datagram) == length, "length of DATA")
        must(reader.read_data(datagram, len(chunk), 1216) == (index, payload), "DATA, read")
        for broken in (datagram + b"\0", datagram[:-1], datagram[:3] + b"\x0b" + datagram[4:],
                       datagram[:2] + b"\x0b" + datagram[3:], datagram[:7] + b"0" + datagram[8:]):
            must(reader.read_data(broken, len(chunk), 1216) is None, "DATA that lies")
        data.append(datagram)
    nacks = [bytes.fromhex("ED15") + struct.pack(">BxI", code, retry) + name[:8] + cookie
             for code, retry in ((reader.PENDING, 250), (reader.COOKIE, 0))]

    shown = [hello[:16], welcome[:32], other_version[:32], get, *nacks, frame_of(welcome)[:74]]
    shown += [datagram[:32] for datagram in data]
    hexes = {cookie_key(), cookie, cookie_of("2001:db8::7"), struct.pack(">I", EPOCH), name}
    return {datagram.hex(" ") for datagram in shown} | {value.hex() for value in hexes}


def documented(text):
    """Every vector that stands in a document: hex in backticks, paths, tickets, dumps of bytes."""
    found = set(re.findall(r"`([0-9a-f]{8,}|chunks/[0-9a-f/]{64,})`", text))
    found |= set(re.findall(r"^edge(?:pub)?1:\S+$", text, re.MULTILINE))
    for block in re.findall(r"^```text\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for dump in block.split("\n\n"):
            octets = dump.replace("…", "").split()
            if all(re.fullmatch(r"[0-9a-f]{2}", octet) for octet in octets):
                found.add(" ".join(octets))
    return found


def check_tables(wire):
    """W: Chunks and segments, the rows of its table; S: Chunks, the rows of its."""
    rows = re.findall(r"^\| (\d+) \| (\d+|any) \| (\d+) \| (\d+) \|$", wire, re.MULTILINE)
    must(len(rows) == 5, "rows of the table of segments")
    for length, size, last, rest in rows:
        for s in range(1024, 1441) if size == "any" else (int(size),):
            must(reader.segment_count(int(length), s) == int(last) + 1, "number of segments")
            must(reader.segment_length(int(length), s, int(last)) == int(rest), "last segment")
    for size, chunks, levels in ((0, 0, 0), (1, 1, 0), (131072, 1, 0), (131073, 2, 1),
                                 (512 << 20, 4096, 1), ((512 << 20) + 1, 4097, 2),
                                 (32 << 30, 262144, 2)):
        must(reader.chunk_count(size) == chunks, "number of data chunks")
        must(len(reader.level_sizes(size)) == levels + 1, "number of index levels")


def check_refusals(ticket):
    """S: Ticket, everything that MUST be refused."""
    body = base64.urlsafe_b64decode(ticket[6:])[:86]

    def with_head(version, flags, size, root=body[10:42]):
        return write_ticket("edge1:", struct.pack(">BBQ", version, flags, size) + root + body[42:])

    public = write_ticket("edgepub1:", body[:42])
    bad = {"prefix": ["edge2:" + ticket[6:], ticket[6:], "", "Edge1:" + ticket[6:]],
           "outside": [ticket[:-1] + "+", ticket[:-1] + "=", ticket[:60] + " " + ticket[61:]],
           "cut": [ticket[:-1], ticket + "A", "edge1:", "edgepub1:" + ticket[6:]],
           "bits": [public[:-1] + chr(ord(public[-1]) + 1)],
           "check": [ticket[:6] + "B" + ticket[7:], ticket[:50] + "x" + ticket[51:]],
           "version": [with_head(2, 0, 1), with_head(0, 0, 1), with_head(1, 1, 1)],
           "above": [with_head(1, 0, (32 << 30) + 1)],
           "root": [with_head(1, 0, 0)]}
    bad["no ticket"] = bad.pop("prefix")
    for why, tickets in bad.items():
        for text in tickets:
            try:
                reader.read_ticket(text)
            except reader.Failure as failure:
                must(why in str(failure), f"{text} is refused: {failure}; not for its {why}")
            else:
                must(False, f"{text} is not refused for its {why}")
    must(reader.read_ticket(with_head(1, 0, 0, bytes(32))).size == 0, "the empty object")


def check_all():
    """The whole self-test."""
    wire, sealing = ((DOCUMENTS / name).read_text(encoding="utf-8")
                     for name in ("WIRE.md", "SEALING.md"))
    from_sealing, last_chunk = sealing_vectors(*sealed())
    from_wire = wire_vectors(last_chunk)
    for name, text, computed in (("SEALING.md", sealing, from_sealing),
                                 ("WIRE.md", wire, from_wire)):
        stands = documented(text)
        must(stands <= computed, f"{name} has vectors that are wrong: {stands - computed}")
        must(computed <= stands, f"{name} lacks vectors: {computed - stands}")
    check_tables(wire)
    check_refusals(next(text for text in from_sealing if text.startswith("edge1:")))
    print(f"{len(from_wire)} vectors of WIRE.md and {len(from_sealing)} of SEALING.md hold")
