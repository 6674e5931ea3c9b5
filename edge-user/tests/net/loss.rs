//! A path that loses datagrams.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;

use crate::daemon::{Edged, settings};
use crate::objects::Object;
use crate::testbed::Testbed;

const LOSS_PERCENT: u64 = 5;
const SEED: u64 = 0x5eed;

with_each_sender!(a_file_gets_through_a_path_that_loses_one_datagram_in_twenty);

fn a_file_gets_through_a_path_that_loses_one_datagram_in_twenty(sender: &'static str) {
    let Some(testbed) = Testbed::new() else {
        return;
    };
    let object = Object::seal(&testbed, "lossy", 20_000_000);
    let edged = Edged::start(&testbed, &settings(&testbed, sender));
    let path = Path::new(&testbed, testbed.service_v4());
    thread::scope(|scope| {
        scope.spawn(|| path.run());
        let _end = EndOnDrop(&path.end);
        object.fetch(&testbed, path.address);
    });
    let (passed, lost) = (path.passed.into_inner(), path.lost.into_inner());
    let share = lost * 100 / (passed + lost);
    assert!(
        (LOSS_PERCENT - 1..=LOSS_PERCENT + 1).contains(&share),
        "{lost} lost, {passed} passed"
    );
    edged.stop();
}

/// Takes datagrams on the reader's loopback, and loses some on the way to the edge and back.
struct Path {
    near: UdpSocket,
    far: UdpSocket,
    address: SocketAddr,
    passed: AtomicU64,
    lost: AtomicU64,
    end: AtomicBool,
}

struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Path {
    fn new(testbed: &Testbed, edge: SocketAddr) -> Self {
        let (near, far) = testbed
            .reader
            .enter(|| {
                let near = UdpSocket::bind("127.0.0.1:0").unwrap();
                let far = UdpSocket::bind("0.0.0.0:0").unwrap();
                far.connect(edge).unwrap();
                (near, far)
            })
            .unwrap();
        for socket in [&near, &far] {
            set_socket_recv_buffer_size_force(socket, 16 << 20).unwrap();
            socket.set_nonblocking(true).unwrap();
        }
        let address = near.local_addr().unwrap();
        let zero = || AtomicU64::new(0);
        Self {
            near,
            far,
            address,
            passed: zero(),
            lost: zero(),
            end: AtomicBool::new(false),
        }
    }

    fn run(&self) {
        let mut rng = SmallRng::seed_from_u64(SEED);
        let mut passes = || {
            let passes = rng.random_range(0..100) >= LOSS_PERCENT;
            if passes { &self.passed } else { &self.lost }.fetch_add(1, Ordering::Relaxed);
            passes
        };
        let mut client = None;
        let mut buffer = [0; 2048];
        let patience = Timespec {
            tv_sec: 0,
            tv_nsec: 50_000_000,
        };
        while !self.end.load(Ordering::Relaxed) {
            let wants = |socket| PollFd::new(socket, PollFlags::IN);
            poll(&mut [wants(&self.near), wants(&self.far)], Some(&patience)).unwrap();
            while let Ok((length, from)) = self.near.recv_from(&mut buffer) {
                client = Some(from);
                if passes() {
                    self.far.send(&buffer[..length]).unwrap();
                }
            }
            while let Ok(length) = self.far.recv(&mut buffer) {
                if let Some(client) = client
                    && passes()
                {
                    // A client that has just ended does not listen any more.
                    drop(self.near.send_to(&buffer[..length], client));
                }
            }
        }
    }
}
