//! What is wrong with a machine or a command is said in one line.

use std::fs::{self, Permissions};
use std::io;
use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::thread;
use std::time::Duration;

use edge_ebpf::wire::{HELLO_BYTES_MIN, Hello, Welcome};
use edge_user::limits::XSK;
use edge_user::network::Network;
use edge_user::sys::mapping::Mapping;
use edge_user::sys::socket::ServiceSocket;
use edge_user::sys::xsk::Xsk;

use crate::daemon::{Edged, Settings, command, command_with, settings};
use crate::objects::Object;
use crate::testbed::{Testbed, bpf_object, ip, program};
use crate::wait::{ANSWER_TIME_MAX, assert_refused, ended, pause};

fn refused(testbed: &Testbed, setup: &Settings, code: i32, words: &[&str]) {
    let output = ended(command(testbed, setup), ANSWER_TIME_MAX);
    assert_refused(&output, code, words);
    assert!(!setup.socket.exists(), "the admin socket is left behind");
}

#[test]
fn what_edged_cannot_start_with_is_one_line_that_names_the_fix() {
    let Some(testbed) = Testbed::new() else {
        return;
    };
    let good = || settings(&testbed, "gso");

    let large = Settings {
        arena_bytes: 64 << 30,
        hugepages: "require",
        ..good()
    };
    refused(
        &testbed,
        &large,
        78,
        &["32768 pages", "sysctl -w vm.nr_hugepages"],
    );
    let missing = Settings {
        interfaces: vec!["edge0".to_owned(), "nowhere0".to_owned()],
        ..good()
    };
    refused(
        &testbed,
        &missing,
        78,
        &["no interface \"nowhere0\"", "ip link"],
    );
    let no_origin = Settings {
        origins: vec![testbed.folder().join("missing")],
        ..good()
    };
    refused(
        &testbed,
        &no_origin,
        78,
        &["origin[0].url", "missing", "create it"],
    );
    let elsewhere = Settings {
        listen: vec!["10.71.0.99:7347".parse().unwrap()],
        ..good()
    };
    refused(
        &testbed,
        &elsewhere,
        78,
        &[
            "10.71.0.99:7347 is not an address of this host",
            "ip address add",
        ],
    );
    let loopback = Settings {
        interfaces: vec!["lo".to_owned()],
        ..good()
    };
    refused(
        &testbed,
        &loopback,
        78,
        &["lo has no native XDP", "\"generic\""],
    );
    let small = Settings {
        arena_bytes: 1 << 20,
        ..good()
    };
    refused(&testbed, &small, 78, &["store.size"]);

    let misspelt = good().to_toml().replace("mode", "mdoe");
    let output = ended(command_with(&testbed, &misspelt), ANSWER_TIME_MAX);
    let lines = misspelt.lines().take_while(|line| !line.contains("mdoe"));
    let place = format!("edged.toml:{}: xdp.mdoe", lines.count() + 1);
    assert_refused(&output, 78, &[&place, "`mode`"]);
    assert!(!testbed.has_program());
}

#[test]
fn an_mtu_too_large_for_native_xdp_is_named() {
    let Some(testbed) = Testbed::new() else {
        return;
    };
    // The program at the reader's end allows no such MTU either.
    let there = [
        "-n",
        &testbed.reader.namespace,
        "link",
        "set",
        "dev",
        "reader0",
    ];
    ip(&[&there[..], &["xdpdrv", "off"]].concat());
    ip(&[&there[..], &["mtu", "9000"]].concat());
    ip(&[
        "-n",
        &testbed.edge.namespace,
        "link",
        "set",
        "dev",
        "edge0",
        "mtu",
        "9000",
    ]);
    let words = [
        "the MTU of edge0",
        "3500",
        "ip link set edge0 mtu 3000",
        "\"generic\"",
    ];
    refused(&testbed, &settings(&testbed, "gso"), 78, &words);
    let generic = Settings {
        xdp: "generic".into(),
        ..settings(&testbed, "gso")
    };
    Edged::start(&testbed, &generic).stop();
}

#[test]
fn too_few_descriptors_are_named_with_their_limit() {
    let Some(testbed) = Testbed::new() else {
        return;
    };
    let setup = settings(&testbed, "gso");
    let command = command(&testbed, &setup);
    let mut few = Command::new("prlimit");
    few.arg("--nofile=24")
        .arg(command.get_program())
        .args(command.get_args());
    few.env_remove("NOTIFY_SOCKET");
    let output = ended(few, ANSWER_TIME_MAX);
    assert_refused(&output, 78, &["RLIMIT_NOFILE", "LimitNOFILE="]);
    assert!(!testbed.has_program());
}

