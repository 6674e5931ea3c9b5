//! Sealedge end to end, as a user would notice it: real programs, a real link, real frames.
//! Every test has two network namespaces and a veth pair of its own and leaves none behind.
#![cfg(all(feature = "server", feature = "reader"))]
#![expect(clippy::print_stderr, reason = "a test says why it does not run")]

/// Makes a test of each function for each sender: what happens behind `Transmitter` differs in
/// all of it.
macro_rules! with_each_sender {
    ($($name:ident),+) => {
        mod gso {
            $(#[test] fn $name() { super::$name("gso"); })+
        }
        mod xsk {
            $(#[test] fn $name() { super::$name("xsk"); })+
        }
    };
}

/// From sealed file to opened file.
mod whole_way;
/// The same by the reader in Python, written from the documents alone.
mod reference;
/// More than fits: many clients, a small arena, a large object, a map that lies.
mod pressure;
/// A path that loses datagrams.
mod loss;
/// Slow links with short and long queues.
mod slow;
/// I14: nobody gets more than he sent, on any path.
mod amplification;
/// I10: every packet has one end, and the ends add up.
mod counters;
/// Requests under VLAN tags.
mod tags;
/// The golden packets, as frames on a wire.
mod golden;
/// Start, idle, end.
mod kernel;
mod life;
/// Several interfaces: each with workers of its own, and one that goes on without another.
mod interfaces;
/// The command to size machines with, against an edge that is one.
mod capacity;
/// What is wrong with a machine or a command is said in one line.
mod conditions;
/// What the kernel reports about interfaces, and for which namespace.
mod facts;
/// Memory that is promised and not there.
mod shortage;
/// What a copy of the daemon's memory would give away.
mod dump;
/// What a GET is refused with.
mod refusals;
/// What is wrong with an origin hurts one object only.
mod origin;

/// Two network namespaces and the link between them.
mod testbed;
/// A running `edged`.
mod daemon;
/// Sealed files, and how they are fetched.
mod objects;
/// Datagrams an edge must distrust, from many forged sources, in many wrappings.
mod trace;
/// Waits, with an end.
mod wait;
