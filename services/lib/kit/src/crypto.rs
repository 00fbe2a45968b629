//! The few primitives services need, through `ring`: hashes, signatures, sealing, randomness.
//!
//! No primitive is made here and no parameter can be chosen: one hash (SHA-256), one signature
//! (Ed25519), one AEAD (ChaCha20-Poly1305, fast without AES instructions as on armv7).

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{Context, SHA256};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use crate::fsio;

/// What can go wrong with keys and sealed data. Never says anything about the secret itself.
#[derive(Debug, thiserror::Error)]
pub enum CryptoError {
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    NoRandomness,
    /// A key file could not be read or written.
    #[error("cannot use key file {path}; check that it exists and that this user may read it")]
    KeyFile {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A key file does not contain a key of the expected kind.
    #[error(
        "key file {path} does not hold {expected}; restore it from a backup, a new key cannot read old data"
    )]
    BadKey {
        /// Which file.
        path: PathBuf,
        /// What was expected.
        expected: &'static str,
    },
    /// Sealed data was changed, belongs to another context, or was sealed with another key.
    #[error("sealed data cannot be opened: it was changed or sealed with another key")]
    CannotOpen,
    /// The data could not be sealed (longer than the cipher allows).
    #[error("data is too long to be sealed")]
    CannotSeal,
    /// A signature does not fit the message and key.
    #[error("the signature does not match")]
    BadSignature,
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    out
}

/// Bytes of a hex text of even length; None for anything else.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let digits = digits?;
    if digits.len() % 2 != 0 {
        return None;
    }
    Some(
        digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect(),
    )
}

/// SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(bytes);
    hasher.finish()
}

/// SHA-256 of `bytes` as 64 hex digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&sha256(bytes))
}

/// SHA-256 of everything a reader gives, with its length.
///
/// # Errors
/// What the reader reports.
pub fn sha256_reader(reader: &mut impl Read) -> io::Result<([u8; 32], u64)> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut total = 0;
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok((hasher.finish(), total)),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                total += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// SHA-256 in steps.
#[derive(Clone)]
pub struct Sha256(Context);

impl Sha256 {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes taken in.
    pub fn finish(self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(self.0.finish().as_ref());
        out
    }

    /// The digest as 64 hex digits.
    pub fn finish_hex(self) -> String {
        hex(&self.finish())
    }
}

impl Default for Sha256 {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sha256")
    }
}

/// HMAC-SHA-256.
pub fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    let mut out = [0; 32];
    out.copy_from_slice(tag.as_ref());
    out
}

/// Compares in a time that does not depend on where the difference is (only on the lengths).
///
/// Both sides go through an HMAC with a random key, so that nothing about the secret can be learned.
pub fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    let Ok(key) = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()) else {
        return false;
    };
    let tag = hmac::sign(&key, a);
    hmac::verify(&key, b, tag.as_ref()).is_ok()
}

/// `N` random bytes.
///
/// # Errors
/// [`CryptoError::NoRandomness`].
pub fn random_bytes<const N: usize>() -> Result<[u8; N], CryptoError> {
    let mut out = [0; N];
    SystemRandom::new()
        .fill(&mut out)
        .map_err(|_| CryptoError::NoRandomness)?;
    Ok(out)
}

/// `N` random bytes as `2 * N` hex digits.
///
/// # Errors
/// [`CryptoError::NoRandomness`].
pub fn random_hex<const N: usize>() -> Result<String, CryptoError> {
    random_bytes::<N>().map(|bytes| hex(&bytes))
}

/// An Ed25519 key pair.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    pkcs8: Vec<u8>,
}

