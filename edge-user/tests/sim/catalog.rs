//! Every chunk there is: objects that readers fetch, and chunks that only fill the store.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::LazyLock;

use edge_ebpf::wire::{ChunkId, DATA_HEADER_BYTES, DataHeader, Geometry, SEGMENT_BYTES_DEFAULT};
use edge_user::object::ticket::PublicTicket;
use edge_user::object::tree::{Builder, Shape, id_of};

use super::chance::Chance;

const CHUNK_BYTES: usize = 131_072;
/// Of one chunk each; more than the smallest store has slots, so that they push each other out.
const SMALL_OBJECTS: usize = 90;
/// What fills the store before anybody asks.
pub(crate) const FILLERS: usize = 60;

pub(crate) struct Object {
    pub(crate) ticket: PublicTicket,
    /// Data first.
    pub(crate) ids: Vec<ChunkId>,
    pub(crate) data_chunks: u64,
}

pub(crate) struct Catalog {
    pub(crate) small: Vec<Object>,
    pub(crate) large: Object,
    pub(crate) fillers: Vec<ChunkId>,
    chunks: HashMap<ChunkId, Vec<u8>>,
    by_tag: HashMap<[u8; 8], ChunkId>,
}

pub(crate) static CATALOG: LazyLock<Catalog> = LazyLock::new(Catalog::make);

impl Catalog {
    fn make() -> Self {
        let mut chance = Chance::new(1);
        let mut chunks = HashMap::new();
        let mut small = Vec::new();
        for number in 0..SMALL_OBJECTS {
            // Around the borders of segments first.
            let size = match number {
                0 => 1,
                1..=3 => 1214 + number,
                4 => 2 * 1216 + 1,
                5..80 => 1 + chance.index(4000),
                _ => 1 + chance.index(30_000),
            };
            small.push(object(&mut chance, size, &mut chunks));
        }
        let large = object(&mut chance, 2 * CHUNK_BYTES + 5000, &mut chunks);
        let fillers = (0..FILLERS).map(|number| {
            let bytes = random(&mut chance, 1 + number);
            let id = id_of(&bytes);
            chunks.insert(id, bytes);
            id
        });
        let fillers = fillers.collect();
        let by_tag = chunks.keys().map(|id| (id.tag(), *id)).collect();
        Self {
            small,
            large,
            fillers,
            chunks,
            by_tag,
        }
    }

    pub(crate) fn chunk(&self, id: &ChunkId) -> Option<&[u8]> {
        self.chunks.get(id).map(Vec::as_slice)
    }

    /// Whether a DATA datagram is what it says.
    pub(crate) fn is_true(&self, datagram: &[u8]) -> bool {
        let Some((header, payload)) = datagram.split_first_chunk::<DATA_HEADER_BYTES>() else {
            return false;
        };
        let Ok(header) = DataHeader::decode(header) else {
            return false;
        };
        let chunk = self.by_tag.get(&header.tag).map(|id| &self.chunks[id]);
        chunk.is_some_and(|chunk| {
            let len = u32::try_from(chunk.len()).expect("a chunk");
            let geometry = Geometry::new(len, SEGMENT_BYTES_DEFAULT).expect("a chunk");
            header.chunk_bytes == len
                && header.last == geometry.last
                && geometry
                    .segment(header.index)
                    .is_some_and(|(start, len)| chunk[start..start + len] == *payload)
        })
    }
}

fn random(chance: &mut Chance, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    chance.fill(&mut bytes);
    bytes
}

fn object(chance: &mut Chance, size: usize, chunks: &mut HashMap<ChunkId, Vec<u8>>) -> Object {
    let mut builder = Builder::default();
    let mut ids = Vec::new();
    let mut keep = |id, bytes| {
        ids.push(id);
        chunks.insert(id, bytes);
        Ok::<_, Infallible>(())
    };
    for data in random(chance, size).chunks(CHUNK_BYTES) {
        let id = id_of(data);
        let Ok(()) = keep(id, data.to_vec());
        let Ok(()) = builder.push(id, &mut keep);
    }
    let Ok(root) = builder.finish(&mut keep);
    let shape = Shape::of(size as u64).expect("small");
    let data_chunks = shape.data_chunks();
    Object {
        ticket: PublicTicket::new(shape, root).expect("a root"),
        ids,
        data_chunks,
    }
}
