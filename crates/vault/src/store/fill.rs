//! Reads a part of an object into memory that the caller has, without a copy where there is a file.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use futures::StreamExt;
use object_store::{GetOptions, GetRange, GetResultPayload, ObjectStore};

use super::{Store, StoreError};

/// See [`Store::read_range`].
pub(super) async fn read_range<B: AsMut<[u8]> + Send + 'static>(
    store: &Store,
    path: &str,
    start: u64,
    mut buffer: B,
) -> Result<B, StoreError> {
    let wanted = buffer.as_mut().len() as u64;
    let end = start.saturating_add(wanted);
    let range = Some(GetRange::Bounded(start..end));
    let options = GetOptions { range, ..GetOptions::default() };
    let result = match store.0.reads.get_opts(&store.object_path(path)?, options).await {
        Ok(result) => result,
        Err(error) => return Err(store.explained(path, end, store.error(path, &error)).await),
    };
    let Range { start: from, end: to } = result.range;
    if to.saturating_sub(from) < wanted {
        return Err(store.short(path, to, end));
    }
    let (buffer, filled) = match result.payload {
        GetResultPayload::File(file, _) => from_file(store, path, file, start, buffer).await?,
        GetResultPayload::Stream(mut stream) => {
            let mut filled = 0;
            while let Some(part) = stream.next().await {
                let part = part.map_err(|error| store.error(path, &error))?;
                let Some(room) = buffer.as_mut().get_mut(filled..filled + part.len()) else {
                    return Err(store.long(path, (filled + part.len()) as u64, wanted));
                };
                room.copy_from_slice(&part);
                filled += part.len();
            }
            (buffer, filled as u64)
        }
    };
    if filled < wanted {
        return Err(store.short(path, start.saturating_add(filled), end));
    }
    Ok(buffer)
}

/// Reads on a thread that may block; gives how many bytes there were.
async fn from_file<B: AsMut<[u8]> + Send + 'static>(
    store: &Store,
    path: &str,
    file: File,
    start: u64,
    mut buffer: B,
) -> Result<(B, u64), StoreError> {
    let read = tokio::task::spawn_blocking(move || {
        let (bytes, mut filled) = (buffer.as_mut(), 0);
        while filled < bytes.len() {
            match file.read_at(&mut bytes[filled..], start + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok((buffer, filled as u64))
    });
    let failed = |cause: String| {
        let (place, path) = (store.place().to_owned(), path.to_owned());
        StoreError::Failed { place, path, cause }
    };
    let read = read.await.map_err(|error| failed(error.to_string()))?;
    read.map_err(|error| failed(error.to_string()))
}
