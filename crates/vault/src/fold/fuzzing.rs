//! Manifests and layers as they are when opened, for the fuzzer.

use super::layer_codec::{self, LAYER_BYTES_MAX};
use super::objects::decode_manifest;
use super::{Layer, Manifest, body};

/// The manifest of this content, under the number that it states.
pub(crate) fn manifest(content: &[u8]) -> Option<Manifest> {
    let stated: Manifest = serde_json::from_slice(content).ok()?;
    decode_manifest(content, stated.number).ok()
}

/// The layer of this body.
pub(crate) fn layer(body: &[u8]) -> Option<Layer> {
    let content = body::unpack(body, LAYER_BYTES_MAX).ok()?;
    layer_codec::decode(&content).ok()
}