impl SigningKey {
    /// A new random key.
    ///
    /// # Errors
    /// [`CryptoError::NoRandomness`].
    pub fn generate() -> Result<Self, CryptoError> {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| CryptoError::NoRandomness)?;
        Self::from_pkcs8(pkcs8.as_ref()).ok_or(CryptoError::NoRandomness)
    }

    /// A key from its PKCS#8 DER (version 2, as [`pkcs8`](Self::pkcs8) gives, or version 1).
    pub fn from_pkcs8(der: &[u8]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok()?;
        let pkcs8 = der.to_vec();
        Some(Self { pair, pkcs8 })
    }

    /// Reads the key file (PKCS#8 DER), or makes it with mode 0600 if it does not exist.
    ///
    /// # Errors
    /// When the file cannot be read or written, or holds something else.
    pub fn load_or_create(path: &Path) -> Result<Self, CryptoError> {
        let failed = |source| CryptoError::KeyFile {
            path: path.to_owned(),
            source,
        };
        match fsio::read_limited(path, 4096) {
            Ok(der) => Self::from_pkcs8(&der).ok_or_else(|| CryptoError::BadKey {
                path: path.to_owned(),
                expected: "an Ed25519 key in PKCS#8",
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = Self::generate()?;
                fsio::atomic_write(path, key.pkcs8(), 0o600).map_err(failed)?;
                Ok(key)
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// The key in PKCS#8 DER. Secret.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The 32 bytes others verify with.
    pub fn public_key(&self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(self.pair.public_key().as_ref());
        out
    }

    /// The signature over exactly these bytes.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut out = [0; 64];
        out.copy_from_slice(self.pair.sign(message).as_ref());
        out
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", key_id(&self.public_key()))
    }
}

/// The first 16 hex digits of the SHA-256 of a raw public key.
pub fn key_id(public_key: &[u8]) -> String {
    hex(&sha256(public_key)[..8])
}

/// Checks an Ed25519 signature.
///
/// # Errors
/// [`CryptoError::BadSignature`], also for a malformed key or signature.
pub fn verify(public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
    UnparsedPublicKey::new(&ED25519, public_key)
        .verify(message, signature)
        .map_err(|_| CryptoError::BadSignature)
}

/// A symmetric key that seals and opens data.
///
/// Sealed: one format byte, 12 random bytes of nonce, the ciphertext with its 16-byte tag. Random nonces
/// are safe for 2^32 messages a key.
#[derive(Clone)]
pub struct SealKey(LessSafeKey);

const SEAL_FORMAT: u8 = 1;

impl SealKey {
    /// A key from its 32 bytes.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        #[expect(
            clippy::expect_used,
            reason = "the length is the one the algorithm asks for, by type"
        )]
        let key = UnboundKey::new(&CHACHA20_POLY1305, bytes).expect("32 bytes are a ChaCha20 key");
        Self(LessSafeKey::new(key))
    }

    /// Encrypts `plain`; `context` is not stored and must be the same when opening (name the place the
    /// data belongs to, so that sealed values cannot be swapped).
    ///
    /// # Errors
    /// Without randomness, or for data beyond the limit of the cipher (256 GiB).
    pub fn seal(&self, context: &[u8], plain: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let nonce = random_bytes::<NONCE_LEN>()?;
        let mut out = Vec::with_capacity(1 + NONCE_LEN + plain.len() + CHACHA20_POLY1305.tag_len());
        out.push(SEAL_FORMAT);
        out.extend_from_slice(&nonce);
        let start = out.len();
        out.extend_from_slice(plain);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce, Aad::from(context), &mut out[start..])
            .map_err(|_| CryptoError::CannotSeal)?;
        out.extend_from_slice(tag.as_ref());
        Ok(out)
    }

    /// Decrypts what [`seal`](Self::seal) made with the same key and context.
    ///
    /// # Errors
    /// [`CryptoError::CannotOpen`].
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let (&format, rest) = sealed.split_first().ok_or(CryptoError::CannotOpen)?;
        let (nonce, ciphertext) = rest
            .split_first_chunk::<NONCE_LEN>()
            .ok_or(CryptoError::CannotOpen)?;
        if format != SEAL_FORMAT {
            return Err(CryptoError::CannotOpen);
        }
        let mut data = ciphertext.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = self
            .0
            .open_in_place(nonce, Aad::from(context), &mut data)
            .map_err(|_| CryptoError::CannotOpen)?
            .len();
        data.truncate(length);
        Ok(data)
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey")
    }
}

/// A file with 32 random bytes (as 64 hex digits), mode 0600.
#[derive(Debug)]
pub struct KeyFile;

impl KeyFile {
    /// Reads the key, or makes the file if it does not exist. A damaged file is an error, never replaced:
    /// a new key could not open what the old one sealed.
    ///
    /// # Errors
    /// When the file cannot be read or written, or holds something else.
    pub fn load_or_create(path: &Path) -> Result<SealKey, CryptoError> {
        let failed = |source| CryptoError::KeyFile {
            path: path.to_owned(),
            source,
        };
        match fsio::read_limited(path, 1024) {
            Ok(text) => std::str::from_utf8(&text)
                .ok()
                .and_then(|text| unhex(text.trim()))
                .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
                .map(|bytes| SealKey::from_bytes(&bytes))
                .ok_or_else(|| CryptoError::BadKey {
                    path: path.to_owned(),
                    expected: "64 hex digits",
                }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let bytes = random_bytes::<32>()?;
                fsio::atomic_write(path, hex(&bytes).as_bytes(), 0o600).map_err(failed)?;
                Ok(SealKey::from_bytes(&bytes))
            }
            Err(error) => Err(failed(error)),
        }
    }
}

#[cfg(test)]
mod tests;
