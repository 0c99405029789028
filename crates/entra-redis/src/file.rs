//! A file that a variable names, read whole.
//!
//! What always holds: reading ends. The variable may name a device or a log by mistake, and a process that eats all memory
//! while it starts says nobody why.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// Twenty times the largest bundle of certificate authorities that systems bring.
const LARGEST_BYTES: u64 = 4 * 1024 * 1024;

/// The file's bytes.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    // All at once where the length is known: a key must not be left behind in a smaller buffer.
    let length = file.metadata()?.len().min(LARGEST_BYTES) as usize;
    let mut bytes = Vec::with_capacity(length + 1);
    file.take(LARGEST_BYTES + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > LARGEST_BYTES {
        true => Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "it is larger than 4 MiB",
        )),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_whole_and_an_endless_one_is_not() {
        let directory = tempfile::tempdir().expect("there is room");
        let path = directory.path().join("file");
        for length in [0, 1, LARGEST_BYTES as usize] {
            std::fs::write(&path, vec![b'x'; length]).expect("there is room");
            assert_eq!(read(&path).expect("it is small").len(), length);
        }
        std::fs::write(&path, vec![b'x'; LARGEST_BYTES as usize + 1]).expect("there is room");
        for large in [&path, Path::new("/dev/zero")] {
            let error = read(large).expect_err("it is too large");
            assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        }
    }
}
