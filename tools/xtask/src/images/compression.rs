//! How layers are compressed.

use std::io::{Read, Write as _};

use anyhow::{Context as _, Result, bail};
use flate2::GzBuilder;
use zstd::zstd_safe::CParameter;

use super::oci::{LAYER_GZIP, LAYER_ZSTD};

/// First bytes of what zstd made.
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// First bytes of what gzip made.
const GZIP: &[u8] = &[0x1f, 0x8b];
/// How far back, as a power of two, zstd looks for what it has seen: 16 MiB. A node needs as much memory to unpack.
const WINDOW: u32 = 24;

/// How layers are compressed. The same bytes always give the same bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Compression {
    /// Smallest; Kubernetes, podman and Docker 23 or newer read it
    #[default]
    Zstd,
    /// A tenth larger in a tenth of the time; for tests
    ZstdQuick,
    /// Larger by a fourth; for what reads nothing else
    Gzip,
}

impl Compression {
    /// What it is called in the names of files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::ZstdQuick => "zstd-quick",
            Self::Gzip => "gzip",
        }
    }

    /// Compresses without a time and without a name.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub(crate) fn pack(self, bytes: &[u8]) -> Result<Vec<u8>> {
        let level = match self {
            Self::Zstd => 19,
            Self::ZstdQuick => 12,
            Self::Gzip => {
                let mut encoder = GzBuilder::new().write(Vec::new(), flate2::Compression::best());
                encoder.write_all(bytes)?;
                return Ok(encoder.finish()?);
            }
        };
        let mut compressor = zstd::bulk::Compressor::new(level)?;
        compressor.set_parameter(CParameter::WindowLog(WINDOW))?;
        compressor.set_parameter(CParameter::EnableLongDistanceMatching(true))?;
        compressor
            .compress(bytes)
            .context("a layer cannot be compressed")
    }
}

/// The media type of a compressed layer.
///
/// # Errors
/// When it is compressed with neither.
pub(crate) fn kind(blob: &[u8]) -> Result<&'static str> {
    match blob {
        _ if blob.starts_with(ZSTD) => Ok(LAYER_ZSTD),
        _ if blob.starts_with(GZIP) => Ok(LAYER_GZIP),
        _ => bail!("a layer is neither compressed with zstd nor with gzip"),
    }
}

/// What was compressed.
///
/// # Errors
/// When it is compressed with neither.
pub(crate) fn unpacked<'a>(blob: &'a [u8]) -> Result<Box<dyn Read + 'a>> {
    Ok(match kind(blob)? {
        LAYER_ZSTD => Box::new(zstd::stream::read::Decoder::with_buffer(blob)?),
        _ => Box::new(flate2::read::GzDecoder::new(blob)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compressed_comes_back_and_is_the_same_each_time() {
        let bytes: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        for (compression, wanted) in [
            (Compression::Zstd, LAYER_ZSTD),
            (Compression::ZstdQuick, LAYER_ZSTD),
            (Compression::Gzip, LAYER_GZIP),
        ] {
            let packed = compression.pack(&bytes).unwrap();
            assert_eq!(packed, compression.pack(&bytes).unwrap());
            assert_eq!(kind(&packed).unwrap(), wanted);
            let mut back = Vec::new();
            unpacked(&packed).unwrap().read_to_end(&mut back).unwrap();
            assert!(back == bytes, "{}", compression.name());
        }
    }

    #[test]
    fn what_lies_far_back_is_found_and_no_more_memory_is_wanted_than_said() {
        // A block of noise, twelve megabytes of other noise, and the block again.
        let mut seed = 1_u64;
        let mut noise = |count: usize| -> Vec<u8> {
            let mut bytes = Vec::with_capacity(count);
            while bytes.len() < count {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                bytes.extend_from_slice(&seed.to_be_bytes()[..4]);
            }
            bytes
        };
        let block = noise(1 << 20);
        let bytes = [&*block, &*noise(12 << 20), &*block, &*noise(12 << 20)].concat();
        let packed = Compression::ZstdQuick.pack(&bytes).unwrap();
        assert!(packed.len() < (25 << 20) + (1 << 16), "{}", packed.len());
        let mut decoder = zstd::stream::read::Decoder::with_buffer(&*packed).unwrap();
        decoder.window_log_max(WINDOW).unwrap();
        let mut back = Vec::new();
        decoder.read_to_end(&mut back).unwrap();
        assert!(back == bytes);
    }

    #[test]
    fn what_is_not_compressed_is_refused() {
        assert!(kind(b"plain").is_err() && unpacked(&[]).is_err());
    }
}
