//! In place of `sys/mapping.rs`: memory by its size.

#[derive(Debug)]
pub struct Mapping {
    len_bytes: usize,
}

impl Mapping {
    pub const fn new(len_bytes: usize) -> Self {
        Self { len_bytes }
    }

    pub const fn len_bytes(&self) -> usize {
        self.len_bytes
    }
}