#[test]
fn an_ipv6_address_is_waited_for_until_it_is_known_to_be_unique() {
    let Some(testbed) = Testbed::new() else {
        return;
    };
    let in_edge = |words: &[&str]| ip(&[&["-n", &testbed.edge.namespace], words].concat());
    let at = |address: &str| Settings {
        listen: vec![format!("[{address}]:7347").parse().unwrap()],
        ..settings(&testbed, "gso")
    };
    in_edge(&["address", "add", "fd71::77/64", "dev", "edge0"]);
    Edged::start(&testbed, &at("fd71::77")).stop();

    let taken = testbed.reader.ipv6.to_string();
    in_edge(&["address", "add", &format!("{taken}/64"), "dev", "edge0"]);
    refused(
        &testbed,
        &at(&taken),
        75,
        &["a neighbour has", &taken, "dadfailed"],
    );

    // More questions than anybody waits for.
    let transmits = "/proc/sys/net/ipv6/conf/edge0/dad_transmits";
    testbed
        .edge
        .enter(|| fs::write(transmits, "60"))
        .unwrap()
        .unwrap();
    in_edge(&["address", "add", "fd71::78/64", "dev", "edge0"]);
    let words = [
        "[fd71::78]:7347 is still tentative after 4 s",
        "start again",
    ];
    refused(&testbed, &at("fd71::78"), 75, &words);
}

#[test]
fn a_link_local_address_is_served_on_the_interface_without_being_told_which() {
    let Some(testbed) = Testbed::new() else {
        return;
    };
    let link_local: Ipv6Addr = "fe80::ff:fe00:1".parse().unwrap();
    for xdp in ["native", "off"] {
        let setup = Settings {
            listen: vec![(link_local, 7347).into()],
            xdp: xdp.to_owned(),
            ..settings(&testbed, "gso")
        };
        let edged = Edged::start(&testbed, &setup);
        let answer = testbed
            .reader
            .enter(|| {
                let network = Network::open().unwrap();
                let link = network.interface("reader0").unwrap().unwrap();
                let edge = SocketAddrV6::new(link_local, 7347, 0, link.index);
                let socket = UdpSocket::bind("[::]:0").unwrap();
                socket.set_read_timeout(Some(ANSWER_TIME_MAX)).unwrap();
                let mut hello = Hello {
                    nonce: *b"linklocl",
                }
                .encode()
                .to_vec();
                hello.resize(HELLO_BYTES_MIN, 0);
                socket.send_to(&hello, edge).unwrap();
                let mut answer = [0; 2048];
                let len = socket.recv(&mut answer).unwrap();
                (len == hello.len())
                    .then(|| Welcome::decode(answer.first_chunk().unwrap()).unwrap())
            })
            .unwrap();
        assert_eq!(answer.unwrap().nonce, *b"linklocl");
        edged.stop();
    }
}

#[test]
fn what_somebody_else_holds_is_named_and_worth_another_try() {
    let Some(testbed) = Testbed::new() else {
        return;
    };
    let object = Object::seal(&testbed, "held", 100_000);
    let setup = settings(&testbed, "gso");
    let pass = bpf_object("edge-pass").display().to_string();
    let link = [
        "-n",
        &testbed.edge.namespace,
        "link",
        "set",
        "dev",
        testbed.edge.link,
    ];
    ip(&[&link[..], &["xdpdrv", "obj", &pass, "sec", "xdp"]].concat());
    refused(
        &testbed,
        &setup,
        75,
        &["already attached to edge0", "ip link show edge0"],
    );
    ip(&[&link[..], &["xdpdrv", "off"]].concat());

    let queue = bound_to_queue(&testbed).unwrap();
    refused(
        &testbed,
        &setup,
        75,
        &["queue 0 of edge0 is taken", "ss -p --xdp"],
    );
    drop(queue);

    let edged = Edged::start(&testbed, &setup);
    let second = Settings {
        socket: testbed.folder().join("second.sock"),
        ..setup
    };
    refused(
        &testbed,
        &second,
        75,
        &["10.71.0.1:7347 is taken", "ss -lunp"],
    );
    object.fetch(&testbed, testbed.service_v4());
    edged.stop();
}

