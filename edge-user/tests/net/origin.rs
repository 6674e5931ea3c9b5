//! What is wrong with an origin hurts one object only.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::daemon::{Edged, Setup};
use crate::ground::Ground;
use crate::objects::Object;
use crate::wait::pause;

/// What is done to a chunk's file, and whether the edge will then say that it is not there.
type Damage = (&'static str, fn(&Path), bool);

const DAMAGES: [Damage; 6] = [
    ("altered", |path| change(path, |bytes| bytes[7] ^= 1), false),
    (
        "cut",
        |path| change(path, |bytes| bytes.truncate(bytes.len() / 2)),
        false,
    ),
    ("grown", |path| change(path, |bytes| bytes.push(0)), false),
    (
        "huge",
        |path| change(path, |bytes| bytes.resize(3 << 20, 0)),
        false,
    ),
    ("empty", |path| change(path, Vec::clear), false),
    ("removed", |path| fs::remove_file(path).unwrap(), true),
];

fn change(path: &Path, act: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    act(&mut bytes);
    fs::write(path, bytes).unwrap();
}

with_each_sender!(a_damaged_chunk_is_refused_and_counted_and_everything_else_is_served);

fn a_damaged_chunk_is_refused_and_counted_and_everything_else_is_served(sender: &'static str) {
    let Some(ground) = Ground::new() else { return };
    let healthy = Object::seal(&ground, "healthy", 3_000_000);
    let objects = DAMAGES.map(|(name, ..)| Object::seal(&ground, name, 300_000));
    let edged = Edged::start(&ground, &Setup::of(&ground, sender));
    let edge = ground.service_v4();
    let mut saved = Vec::new();
    for (number, ((_, damage, _), object)) in DAMAGES.iter().zip(&objects).enumerate() {
        // Not the same chunk of each object: some are data, some are an index.
        let path = &object.chunks[number % object.chunks.len()];
        saved.push((path, fs::read(path).unwrap()));
        damage(path);
    }
    // Each of these takes its time, because the edge asks its origin again.
    thread::scope(|scope| {
        for ((_, _, absent), object) in DAMAGES.iter().zip(&objects) {
            let (code, words) = if *absent {
                (1, "no origin of the edge has chunk")
            } else {
                (75, "the chunk is damaged there")
            };
            let ground = &ground;
            scope.spawn(move || object.assert_not_to_be_had(ground, edge, code, &[words]));
        }
        healthy.fetch(&ground, edge);
    });
    healthy.fetch(&ground, ground.service_v6());
    let origin = edged.settled().origin;
    assert_eq!(origin.absent_total, 1);
    assert!(origin.corrupt_total >= 5, "{origin:?}");
    assert_eq!(origin.failed_total, 0);
    let log = edged.log();
    for ((name, _, absent), (path, _)) in DAMAGES.iter().zip(&saved) {
        let id = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(log.contains(id), !absent, "{name}: {log}");
    }

    // Nothing of it is remembered for long once the origin is well again.
    for (path, bytes) in saved {
        fs::write(path, bytes).unwrap();
    }
    pause(Duration::from_secs(5));
    for object in &objects {
        object.fetch(&ground, edge);
    }
    edged.stop();
}
