//! Reading of whole files that a variable names.
//!
//! # Invariants
//! - Reading is bounded: the variable may name a device or a log by mistake, and a process that uses up all memory at start
//!   reports no cause.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// The largest file: twenty times the largest bundle of certificate authorities of any system.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Returns the file's bytes.
///
/// # Errors
/// The file cannot be read, or is larger than 4 MiB.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    // In one allocation where the length is known: growing would leave copies of a key in freed buffers.
    let length = file.metadata()?.len().min(MAX_BYTES) as usize;
    let mut bytes = Vec::with_capacity(length + 1);
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "the file is larger than 4 MiB",
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_whole_and_an_endless_one_is_an_error() {
        let directory = tempfile::tempdir().expect("there is room");
        let path = directory.path().join("file");
        for length in [0, 1, MAX_BYTES as usize] {
            std::fs::write(&path, vec![b'x'; length]).expect("there is room");
            assert_eq!(read(&path).expect("it is within the limit").len(), length);
        }
        std::fs::write(&path, vec![b'x'; MAX_BYTES as usize + 1]).expect("there is room");
        for large in [&path, Path::new("/dev/zero")] {
            let error = read(large).expect_err("it is too large");
            assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        }
    }
}
