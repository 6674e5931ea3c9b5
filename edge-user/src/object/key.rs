//! Where an origin stores a chunk: `chunks/<first 2 hex>/<next 2 hex>/<64 hex>`.

use edge_ebpf::wire::ChunkId;

/// Path below the origin's root.
pub fn chunk_path(id: &ChunkId) -> String {
    let name = id.to_string();
    format!("chunks/{}/{}/{name}", &name[..2], &name[2..4])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_stored_two_folders_deep_under_its_full_name() {
        let mut id = [0x5c; 32];
        id[..2].copy_from_slice(&[0xab, 0x01]);
        let path = chunk_path(&ChunkId(id));
        assert_eq!(path, format!("chunks/ab/01/ab01{}", "5c".repeat(30)));
    }
}
