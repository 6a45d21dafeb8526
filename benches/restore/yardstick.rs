//! The yardstick: frames in memory, and threads that decompress and write them.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Blocks and frames as Tidegate makes them unless told otherwise.
const BLOCK: usize = 64 << 10;
const FRAME: usize = 256 << 10;
const LEVEL: i32 = 1;

/// Blocks of an image that lie in one frame.
struct Frame {
    packed: Vec<u8>,
    /// Where each of its stretches goes: bytes of the frame, offset in the image.
    parts: Vec<(std::ops::Range<usize>, u64)>,
}

/// An image, compressed.
pub struct Yardstick {
    frames: Vec<Frame>,
    image_bytes: u64,
    bytes: u64,
}

impl Yardstick {
    /// Compresses all blocks of an image that aren't zero.
    pub fn of(image: &Path) -> Self {
        let mut file = File::open(image).expect("the image can be opened");
        let (mut yardstick, mut block) =
            (Self { frames: Vec::new(), image_bytes: 0, bytes: 0 }, Vec::new());
        let (mut plain, mut parts) = (Vec::new(), Vec::new());
        loop {
            block.clear();
            let limit = BLOCK as u64;
            (&mut file).take(limit).read_to_end(&mut block).expect("the image can be read");
            if plain.len() + block.len() > FRAME || block.is_empty() {
                yardstick.push(&mut plain, &mut parts);
            }
            if block.is_empty() {
                return yardstick;
            }
            if block.iter().any(|byte| *byte != 0) {
                let begin = plain.len();
                plain.extend_from_slice(&block);
                join(&mut parts, begin..plain.len(), yardstick.image_bytes);
                yardstick.bytes += block.len() as u64;
            }
            yardstick.image_bytes += block.len() as u64;
        }
    }

    fn push(&mut self, plain: &mut Vec<u8>, parts: &mut Vec<(std::ops::Range<usize>, u64)>) {
        if !plain.is_empty() {
            let packed = zstd::bulk::compress(plain, LEVEL).expect("memory can be compressed");
            self.frames.push(Frame { packed, parts: std::mem::take(parts) });
            plain.clear();
        }
    }

    /// Bytes that aren't zero.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Decompresses everything on so many threads and writes it to a new file.
    pub fn write(&self, out: &Path, threads: usize) {
        let file = File::create_new(out).expect("a new file can be made");
        file.set_len(self.image_bytes).expect("it can be sized");
        let next = AtomicUsize::new(0);
        let work = || {
            let mut zstd = zstd::bulk::Decompressor::new().expect("a decompressor can be had");
            let mut plain = Vec::with_capacity(FRAME);
            while let Some(frame) = self.frames.get(next.fetch_add(1, Ordering::Relaxed)) {
                plain.clear();
                let unpacked = zstd.decompress_to_buffer(&frame.packed, &mut plain);
                unpacked.expect("what was compressed can be decompressed");
                for (range, offset) in &frame.parts {
                    let written = file.write_all_at(&plain[range.clone()], *offset);
                    written.expect("the file can be written to");
                }
            }
        };
        std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    }
}

/// Adds a stretch; one that follows the last on the disk joins it.
fn join(parts: &mut Vec<(std::ops::Range<usize>, u64)>, range: std::ops::Range<usize>, to: u64) {
    match parts.last_mut() {
        Some((last, offset)) if *offset + last.len() as u64 == to => last.end = range.end,
        _ => parts.push((range, to)),
    }
}

/// An image for the smoke run: text, noise and zeros, in stretches of odd lengths.
pub fn image() -> Vec<u8> {
    let mut bytes = vec![0; 2 << 20];
    let mut state = 1_u64;
    for (at, byte) in bytes.iter_mut().enumerate() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        *byte = match (at / 150_000) % 3 {
            0 => state.to_be_bytes()[0] % 16,
            1 => state.to_be_bytes()[0],
            _ => 0,
        };
    }
    bytes
}

/// Whether two files hold the same bytes.
pub fn equal(a: &Path, b: &Path) -> bool {
    let open = |path: &Path| File::open(path).expect("the file can be opened");
    let ((a, b), mut left, mut right) = ((open(a), open(b)), Vec::new(), Vec::new());
    loop {
        left.clear();
        right.clear();
        let read = |file: &File, to: &mut Vec<u8>| {
            file.take(1 << 20).read_to_end(to).expect("the file can be read")
        };
        let count = read(&a, &mut left);
        if read(&b, &mut right) != count || left != right {
            return false;
        }
        if count == 0 {
            return true;
        }
    }
}
