//! PEM, the text form of certificates and keys (RFC 7468): writing it. Reading is rustls'.

use zeroize::Zeroizing;

/// The label of a certificate.
pub(crate) const CERTIFICATE: &str = "CERTIFICATE";
/// The label of a private key in PKCS #8.
pub(crate) const PRIVATE_KEY: &str = "PRIVATE KEY";

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// Bytes on a line of 64 characters.
const LINE_BYTES: usize = 48;

/// The text of `der`; wiped when dropped, since it may be a key.
pub(crate) fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    // Enough for all of it, so that no copy is left behind when it grows.
    let length = der.len().div_ceil(3) * 4 + der.len().div_ceil(LINE_BYTES) + 2 * label.len() + 40;
    let mut text = Zeroizing::new(String::with_capacity(length));
    text.extend(["-----BEGIN ", label, "-----\n"]);
    for line in der.chunks(LINE_BYTES) {
        line.chunks(3).for_each(|three| text.extend(characters(three)));
        text.push('\n');
    }
    text.extend(["-----END ", label, "-----\n"]);
    text
}

fn characters(three: &[u8]) -> [char; 4] {
    let mut padded = [0; 4];
    padded[1..=three.len()].copy_from_slice(three);
    let bits = u32::from_be_bytes(padded);
    let mut characters = ['='; 4];
    for (index, character) in characters.iter_mut().enumerate().take(three.len() + 1) {
        let six = usize::from((bits >> (18 - 6 * index)).to_le_bytes()[0] & 63);
        *character = char::from(ALPHABET[six]);
    }
    characters
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;

    use super::*;

    #[test]
    fn every_length_reads_back() {
        for length in 0..200_u8 {
            let der: Vec<u8> = (0..length).map(|i| i.wrapping_mul(91)).collect();
            let text = encode(CERTIFICATE, &der);
            assert!(text.capacity() >= text.len() && text.lines().all(|line| line.len() <= 64));
            let read = CertificateDer::from_pem_slice(text.as_bytes()).unwrap();
            assert_eq!(read.as_ref(), der, "{length}");
        }
    }
}
