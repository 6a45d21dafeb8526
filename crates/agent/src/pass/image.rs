//! The header of a qcow2 image, as far as it says how large the disk in it is. docs/interop/qcow2.txt of
//! QEMU.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use tidegate_model::limits::{DISK_BYTES_MAX, TEXT_BYTES_MAX};

use super::PassError;

const MAGIC: [u8; 4] = *b"QFI\xfb";
/// Where the disk's size stands.
const SIZE_AT: usize = 24;

/// A qcow2 image that a hypervisor uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its canonical path, the name under which the vault knows the disk.
    pub name: String,
    /// The size of the disk in it.
    pub bytes: u64,
}

impl Image {
    /// Looks at an image. Who uses it isn't disturbed.
    ///
    /// # Errors
    /// [`PassError::Image`]
    pub fn open(path: &Path) -> Result<Self, PassError> {
        let unusable = |error| PassError::Image { path: path.to_owned(), error };
        let mut header = [0; SIZE_AT + 8];
        File::open(path).and_then(|mut file| file.read_exact(&mut header)).map_err(unusable)?;
        let canonical = std::fs::canonicalize(path).map_err(unusable)?;
        let name = canonical.to_string_lossy().into_owned();
        let bytes = header[SIZE_AT..].iter().fold(0, |bytes, byte| bytes << 8 | u64::from(*byte));
        let is_image = header.starts_with(&MAGIC) && (1..=DISK_BYTES_MAX).contains(&bytes);
        if !is_image || name.len() > TEXT_BYTES_MAX {
            let why = "it is no qcow2 image, or one with a path that is too long";
            return Err(unusable(io::Error::new(io::ErrorKind::InvalidData, why)));
        }
        Ok(Self { name, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_known_by_its_header() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        let mut header = [0; 104];
        header[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
        header[24..32].copy_from_slice(&(3_u64 << 30).to_be_bytes());
        std::fs::write(&path, header).unwrap();
        assert_eq!(Image::open(&path).unwrap().bytes, 3 << 30);
        for bad in [&header[..31], &[0; 104], &[0xff; 104]] {
            std::fs::write(&path, bad).unwrap();
            assert!(Image::open(&path).is_err());
        }
    }
}