/// An AF_XDP socket on the queue that an edge would use.
fn bound_to_queue(testbed: &Testbed) -> io::Result<Xsk> {
    let umem = Mapping::anonymous(XSK.umem_bytes(), false)?;
    testbed
        .edge
        .enter(|| {
            let socket = Xsk::new(umem, XSK)?;
            socket.bind(testbed.edge.link, 0)?;
            Ok(socket)
        })
        .unwrap()
}

#[test]
fn what_is_let_go_of_a_moment_later_is_had() {
    const A_MOMENT: Duration = Duration::from_millis(200);
    fn had_after<T: Send>(hold: impl Fn() -> io::Result<T>) {
        let first = hold().unwrap();
        thread::scope(|scope| {
            scope.spawn(move || {
                pause(A_MOMENT);
                drop(first);
            });
            hold().unwrap();
        });
    }
    let Some(testbed) = Testbed::new() else {
        return;
    };
    had_after(|| bound_to_queue(&testbed));
    for address in [testbed.service_v4(), testbed.service_v6()] {
        had_after(|| testbed.edge.enter(|| ServiceSocket::bind(address)).unwrap());
    }
}

#[test]
fn edged_without_rights_says_which_it_needs() {
    let Some(testbed) = Testbed::new() else {
        return;
    };
    // Where everybody may read and run it.
    let copy = testbed.folder().join("edged");
    fs::copy(program("edged"), &copy).unwrap();
    fs::set_permissions(&copy, Permissions::from_mode(0o755)).unwrap();
    let setup = settings(&testbed, "gso");
    let file = testbed.folder().join("edged.toml");
    fs::write(&file, setup.to_toml()).unwrap();
    let mut command = testbed.edge.inside("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    command.arg(&copy).arg("--config").arg(&file);
    let output = ended(command, ANSWER_TIME_MAX);
    assert_refused(&output, 77, &["run as root", "CAP_NET_ADMIN"]);
}

#[test]
fn a_get_that_cannot_succeed_says_why() {
    let Some(testbed) = Testbed::new() else {
        return;
    };
    let object = Object::seal(&testbed, "asked-for", 100_000);
    let other = Object::seal(&testbed, "asked-of-nobody", 100_000);
    let edged = Edged::start(&testbed, &settings(&testbed, "gso"));
    let get = |ticket: &str, edge: &str| {
        let mut command: Command = testbed.reader.inside(program("edge"));
        command
            .args(["get", ticket, "--edge", edge, "-o"])
            .arg(testbed.folder().join("out"));
        ended(command, ANSWER_TIME_MAX)
    };
    let ticket = object.ticket_text();
    let last = if ticket.ends_with('A') { 'B' } else { 'A' };
    let wrong = format!("{}{last}", &ticket[..ticket.len() - 1]);
    let file = testbed.folder().join("wrong.ticket");
    fs::write(&file, &wrong).unwrap();
    let output = get(&format!("@{}", file.display()), "10.71.0.1");
    assert_refused(&output, 1, &["ticket"]);
    let middle = ticket.len() / 2;
    fs::write(
        &file,
        format!("{}!{}", &ticket[..middle], &ticket[middle + 1..]),
    )
    .unwrap();
    let output = get(&format!("@{}", file.display()), "10.71.0.1");
    assert_refused(&output, 1, &["ticket"]);
    edged.stop();

    // Nobody at the port, nobody at the address, and one behind the port who never answers.
    let running = "is edged running";
    thread::scope(|scope| {
        scope.spawn(|| other.assert_not_to_be_had(&testbed, testbed.service_v6(), 1, &[running]));
        object.assert_not_to_be_had(&testbed, testbed.service_v4(), 1, &[running]);
    });
    let nobody = "10.71.0.99:7347".parse().unwrap();
    let mute = testbed
        .edge
        .enter(|| UdpSocket::bind(testbed.service_v4()).unwrap())
        .unwrap();
    thread::scope(|scope| {
        scope.spawn(|| other.assert_not_to_be_had(&testbed, nobody, 1, &["10.71.0.99:7347"]));
        let words = [running, "does not answer", "firewall"];
        object.assert_not_to_be_had(&testbed, testbed.service_v4(), 1, &words);
    });
    drop(mute);
}
